"""NF4, the "normal float" of 4 bits: sixteen numbers spaced as normally distributed weights are."""

import torch
from torch import Tensor

from scratchlm.quantization.grids import Fit
from scratchlm.quantization.int8 import inverse

# Dettmers et al. 2023, appendix E; zero is one of them, the negative side has 7 and the positive side 8 numbers.
NF4_TABLE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class NF4Grid:
    """The largest weight of a group becomes 1 or -1; the sixteen numbers are denser near zero, as the weights are.

    Each number is meant to be used equally often if the weights are normally distributed.

    Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3; bitsandbytes.
    """

    bits = 4

    def __init__(self) -> None:
        self._points = torch.tensor(NF4_TABLE)
        self._middles = (self._points[1:] + self._points[:-1]) / 2  # (15,)
        self.table: Tensor | None = self._points

    def fit(self, groups: Tensor, importance: Tensor | None = None) -> Fit:
        """The scale that makes the largest weight 1, and 0 for a group of zeros; the importance is ignored."""
        return Fit(groups.abs().amax(dim=-1, keepdim=True))

    def encode(self, weights: Tensor, fit: Fit) -> Tensor:
        """The index of the nearest number in the table, 0 to 15."""
        return torch.bucketize(weights * inverse(fit.scale), self._middles.to(weights.device))

    def decode(self, codes: Tensor, fit: Fit) -> Tensor:
        """The numbers of these codes."""
        return self._points.to(codes.device)[codes.int()] * fit.scale
