"""The fingerprint of an adapter's base depends on the base's weights only."""

import copy

import pytest
import torch
from torch import nn

from scratchlm.checkpoints.store import load_model
from scratchlm.core.errors import CheckpointError
from scratchlm.finetuning.dora import LinearWithDoRA
from scratchlm.finetuning.lora import LinearWithLoRA, lora_parameters, replace_linear_with_lora
from scratchlm.finetuning.peft import (
    BASE_FILE,
    base_fingerprint,
    check_base_fingerprint,
    write_base_fingerprint,
)


@pytest.mark.parametrize("layer_type", [LinearWithLoRA, LinearWithDoRA])
def test_low_rank_updates_do_not_change_the_fingerprint(tiny_model, layer_type):
    before = base_fingerprint(tiny_model)
    replace_linear_with_lora(tiny_model, 2, 2, layer_type=layer_type)
    for parameter in lora_parameters(tiny_model):
        nn.init.normal_(parameter)
    assert base_fingerprint(tiny_model) == before


def test_the_last_bit_of_any_weight_changes_it(tiny_model):
    before = base_fingerprint(tiny_model)
    for parameter in tiny_model.parameters():
        changed = parameter.detach().view(-1)
        kept = changed[0].clone()
        changed[0] = torch.nextafter(kept, torch.tensor(9.0))
        assert base_fingerprint(tiny_model) != before
        changed[0] = kept
    assert base_fingerprint(tiny_model) == before


def test_a_saved_and_an_untied_copy_have_the_same(tiny_model, base_folder):
    before = base_fingerprint(tiny_model)
    assert base_fingerprint(load_model(base_folder).model) == before
    untied = copy.deepcopy(tiny_model)
    untied.out_head.weight = nn.Parameter(untied.tok_emb.weight.clone())
    assert base_fingerprint(untied) == before


def test_another_base_is_refused_and_an_adapter_without_a_record_is_accepted(tiny_model, tmp_path):
    check_base_fingerprint(tmp_path, tiny_model)
    write_base_fingerprint(tmp_path, tiny_model)
    check_base_fingerprint(tmp_path, tiny_model)
    with torch.no_grad():
        tiny_model.tok_emb.weight[0, 0] += 1
    with pytest.raises(
        CheckpointError, match="load the base that the adapter was trained on, and quantize it first"
    ):
        check_base_fingerprint(tmp_path, tiny_model)
    (tmp_path / BASE_FILE).write_text('{"weights": 1}')
    with pytest.raises(CheckpointError, match="has no weights_sha256"):
        check_base_fingerprint(tmp_path, tiny_model)
