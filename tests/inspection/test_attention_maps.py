import dataclasses

import pytest
import torch

from scratchlm.inspection.attention_maps import attention_maps, summarize_heads
from scratchlm.model import GPTModel


@pytest.mark.parametrize("attention", ["sdpa", "manual"])
def test_each_layer_and_head_has_rows_that_sum_to_one_and_never_look_ahead(tiny_config, attention):
    model = GPTModel(dataclasses.replace(tiny_config, attention=attention))
    maps = attention_maps(model, torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]))
    assert maps.shape == (2, 2, 4, 5, 5)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 2, 4, 5))
    assert maps.triu(1).abs().max() == 0


def test_the_maps_rebuild_what_the_model_computes(tiny_model):
    """Weights times values, through the rest of each block, must be the model's own hidden states."""
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    maps = attention_maps(tiny_model, ids)
    with torch.no_grad():
        x = tiny_model.tok_emb(ids) + tiny_model.pos_emb(torch.arange(5))
        for block, weights in zip(tiny_model.trf_blocks, maps, strict=True):
            values = block.att.W_value(block.norm1(x)).view(1, 5, 4, 4).transpose(1, 2)
            x = x + block.att.out_proj((weights @ values).transpose(1, 2).flatten(2))
            x = x + block.ff(block.norm2(x))
        torch.testing.assert_close(tiny_model.final_norm(x), tiny_model.hidden_states(ids))


def test_no_token_attends_to_padding(tiny_model):
    mask = torch.tensor([[False, False, True, True, True]])
    maps = attention_maps(tiny_model, torch.tensor([[0, 0, 3, 4, 5]]), attention_mask=mask)
    assert maps[..., 2:, :2].abs().max() == 0
    torch.testing.assert_close(maps[..., 2:, 2:], attention_maps(tiny_model, torch.tensor([[3, 4, 5]])))


def test_the_model_is_left_unchanged(tiny_model):
    tiny_model.train()
    attention_maps(tiny_model, torch.tensor([[1, 2]]))
    assert tiny_model.training
    assert not any(module._forward_hooks for module in tiny_model.modules())


def test_heads_are_summarized_by_where_they_attend_to():
    """Four tokens a b a b, one head that attends to: a; a 0.75 and b 0.25; b; b 0.5, a 0.25, itself 0.25."""
    rows = [[1, 0, 0, 0], [0.75, 0.25, 0, 0], [0, 1, 0, 0], [0, 0.5, 0.25, 0.25]]
    [[head]] = summarize_heads(torch.tensor([[rows]]), [5, 6, 5, 6])
    assert head.previous == pytest.approx((0.75 + 1 + 0.25) / 3)
    assert head.first == pytest.approx(0.75 / 3)
    assert head.itself == pytest.approx((0.25 + 0 + 0.25) / 3)
    assert head.induction == pytest.approx(
        (1 + 0.25) / 2
    )  # a -> b after the first a; b -> a after the first b


def test_without_a_repeated_token_there_is_no_induction(tiny_model):
    maps = attention_maps(tiny_model, torch.tensor([[1, 2, 3]]))[:, 0]
    assert {head.induction for layer in summarize_heads(maps, [1, 2, 3]) for head in layer} == {None}
    assert summarize_heads(maps[..., :1, :1], [1])[1][3].previous == 0


def test_a_token_right_after_itself_does_not_count_as_induction(tiny_model):
    maps = attention_maps(tiny_model, torch.tensor([[1, 1]]))[:, 0]
    assert summarize_heads(maps, [1, 1])[0][0].induction is None
