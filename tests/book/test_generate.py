"""Prompts that are longer than the context."""

import pytest
import torch

from scratchlm.book.generate import trim_input_tensor
from scratchlm.core.errors import ConfigError

IDS = torch.arange(20).view(2, 10)


@pytest.mark.parametrize(
    ("context_len", "n_new", "n_kept"), [(8, 3, 5), (8, 7, 1), (13, 3, 10), (100, 0, 10), (10, 0, 10)]
)
def test_the_last_ids_are_kept_as_far_as_new_ones_leave_room(context_len, n_new, n_kept):
    assert trim_input_tensor(IDS, context_len, n_new).equal(IDS[:, 10 - n_kept :])


@pytest.mark.parametrize("n_new", [8, 9, -1])
def test_new_tokens_that_fill_the_context_are_refused(n_new):
    with pytest.raises(ConfigError, match=f"below context_len, got {n_new} and 8"):
        trim_input_tensor(IDS, 8, n_new)
