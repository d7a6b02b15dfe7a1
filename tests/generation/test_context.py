from __future__ import annotations

import pytest
import torch

from scratchlm.generation.context import ContextWindow
from scratchlm.model import GPTModel


def plain_next_logits(model: GPTModel, row: list[int]) -> torch.Tensor:
    """What a row's next-token scores are by definition: no batch, no cache, no padding."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([row[-model.config.context_length :]]))[0, -1]
    model.train(was_training)
    return logits


@pytest.mark.parametrize("use_cache", [True, False])
def test_scores_are_those_of_each_row_read_alone_also_beyond_the_context(tiny_model, use_cache):
    rows = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11]]
    window = ContextWindow(tiny_model, use_cache=use_cache, n_expected=20)
    for new in range(20):
        logits = window.next_logits(rows)
        expected = torch.stack([plain_next_logits(tiny_model, row) for row in rows])
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        rows = [[*row, (7 * new + i) % 61] for i, row in enumerate(rows)]


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_can_leave_and_change_places(tiny_model, use_cache):
    rows = [[1, 2, 3], [4], [5, 6]]
    window = ContextWindow(tiny_model, use_cache=use_cache, n_expected=5)
    window.next_logits(rows)
    window.keep_rows([2, 1])
    rows = [[5, 6, 50], [4, 51]]
    expected = torch.stack([plain_next_logits(tiny_model, row) for row in rows])
    torch.testing.assert_close(window.next_logits(rows), expected, rtol=1e-4, atol=1e-4)


def test_growing_beyond_what_was_expected_is_still_right(tiny_model):
    window, row = ContextWindow(tiny_model, use_cache=True, n_expected=2), [3]
    for token in range(8):
        logits = window.next_logits([row])
        torch.testing.assert_close(logits[0], plain_next_logits(tiny_model, row), rtol=1e-4, atol=1e-4)
        row = [*row, token]


def test_with_a_cache_only_the_new_token_is_read(tiny_model):
    widths = []
    tiny_model.tok_emb.register_forward_pre_hook(lambda _m, args: widths.append(args[0].shape[1]))
    window = ContextWindow(tiny_model, use_cache=True, n_expected=20)
    for length in range(9, 15):
        window.next_logits([list(range(length))])
    assert widths == [9, 1, 1, 1, 12, 12]  # twelve tokens fill the context; then all of it is read each time


def test_every_module_keeps_its_mode(tiny_model):
    tiny_model.trf_blocks[0].eval()
    before = [module.training for module in tiny_model.modules()]
    ContextWindow(tiny_model, use_cache=True, n_expected=1).next_logits([[1]])
    assert [module.training for module in tiny_model.modules()] == before
