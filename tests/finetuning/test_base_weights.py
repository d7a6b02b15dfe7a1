"""The base under its corrections is known by its numbers, and by nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scratchlm.checkpoints.store import load_model
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.finetuning.base_weights import BASE_FILE, base_fingerprint, base_weights, check_base, save_base
from scratchlm.finetuning.dora import replace_linear_with_dora
from scratchlm.finetuning.lora import lora_parameters, replace_linear_with_lora


@pytest.mark.parametrize("replace", [replace_linear_with_lora, replace_linear_with_dora])
def test_corrections_do_not_change_the_fingerprint(tiny_model, replace):
    before, names = base_fingerprint(tiny_model), set(base_weights(tiny_model))
    replace(tiny_model, 2, 2)
    for parameter in lora_parameters(tiny_model):
        nn.init.normal_(parameter)
    assert base_fingerprint(tiny_model) == before
    assert set(base_weights(tiny_model)) == names


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


def test_a_merged_base_cannot_be_read(tiny_model):
    replace_linear_with_lora(tiny_model, 2, 2, targets=("W_query",))
    tiny_model.trf_blocks[1].att.W_query.merge()
    with pytest.raises(ConfigError, match=r"found trf_blocks\.1\.att\.W_query merged"):
        base_fingerprint(tiny_model)


def test_another_base_is_refused_and_one_that_nobody_noted_is_believed(tiny_model, tmp_path):
    check_base(tmp_path, tiny_model)
    save_base(tmp_path, tiny_model)
    check_base(tmp_path, tiny_model)
    with torch.no_grad():
        tiny_model.tok_emb.weight[0, 0] += 1
    with pytest.raises(CheckpointError, match="load the base that the adapter was trained on"):
        check_base(tmp_path, tiny_model)
    (tmp_path / BASE_FILE).write_text('{"weights": 1}')
    with pytest.raises(CheckpointError, match="must hold weights_sha256, found none"):
        check_base(tmp_path, tiny_model)
