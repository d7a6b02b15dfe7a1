"""DoRA: LoRA for a matrix's direction, and one number per output for its length.

Full fine-tuning changes how long a weight row is and where it points independently of each other; LoRA ties the
two. DoRA takes them apart: the corrected row is scaled to length 1 and then to a length that is learnt by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.lora import LinearWithLoRA, Scaling, places_to_correct, plain_linear
from scratchlm.finetuning.targets import EVERY_LINEAR


class LinearWithDoRA(LinearWithLoRA):
    """A linear layer whose weight rows point where W + B A points and are as long as `magnitude` says.

    At first that is W itself, also where a row is zero. No gradient flows through the rows' present length, as the
    paper proposes to save memory. Everything else is as in LinearWithLoRA: merging, adapters, dropout.

    Shapes: x (..., in) -> (..., out); magnitude (out,).
    Raises: ConfigError for a layer other than `nn.Linear`, whose rows have no length to be read.
    Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5 and section 4.3.
    """

    def __init__(
        self,
        linear: nn.Module,
        rank: int,
        alpha: float,
        *,
        scaling: Scaling = "alpha/rank",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(linear, rank, alpha, scaling=scaling, dropout=dropout)
        self.magnitude = nn.Parameter(row_lengths(linear))
        self._plain: tuple[Tensor, ...] = ()  # the layer's own weight, while the correction is merged

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, corrected."""
        output: Tensor = self.linear(x)
        if self.is_merged:
            return output
        bias = plain_linear(self).bias
        directed = output + self.lora(x) if bias is None else output - bias + self.lora(x)
        stretched: Tensor = self._stretches() * directed
        return stretched if bias is None else stretched + bias

    @torch.no_grad()
    def merge(self) -> None:
        """Put the corrected rows into the layer's weight, which becomes a new one."""
        if not self.is_merged:
            weight = plain_linear(self).weight
            self._set_weight(self._stretches()[:, None] * (weight + self.lora.product()))
            self._plain, self.is_merged = (weight.detach(),), True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the correction out of the weight again: it is what it was before."""
        if self.is_merged:
            self._set_weight(self._plain[0].to(plain_linear(self).weight))
            self._plain, self.is_merged = (), False

    def _stretches(self) -> Tensor:
        """What each row of W + B A is multiplied with, (out,); 1 for a row of zeros, which points nowhere."""
        rows = plain_linear(self).weight.detach() + self.lora.product().detach()
        lengths = rows.norm(dim=1)
        has_length = lengths >= torch.finfo(lengths.dtype).tiny  # peft divides by zero here
        return torch.where(has_length, self.magnitude / lengths.where(has_length, 1.0), 1.0)

    def _set_weight(self, weight: Tensor) -> None:
        plain_linear(self).weight = nn.Parameter(
            weight, requires_grad=plain_linear(self).weight.requires_grad
        )


def replace_linear_with_dora(
    model: nn.Module,
    rank: int,
    alpha: float,
    *,
    scaling: Scaling = "alpha/rank",
    dropout: float = 0.0,
    targets: Sequence[str] = EVERY_LINEAR,
) -> list[str]:
    """As `replace_linear_with_lora`, but the layers learn their rows' lengths by themselves.

    Raises: ConfigError as there, and for layers that are not `nn.Linear`.
    """
    places = places_to_correct(model, targets)
    layers = [LinearWithDoRA(p.linear, rank, alpha, scaling=scaling, dropout=dropout) for p in places]
    for place, layer in zip(places, layers):
        setattr(place.parent, place.attribute, layer)
    return [place.name for place in places]


@torch.no_grad()
def row_lengths(linear: nn.Module) -> Tensor:
    """How long each row of a linear layer's weight is.

    Shapes: -> (out,).
    Raises: ConfigError for a layer other than `nn.Linear`.
    """
    if not isinstance(linear, nn.Linear):
        raise ConfigError(
            f"DoRA needs nn.Linear layers, whose rows have a length, found {type(linear).__name__}; use LoRA."
        )
    lengths: Tensor = linear.weight.norm(dim=1)
    return lengths
