"""A classifier's head, and the position that it is applied to."""

import pytest
import torch

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.heads import _mean, class_logits, replace_head
from tests.tolerances import assert_same_logits

LENGTHS = (3, 7, 1, 5)
WIDTH = 9


@pytest.fixture
def classifier(tiny_model):
    replace_head(tiny_model, 3)
    return tiny_model.eval()


def rows(generator):
    return [torch.randint(1, 300, (length,), generator=generator) for length in LENGTHS]


def padded(texts, *, side, filling):
    inputs, mask = filling.clone(), torch.zeros(len(texts), WIDTH, dtype=torch.bool)
    for i, text in enumerate(texts):
        place = slice(0, len(text)) if side == "right" else slice(WIDTH - len(text), WIDTH)
        inputs[i, place], mask[i, place] = text, True
    return inputs, mask


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_the_head_scores_classes_and_leaves_the_embedding_alone(tiny_model, n_classes):
    embedding = tiny_model.tok_emb.weight.detach().clone()
    replace_head(tiny_model, n_classes)
    assert tiny_model.out_head.weight.shape == (n_classes, 16)
    assert tiny_model.out_head.bias.shape == (n_classes,)
    assert tiny_model.out_head.weight is not tiny_model.tok_emb.weight
    assert torch.equal(tiny_model.tok_emb.weight, embedding)
    assert tiny_model(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, n_classes)


def test_a_single_class_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="at least 2 classes, got 1"):
        replace_head(tiny_model, 1)


@pytest.mark.parametrize("side", ["right", "left"])
def test_scores_are_read_at_the_last_real_token_on_either_side_of_padding(classifier, side):
    generator = torch.Generator().manual_seed(1)
    texts = rows(generator)
    inputs, mask = padded(texts, side=side, filling=torch.zeros(len(texts), WIDTH, dtype=torch.long))
    together = class_logits(classifier, inputs, mask)
    alone = torch.cat([classifier(text[None])[:, -1] for text in texts])
    assert_same_logits(together, alone, classifier.config)


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_stands_in_the_padding_changes_nothing(classifier, side):
    generator = torch.Generator().manual_seed(2)
    texts = rows(generator)
    results = []
    for _ in range(3):
        filling = torch.randint(0, 300, (len(texts), WIDTH), generator=generator)
        results.append(class_logits(classifier, *padded(texts, side=side, filling=filling)))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_without_a_mask_the_last_column_is_read(classifier):
    inputs = torch.randint(0, 300, (4, 6), generator=torch.Generator().manual_seed(3))
    expected = classifier(inputs)[:, -1]
    assert_same_logits(class_logits(classifier, inputs, None), expected, classifier.config)


@pytest.mark.parametrize("side", ["right", "left"])
def test_last_is_the_last_column_whatever_the_mask_hides(classifier, generator, side):
    texts = rows(generator)
    inputs, mask = padded(texts, side=side, filling=torch.zeros(len(texts), WIDTH, dtype=torch.long))
    with torch.no_grad():
        expected = classifier(inputs, attention_mask=mask)[:, -1]
        torch.testing.assert_close(class_logits(classifier, inputs, mask, position="last"), expected)


def test_the_mean_over_a_long_text_in_half_precision_is_rounded_once(classifier):
    """bfloat16 has eight binary digits: it cannot count 300 tokens, nor add them up."""
    states = torch.rand(2, 301, 16, generator=torch.Generator().manual_seed(0)) + 1
    mask = torch.ones(2, 301, dtype=torch.bool)
    mask[1, 257:] = False
    half = states.bfloat16()
    exact = torch.stack([half[0].double().mean(dim=0), half[1, :257].double().mean(dim=0)])
    found = _mean(half, mask).double()
    assert (found - exact).abs().max() <= torch.finfo(torch.bfloat16).eps * exact.max() / 2
