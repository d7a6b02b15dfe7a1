"""Exactly the selected part of a model is trained."""

import pytest
import torch

from scratchlm.core.batch import Batch
from scratchlm.finetuning.classification_task import ClassificationTask
from scratchlm.finetuning.freeze import freeze_all_but
from scratchlm.finetuning.heads import replace_head

HEAD = ("out_head.",)
LAST = (*HEAD, "final_norm.", "trf_blocks.2.")
LAST_TWO = (*LAST, "trf_blocks.1.")
EVERYTHING = ("",)


@pytest.mark.parametrize(
    ("part", "prefixes"),
    [("head", HEAD), ("last-block", LAST), ("last-two-blocks", LAST_TWO), ("all", EVERYTHING)],
)
def test_one_step_changes_the_named_part_and_nothing_else(tiny_model, part, prefixes):
    replace_head(tiny_model, 2)
    n_trained = freeze_all_but(tiny_model, part)
    before = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    batch = Batch(
        inputs=torch.randint(0, 300, (6, 9), generator=torch.Generator().manual_seed(0)),
        targets=torch.tensor([0, 1, 1, 0, 1, 1]),
    )
    learning = [p for p in tiny_model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1.0)
    ClassificationTask().loss_sum(tiny_model, batch).backward()
    optimizer.step()
    changed = {name for name, p in tiny_model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if name.startswith(prefixes)}
    assert n_trained == sum(before[name].numel() for name in changed)


def test_freezing_again_forgets_the_earlier_choice(tiny_model):
    replace_head(tiny_model, 2)
    freeze_all_but(tiny_model, "all")
    assert freeze_all_but(tiny_model, "head") == 2 * 16 + 2
