"""Settings of LoRA are checked once for every way of fine-tuning, and freeze what is not theirs."""

from __future__ import annotations

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.dora import LinearWithDoRA
from scratchlm.finetuning.lora import lora_parameters
from scratchlm.finetuning.lora_settings import LoRASettings


def test_only_corrections_learn(tiny_model):
    settings = LoRASettings(lora_rank=2, lora_targets=("W_query", "W_value"))
    settings.check_lora()
    names = settings.add_corrections(tiny_model)
    assert len(names) == 2 * tiny_model.config.n_layers
    learning = {id(p) for p in tiny_model.parameters() if p.requires_grad}
    assert learning == {id(p) for p in lora_parameters(tiny_model)}


def test_dora_learns_a_length_for_each_row_as_well(tiny_model):
    names = LoRASettings(lora_rank=2, lora_kind="dora", lora_targets=("W_query",)).add_corrections(tiny_model)
    assert all(isinstance(tiny_model.get_submodule(name), LinearWithDoRA) for name in names)
    n_blocks, width = tiny_model.config.n_layers, tiny_model.config.emb_dim
    assert tiny_model.n_parameters(trainable_only=True) == n_blocks * (2 * 2 * width + width)


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
def test_what_cannot_be_or_would_do_nothing_is_refused(settings):
    with pytest.raises(ConfigError, match="lora_rank"):
        LoRASettings(**settings).check_lora()
