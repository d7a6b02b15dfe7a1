"""Weight-decomposed low-rank adaptation (DoRA): LoRA for the direction of each weight row, and a trained norm.

Full fine-tuning changes the norm and the direction of a weight row independently; LoRA changes both together.
DoRA separates them: the updated row is normalized and then multiplied by a norm that is a separate parameter.
"""

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.lora import LinearWithLoRA, Scaling, plain_linear


class LinearWithDoRA(LinearWithLoRA):
    """A linear layer whose weight rows have the direction of W + B A and the norms in `magnitude`.

    It starts as W, also where a row is zero. No gradient flows through the current norm of the rows, as the
    paper proposes to save memory. Merging, adapters and dropout work as in LinearWithLoRA.

    Shapes: x (..., in) -> (..., out); magnitude (out,).
    Raises: ConfigError for a layer other than `nn.Linear`.
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

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output with the update."""
        output: Tensor = self.linear(x)
        bias: Tensor | None = plain_linear(self).bias
        update: Tensor = self.lora(x)
        if bias is None:
            return self._row_scales() * (output + update)
        return self._row_scales() * (output - bias + update) + bias

    def merged_weight(self) -> Tensor:
        """The weight of a plain linear layer that computes the same.

        Shapes: -> (out, in).
        """
        return self._row_scales()[:, None] * (plain_linear(self).weight + self.lora.product())

    def _row_scales(self) -> Tensor:
        """The factor of each row of W + B A, (out,); 1 for a row of zeros, which has no direction."""
        rows = plain_linear(self).weight.detach() + self.lora.product().detach()
        lengths = rows.norm(dim=1)
        has_length = lengths >= torch.finfo(lengths.dtype).tiny  # peft divides by zero here
        return torch.where(has_length, self.magnitude / lengths.where(has_length, 1.0), 1.0)


@torch.no_grad()
def row_lengths(linear: nn.Module) -> Tensor:
    """The norm of each row of a linear layer's weight.

    Shapes: -> (out,).
    Raises: ConfigError for a layer other than `nn.Linear`.
    """
    if not isinstance(linear, nn.Linear):
        raise ConfigError(f"DoRA needs nn.Linear layers, got {type(linear).__name__}; use LoRA instead.")
    lengths: Tensor = linear.weight.norm(dim=1)
    return lengths
