import pytest
import torch

from scratchlm.inspection.attribution import attribute_logits, part_names
from scratchlm.inspection.hooks import recorded
from tests.inspection.conftest import VARIANTS, varied

IDS = torch.tensor([[3, 1, 4, 1, 5]])
WITHIN = 1e-4  # of the logits; float32 sums of some 20 parts


def parts_of(model, numbers):
    """The parts of these logits at the last token, and the logits."""
    with torch.no_grad(), recorded(model, part_names(model)) as values:
        logits = model(IDS)[0, -1]
    directions = torch.zeros(len(numbers), 5, model.config.emb_dim)
    directions[:, -1] = model.out_head.weight[numbers].detach()
    return attribute_logits(model, values, directions, torch.zeros(len(numbers))), logits[numbers].tolist()


def test_the_parts_add_up_to_the_logits(any_model):
    parts, logits = parts_of(any_model, [0, 7, 299])
    assert [part.total() for part in parts] == pytest.approx(logits, abs=WITHIN)


def test_a_head_has_the_share_that_its_weights_give_it():
    """One head of one layer by hand: its values through its columns of the output matrix, then norm and head."""
    model = varied(VARIANTS["gpt2"])
    [parts], _ = parts_of(model, [7])
    with torch.no_grad():
        block = model.trf_blocks[1]
        x, context = model.embed(IDS)
        middle = model.run_blocks(x, context, last=1)
        last = model.run_blocks(middle, context, first=1)[0, -1]
        weights = block.att.attention_weights(block.norm1(middle), context)[0, 2, -1]  # (T,) of head 2
        values = block.att.W_value(block.norm1(middle))[0, :, 8:12]  # (T, D)
        added = block.att.out_proj.weight[:, 8:12] @ (weights @ values)  # (E,)
        centred = added - added.mean()
        sigma = (last.var(unbiased=False) + 1e-5).sqrt()
        share = model.out_head.weight[7] @ (model.final_norm.scale * centred / sigma)
    assert parts.heads[1][2] == pytest.approx(share.item(), abs=1e-5)


def test_without_a_head_the_logit_before_the_norm_changes_by_its_part():
    """Only the feed-forward network reads a head of the last block: without it, parts are exact effects."""
    model = varied(VARIANTS["llama"])
    [parts], _ = parts_of(model, [7])
    with torch.no_grad():
        block = model.trf_blocks[1]
        block.ff.down.weight.zero_()
        [before], [logit] = parts_of(model, [7])
        assert before.feed_forward[1] == 0
        sigma = _final_scale(model)
        block.att.out_proj.weight[:, 4:8] = 0  # head 1
        [after], [without] = parts_of(model, [7])
        change = logit * sigma - without * _final_scale(model)
    assert after.heads[1][1] == 0
    assert change == pytest.approx(before.heads[1][1] * sigma, abs=WITHIN)
    assert parts.heads[0] != before.heads[0], "the divisor of the final norm has changed"


def _final_scale(model) -> float:
    with recorded(model, ["ln_final.hook_scale"]) as values:
        model(IDS)
    return values["ln_final.hook_scale"][0, -1].item()
