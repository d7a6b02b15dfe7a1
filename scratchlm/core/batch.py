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
    it holds whole numbers: 0 at padding, else which text of the row the token belongs to.
    """

    inputs: Tensor
    targets: Tensor
    attention_mask: Tensor | None = None

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
        mask = self.attention_mask
        return Batch(
            inputs=self.inputs.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            attention_mask=None if mask is None else mask.to(device, non_blocking=True),
        )
