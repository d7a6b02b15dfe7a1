"""What flows from the data to the model."""

import dataclasses

import pytest
import torch

from scratchlm.core.batch import IGNORE_INDEX, Batch

INPUTS = torch.tensor([[1, 2, 3], [4, 5, 0]])


def test_ignored_targets_are_not_counted():
    targets = torch.tensor([[2, 3, IGNORE_INDEX], [IGNORE_INDEX, 0, IGNORE_INDEX]])
    assert Batch(inputs=INPUTS, targets=targets).n_targets == 3


def test_the_ignored_value_is_the_one_torch_ignores():
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1, IGNORE_INDEX]))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[:1], torch.tensor([1])))


def test_padding_is_no_token():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert Batch(inputs=INPUTS, targets=INPUTS).n_tokens == 6
    assert Batch(inputs=INPUTS, targets=INPUTS, attention_mask=mask).n_tokens == 5


def test_texts_of_a_packed_row_count_once_each_token():
    mask = torch.tensor([[1, 2, 2], [7, 7, 0]])
    assert Batch(inputs=INPUTS, targets=INPUTS, attention_mask=mask).n_tokens == 5


def test_moving_keeps_everything():
    mask = INPUTS != 0
    moved = Batch(inputs=INPUTS, targets=INPUTS + 1, attention_mask=mask).to("meta")
    assert {moved.inputs.device.type, moved.targets.device.type} == {"meta"}
    assert moved.attention_mask is not None
    assert moved.attention_mask.device.type == "meta"
    assert Batch(inputs=INPUTS, targets=INPUTS).to("cpu").attention_mask is None


def test_a_batch_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Batch(inputs=INPUTS, targets=INPUTS).inputs = INPUTS
