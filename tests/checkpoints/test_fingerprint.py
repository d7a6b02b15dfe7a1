"""Equal weights have equal fingerprints, different weights different ones."""

import torch

from scratchlm.checkpoints.fingerprint import weights_fingerprint
from scratchlm.checkpoints.store import load_model, own_weights, save_model


def test_a_file_on_the_way_changes_nothing(tiny_model, tiny_tokenizer, tmp_path):
    loaded = load_model(save_model(tmp_path / "model", tiny_model, tiny_tokenizer))
    assert weights_fingerprint(own_weights(loaded.model)) == weights_fingerprint(own_weights(tiny_model))


def test_numbers_names_shapes_and_kinds_count_and_the_order_does_not():
    one, two = torch.arange(6.0), torch.ones(2)
    known = weights_fingerprint({"a": one, "b": two})
    assert weights_fingerprint({"b": two, "a": one.clone()}) == known
    others = [
        {"a": one, "c": two},
        {"a": one.reshape(2, 3), "b": two},
        {"a": one.double(), "b": two},
        {"a": one + 1e-6, "b": two},
        {"a": one},
    ]
    assert len({known, *map(weights_fingerprint, others)}) == 6


def test_a_view_counts_as_what_it_shows():
    square = torch.arange(9.0).reshape(3, 3)
    assert weights_fingerprint({"a": square.T}) == weights_fingerprint({"a": square.T.contiguous()})
