"""Training settings that mean nothing are refused before anything starts."""

import math

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.classifier_training import ClassifySettings
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.finetuning.preference import PreferSettings
from scratchlm.training.config import TrainingConfig


@pytest.mark.parametrize(
    "name",
    [
        "max_steps",
        "epochs",
        "max_minutes",
        "batch_size",
        "accumulate",
        "learning_rate",
        "patience",
        "eval_batches",
    ],
)
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_what_must_be_positive_is(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be above zero, got {value}"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("name", ["max_steps", "warmup_steps", "epochs", "max_minutes"])
def test_a_number_beyond_all_counting_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must be at most 9007199254740992, got 1000"):
        TrainingConfig(**{name: 10**400})
    assert TrainingConfig(seed=2**62).seed == 2**62


@pytest.mark.parametrize(
    "name", ["warmup_steps", "weight_decay", "max_grad_norm", "eval_every_steps", "sample_every_steps"]
)
def test_what_may_be_zero_may_not_be_negative(name):
    TrainingConfig(**{name: 0})
    with pytest.raises(ConfigError, match=f"{name} must not be negative, got -1"):
        TrainingConfig(**{name: -1})


@pytest.mark.parametrize("name", ["final_learning_rate", "beta1", "beta2", "label_smoothing"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_shares_lie_between_0_and_1(name, value):
    with pytest.raises(ConfigError, match=f"{name} must lie between 0 and 1, got {value}"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_a_memory_that_never_changes_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must be below 1"):
        TrainingConfig(**{name: 1.0})


def test_smoothing_that_leaves_nothing_to_learn_is_refused():
    with pytest.raises(ConfigError, match="label_smoothing must be below 1, got 1"):
        TrainingConfig(label_smoothing=1.0)


def test_a_run_keeps_at_least_one_checkpoint():
    with pytest.raises(ConfigError, match="keep_checkpoints must be at least 1, got 0"):
        TrainingConfig(keep_checkpoints=0)


@pytest.mark.parametrize("end", [{"max_steps": 1}, {"epochs": 0.5}, {"max_minutes": 1.0}])
def test_any_of_three_settings_is_an_end(end):
    assert TrainingConfig(**end).has_end
    assert not TrainingConfig().has_end


@pytest.mark.parametrize("kind", [ClassifySettings, InstructSettings, PreferSettings])
def test_fine_tuning_refuses_text_samples_which_it_does_not_write(kind):
    TrainingConfig(sample_every_steps=5)
    with pytest.raises(ConfigError, match="sample_every_steps is for pre-training only, got 5"):
        kind(sample_every_steps=5)
