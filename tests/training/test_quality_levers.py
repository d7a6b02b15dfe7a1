"""The changes that `benchmarks.quality` compares: each changes what a step computes, and the model goes on training."""

import pytest
import torch

from benchmarks.quality_levers import LEVERS, change_model, change_optimizers, levers_of
from scratchlm.core.errors import ConfigError
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.windows import TokenWindows
from scratchlm.training.config import TrainingConfig
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.trainer import Trainer
from tests.tiny import tiny_gpt


def trained(*levers):
    """The logits of a small model after three steps with Muon."""
    model = tiny_gpt(50, context_length=8)
    change_model(model, set(levers))
    config = TrainingConfig(
        max_steps=3, batch_size=2, optimizer="muon", weight_decay=0.5, eval_every_steps=0, use="last"
    )
    trainer = Trainer(model, PretrainingTask(), config)
    change_optimizers(trainer.optimizers, set(levers))
    trainer.fit(BatchLoader(TokenWindows(list(range(50)) * 2, context_length=8), batch_size=2, seed=0))
    return model(torch.arange(8)[None])


@pytest.mark.parametrize("lever", LEVERS)
def test_a_lever_changes_the_training(lever):
    changed = trained(lever)
    assert torch.isfinite(changed).all()
    assert not torch.equal(changed, trained())


def test_an_unknown_lever_is_refused():
    with pytest.raises(ConfigError, match="soft-cap"):
        levers_of("normuon+softcap")
