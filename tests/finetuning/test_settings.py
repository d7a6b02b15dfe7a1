"""The settings of LoRA are checked once for all kinds of fine-tuning, and freeze everything else."""

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.dora import LinearWithDoRA
from scratchlm.finetuning.lora import lora_parameters
from scratchlm.finetuning.settings import FineTuningSettings


def test_only_low_rank_updates_are_trained(tiny_model):
    settings = FineTuningSettings(lora_rank=2, lora_targets=("W_query", "W_value"))
    names = settings.add_lora(tiny_model)
    assert len(names) == 2 * tiny_model.config.n_layers
    learning = {id(p) for p in tiny_model.parameters() if p.requires_grad}
    assert learning == {id(p) for p in lora_parameters(tiny_model)}


def test_dora_also_trains_the_length_of_each_row(tiny_model):
    names = FineTuningSettings(lora_rank=2, lora_kind="dora", lora_targets=("W_query",)).add_lora(tiny_model)
    assert all(isinstance(tiny_model.get_submodule(name), LinearWithDoRA) for name in names)
    n_blocks, width = tiny_model.config.n_layers, tiny_model.config.emb_dim
    assert tiny_model.n_parameters(trainable_only=True) == n_blocks * (2 * 2 * width + width)


def test_without_a_rank_the_model_stays_as_it_is(tiny_model):
    assert FineTuningSettings().add_lora(tiny_model) == []
    assert all(parameter.requires_grad for parameter in tiny_model.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_rank": 0},
        {"lora_kind": "dora"},
        {"lora_alpha": 4.0},
        {"lora_dropout": 0.1},
        {"lora_targets": ("W_key",)},
    ],
    ids=str,
)
def test_invalid_settings_and_settings_without_effect_are_refused(settings):
    with pytest.raises(ConfigError, match="lora_rank"):
        FineTuningSettings(**settings)
