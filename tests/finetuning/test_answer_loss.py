"""Packing, bucketing and a head that works at targets only: all the same loss and gradient as the plain way."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from scratchlm.core.batch import Batch
from scratchlm.core.seed import seed_everything
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.prompt_templates import template
from scratchlm.finetuning.answer_loss import InstructionTask
from scratchlm.model.gpt import GPTModel
from scratchlm.training.pretraining import PretrainingTask

ENTRIES = [
    Instruction(instruction="say " + "ba ce " * (i * 5 % 4), input="", output="di " * (i * 3 % 4 + 1))
    for i in range(12)
]
LLAMA = {"norm": "rms", "positions": "rotary", "feed_forward": "swiglu", "linear_bias": False}
KINDS = {
    "gpt2": {},
    "written out": {"attention": "manual", "kernels": "manual"},
    "llama": LLAMA | {"n_kv_heads": 1},
    "all see all": {"is_causal": False},
}


@pytest.fixture(params=KINDS)
def model(request, tiny_model):
    seed_everything(5)
    return GPTModel(dataclasses.replace(tiny_model.config, drop_rate=0.0, **KINDS[request.param]))


@pytest.fixture
def examples(base_tokenizer):
    def make(**settings):
        return InstructionExamples(
            ENTRIES, base_tokenizer, template=template("plain"), max_length=48, **settings
        )

    return make


def mean_and_gradients(model, task, batches):
    """Of all batches together, as the Trainer accumulates them."""
    model.zero_grad()
    loss_sum = torch.stack([task.loss_sum(model, batch) for batch in batches]).sum()
    mean = loss_sum / sum(batch.n_targets for batch in batches)
    mean.backward()
    return mean.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_alike(one, other):
    assert abs(one[0] - other[0]) < 1e-5
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-5, msg=name)


def plain_way(model, examples):
    """Every entry alone, scores at every position."""
    return mean_and_gradients(model, PretrainingTask(), [examples().batch([i]) for i in range(12)])


def test_packed_rows_give_loss_and_gradient_of_every_entry_alone(model, examples):
    packed = examples(packing=True).batch(range(12))
    assert len(packed.inputs) < 12
    assert_alike(mean_and_gradients(model, InstructionTask(), [packed]), plain_way(model, examples))


def test_padded_buckets_give_loss_and_gradient_of_every_entry_alone(model, examples):
    loader = BatchLoader(examples(), batch_size=5, bucket_by_length=True)
    batches = list(loader)
    assert any((~batch.attention_mask).any() for batch in batches)
    assert_alike(mean_and_gradients(model, InstructionTask(), batches), plain_way(model, examples))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_scores_at_targets_only_are_enough(model, examples, smoothing):
    batch = examples(mask_instruction=True).batch(range(12))
    tasks = (kind(label_smoothing=smoothing) for kind in (InstructionTask, PretrainingTask))
    assert_alike(*(mean_and_gradients(model, task, [batch]) for task in tasks))


def test_the_head_sees_targets_only(tiny_model, examples):
    seen = []
    tiny_model.out_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    batch = examples().batch(range(12))
    InstructionTask().loss_sum(tiny_model, batch)
    assert seen == [(batch.n_targets, tiny_model.config.vocab_size)]


def test_a_batch_without_targets_is_zero_with_a_gradient(tiny_model):
    ids = torch.ones(1, 4, dtype=torch.long)
    loss = InstructionTask().loss_sum(tiny_model, Batch(inputs=ids, targets=torch.full_like(ids, -100)))
    loss.backward()
    assert loss.item() == 0


def test_smoothing_is_for_training_only(tiny_model, examples):
    batch, smoothed, plain = examples().batch([0, 1]), InstructionTask(label_smoothing=0.3), InstructionTask()
    tiny_model.eval()
    assert smoothed.loss_sum(tiny_model, batch) == plain.loss_sum(tiny_model, batch)
    tiny_model.train()
    tiny_model.drop_emb.p = 0.0
    loader = [batch]
    assert smoothed.metrics(tiny_model, loader) == plain.metrics(tiny_model, loader)
