import pytest
import torch

from scratchlm.inspection import neighbours
from scratchlm.inspection.neighbours import nearest_tokens


def test_they_have_the_highest_cosine_and_are_not_the_token_itself(tiny_model, monkeypatch):
    expected = []
    for id_ in (7, 60):
        matrix = tiny_model.tok_emb.weight.detach()
        cosine = torch.cosine_similarity(matrix[id_][None], matrix)  # (V,)
        order = [other for other in cosine.argsort(descending=True).tolist() if other != id_]
        expected.append([(other, pytest.approx(cosine[other].item(), abs=1e-6)) for other in order[:4]])
    assert nearest_tokens(tiny_model, [7, 60], n=4) == expected
    monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", 10)
    assert nearest_tokens(tiny_model, [7, 60], n=4) == expected


def test_a_small_vocabulary_gives_all_other_tokens(tiny_model):
    [near] = nearest_tokens(tiny_model, [0], n=1000)
    assert sorted(id_ for id_, _ in near) == list(range(1, 61))
