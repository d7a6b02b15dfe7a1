"""What flows from the data to the model: one small class for every task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE_INDEX = -100  # torch's own default: a target of this value carries no loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Some examples for one forward pass.

    Shapes: inputs (B, T) ids; targets (B, T) ids for language modelling or (B,) class numbers, IGNORE_INDEX
    where no loss is wanted; attention_mask (B, T), True at real tokens, or None when nothing is padding. In packed rows
    it holds whole numbers: 0 at padding, else which text of the row the token belongs to. states (B, T, E), what the
    model's first n_blocks made of the inputs earlier, when they need not be run again.
    """

    inputs: Tensor
    targets: Tensor
    attention_mask: Tensor | None = None
    states: Tensor | None = None
    n_blocks: int = 0

    @property
    def n_targets(self) -> int:
        """How many targets carry loss."""
        return int((self.targets != IGNORE_INDEX).sum())

    @property
    def n_tokens(self) -> int:
        """How many real tokens go through the model; padding does not count."""
        return self.inputs.numel() if self.attention_mask is None else int((self.attention_mask != 0).sum())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved = {
            name: None if tensor is None else tensor.to(device, non_blocking=True)
            for name, tensor in (("attention_mask", self.attention_mask), ("states", self.states))
        }
        return Batch(
            inputs=self.inputs.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            n_blocks=self.n_blocks,
            **moved,
        )
