"""The batch class that every task uses: the examples of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="Batch")
IGNORE_INDEX = -100  # torch's default: targets with this value are ignored by the loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The examples of one forward pass.

    Shapes: inputs (B, T) ids; targets (B, T) ids for language modelling or (B,) class numbers, IGNORE_INDEX
    where no loss is wanted; attention_mask (B, T), True at real tokens, or None without padding. In packed rows
    it holds integers: 0 at padding, else the number of the token's text in its row. states (B, T, E): the
    cached output of the model's first n_blocks, which then need not run again. is_filler: the row stands for no
    example; a rank without a share of a batch computes it, so that all ranks run the same passes.
    """

    inputs: Tensor
    targets: Tensor
    attention_mask: Tensor | None = None
    states: Tensor | None = None
    n_blocks: int = 0
    is_filler: bool = False

    @property
    def n_targets(self) -> int:
        """The number of targets with a loss."""
        return int((self.targets != IGNORE_INDEX).sum())

    @property
    def n_tokens(self) -> int:
        """The number of real tokens; padding does not count."""
        if self.is_filler:
            return 0
        return self.inputs.numel() if self.attention_mask is None else int((self.attention_mask != 0).sum())

    def as_filler(self) -> Batch:
        """The same rows without a target."""
        return replace(self, targets=torch.full_like(self.targets, IGNORE_INDEX), is_filler=True)

    def to(self: B, device: torch.device | str) -> B:
        """The same batch on another device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = value.to(device, non_blocking=True)
        return replace(self, **values)
