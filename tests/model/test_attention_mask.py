"""Padding is masked, texts of a packed row do not attend to each other, and each has its own positions."""

import torch

from scratchlm.model.attention_mask import query_key_mask, text_positions


def test_real_tokens_see_real_tokens_up_to_themselves_and_padding_sees_itself():
    found = query_key_mask(torch.tensor([[False, False, True, True], [True, True, True, False]]), 4)
    assert found[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert found[1, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_the_mask_of_the_last_tokens_is_the_last_rows():
    for mask in (torch.tensor([[False, True, True, True, True]]), torch.tensor([[0, 3, 3, 4, 4]])):
        assert torch.equal(query_key_mask(mask, 2), query_key_mask(mask, 5)[:, :, -2:])


def test_without_causality_the_future_is_seen_but_no_padding():
    found = query_key_mask(torch.tensor([[True, True, False]]), 3, is_causal=False)
    assert found[0, 0].int().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]


def test_for_real_tokens_a_mask_of_one_number_is_a_mask_of_booleans():
    real = torch.tensor([[False, True, True, True], [True, True, False, False]])
    for is_causal in (True, False):
        both = [query_key_mask(mask, 4, is_causal=is_causal)[:, 0][real] for mask in (real, real.int() * 9)]
        assert torch.equal(*both)
    assert torch.equal(text_positions(real)[real], text_positions(real.int())[real])
