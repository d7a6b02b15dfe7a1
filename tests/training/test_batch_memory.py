"""A batch that would not fit is computed in less memory, with the same result; others are left as they are."""

import pytest
import torch

from scratchlm.core.batch import Batch
from scratchlm.finetuning.lora import replace_linear_with_lora
from scratchlm.quantization.apply import quantize_model
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.training import batch_memory
from scratchlm.training.batch_memory import BatchMemory
from scratchlm.training.config import TrainingConfig
from scratchlm.training.planner import bytes_kept_per_token
from tests.tiny import tiny_gpt


def batch_of(n_rows: int, length: int) -> Batch:
    ids = torch.zeros(n_rows, length, dtype=torch.long)
    return Batch(inputs=ids, targets=ids)


@pytest.fixture
def machine(monkeypatch):
    """A function that sets the free bytes; small batches are looked up too."""
    monkeypatch.setattr(batch_memory, "SMALL_BYTES", 0)
    return lambda n_bytes: monkeypatch.setattr(batch_memory, "free_bytes", lambda device: n_bytes)


def test_only_the_batch_that_is_too_large_is_computed_again_and_said_once(machine):
    model, notes = tiny_gpt(50, context_length=16, n_layers=2), []
    memory = BatchMemory(model, TrainingConfig(max_steps=1), notify=notes.append)
    machine(8 * 16 * bytes_kept_per_token(model.config) / batch_memory.SHARE)
    ways = []
    for n_rows in (4, 9, 8, 12):
        memory.prepare(batch_of(n_rows, 16), is_half=False)
        ways.append([block.activation_checkpointing for block in model.trf_blocks])
    assert ways == [[False, False], [True, True], [False, False], [True, True]]
    (note,) = notes
    assert note.startswith("a batch of 9 x 16 tokens needs about ")


def frozen_but_the_last_block():
    model = tiny_gpt(50, context_length=16, n_layers=2).requires_grad_(False)
    model.trf_blocks[1].requires_grad_(True)
    return model


def adapters_on_8_bits():
    model = tiny_gpt(50, context_length=16, n_layers=2)
    quantize_model(model, QuantizationConfig(bits=8))
    replace_linear_with_lora(model.requires_grad_(False), rank=2, alpha=4)
    return model


@pytest.mark.parametrize(("make", "largest"), [(frozen_but_the_last_block, 16), (adapters_on_8_bits, 8)])
def test_blocks_before_the_first_trained_one_keep_nothing(machine, make, largest):
    model = make()
    memory = BatchMemory(model, TrainingConfig(max_steps=1), notify=print)
    machine(8 * 16 * bytes_kept_per_token(model.config) / batch_memory.SHARE)
    for n_rows in (largest, largest + 1):
        memory.prepare(batch_of(n_rows, 16), is_half=False)
        assert model.trf_blocks[1].activation_checkpointing == (n_rows > largest)


@pytest.mark.parametrize("settings", [{"activation_checkpointing": True}, {"sharding": "fsdp"}])
def test_what_was_chosen_for_all_batches_stays(machine, settings):
    model = tiny_gpt(50, context_length=16)
    memory = BatchMemory(model, TrainingConfig(max_steps=1, **settings), notify=print)
    before = model.trf_blocks[0].activation_checkpointing
    for n_bytes in (0, 1 << 60):
        machine(n_bytes)
        memory.prepare(batch_of(4, 16), is_half=False)
        assert (
            model.trf_blocks[0].activation_checkpointing
            == before
            == settings.get("activation_checkpointing", False)
        )


@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_a_run_short_of_memory_ends_with_the_same_weights(tiny_run, machine, drop_rate):
    ends = []
    for n_bytes in (0, 1 << 60):
        machine(n_bytes)
        trainer, train, val = tiny_run(max_steps=4, drop_rate=drop_rate)
        trainer.fit(train, val)
        assert trainer.model.trf_blocks[0].activation_checkpointing == (n_bytes == 0)
        ends.append(trainer.model.state_dict())
    for name, weight in ends[0].items():
        assert torch.equal(weight, ends[1][name]), name


def test_free_memory_is_that_of_the_machine():
    assert 0 < batch_memory.free_bytes(torch.device("cpu")) < 1 << 50
