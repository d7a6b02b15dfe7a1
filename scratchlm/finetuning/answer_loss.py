"""The loss of instruction tuning: the output head works only where there is something to learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from scratchlm.core.batch import Batch
from scratchlm.evaluation.loss import mean_loss
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import head_cross_entropy


class InstructionTask:
    """Predict the next token where a target is, in batches as `InstructionExamples` makes them.

    The same loss as that of pre-training. But of a row's tokens few are targets (in the book's data a fifth), and the
    scores of all others would be computed over the whole vocabulary for nothing. And as padding stands behind
    the real tokens, a causal model cannot see it: such rows need no mask.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """The batch's losses added up over its targets, in nats; smoothed only while training."""
        gpt = cast(GPTModel, model)
        states = model(batch.inputs, attention_mask=_needed_mask(gpt, batch), apply_head=False)  # (B, T, E)
        smoothing = self.label_smoothing if model.training else 0.0
        return head_cross_entropy(states, gpt.out_head, batch.targets, label_smoothing=smoothing)

    def metrics(self, model: nn.Module, loader: Iterable[Batch]) -> dict[str, float]:
        """Mean loss over a loader, in nats per target."""
        return {"loss": mean_loss(model, loader, self)}


def _needed_mask(model: GPTModel, batch: Batch) -> Tensor | None:
    """Packed rows and models that see the future need theirs; rows of one text with padding behind it do not."""
    mask = batch.attention_mask
    is_packed = mask is not None and mask.dtype != torch.bool
    return mask if is_packed or not model.config.is_causal else None
