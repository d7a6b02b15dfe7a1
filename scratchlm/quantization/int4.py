"""4-bit integers: sixteen evenly spaced numbers for each group of weights, symmetric or with an offset."""

from typing import NamedTuple

import torch
from torch import Tensor

from scratchlm.quantization.grids import Fit
from scratchlm.quantization.int8 import inverse
from scratchlm.quantization.matrix import CENTRE

N_LEVELS = 16
N_TRIED = 16  # grids per group; more than 16 lower the error by less than 0.1 %
NARROWEST = 0.6  # the narrowest grid tried, relative to the one that covers every weight


class _Tried(NamedTuple):
    """A grid and its squared error."""

    scale: Tensor
    offset: Tensor
    error: Tensor


class Int4Grid:
    """Sixteen numbers per group. A slightly narrower grid than the extremes need often has the smaller error.

    Several widths are tried. For each, the weights are rounded, and then the scale (and offset) are computed that
    fit the weights best for these codes. The grid with the smallest sum of squared errors, each times the importance
    of its input, is chosen.

    asymmetric: the grid has an offset of its own; it costs 4 more bytes per group and suits groups whose weights
        are not centred on zero.
    Source: llama.cpp's q4_0 (symmetric: the extreme weight is -8) and q4_1 (asymmetric), with the search of its
        k-quants.
    """

    bits = 4
    table: Tensor | None = None

    def __init__(self, *, asymmetric: bool = False) -> None:
        self.asymmetric = asymmetric

    def fit(self, groups: Tensor, importance: Tensor | None = None) -> Fit:
        """The best of N_TRIED grids for each group."""
        shares = groups.new_ones(groups.shape[-1]) if importance is None else importance
        shares = shares / shares.sum().clamp(min=torch.finfo(torch.float32).tiny)
        best: _Tried | None = None
        for width in torch.linspace(1.0, NARROWEST, N_TRIED).tolist():
            tried = self._refined(groups, self._covering(groups, width), shares)
            if best is None:
                best = tried
            else:
                is_better = tried.error < best.error
                best = _Tried(*(new.where(is_better, old) for new, old in zip(tried, best, strict=True)))
        assert best is not None
        return Fit(best.scale, best.offset if self.asymmetric else None)

    def encode(self, weights: Tensor, fit: Fit) -> Tensor:
        """The nearest codes, 0 to 15."""
        shifted = weights if fit.offset is None else weights - fit.offset
        steps = shifted * inverse(fit.scale)
        return (steps.round() + (CENTRE if fit.offset is None else 0)).clamp(0, N_LEVELS - 1)

    def decode(self, codes: Tensor, fit: Fit) -> Tensor:
        """The numbers of these codes."""
        return (codes - CENTRE) * fit.scale if fit.offset is None else codes * fit.scale + fit.offset

    def _covering(self, groups: Tensor, width: float) -> Fit:
        """A grid as wide as this share of the range of the weights."""
        if not self.asymmetric:
            extreme = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))  # with its sign
            return Fit(extreme * (width / -CENTRE))
        low, high = groups.aminmax(dim=-1, keepdim=True)
        cut = (high - low) * (1 - width) / 2
        return Fit((high - low) * (width / (N_LEVELS - 1)), low + cut)

    def _refined(self, groups: Tensor, fit: Fit, shares: Tensor) -> _Tried:
        """Round with this grid, and then fit scale and offset to the weights by least squares."""
        levels = self.encode(groups, fit)
        if self.asymmetric:
            level_mean, mean = _sum(levels * shares), _sum(groups * shares)
        else:
            levels, level_mean, mean = levels - CENTRE, fit.scale.new_zeros(()), fit.scale.new_zeros(())
        centred = (levels - level_mean) * shares
        scale = _sum(centred * (groups - mean)) * inverse(_sum(centred * (levels - level_mean)))
        offset = (mean - scale * level_mean).expand_as(scale)
        return _Tried(scale, offset, _sum((levels * scale + offset - groups).square() * shares))


def _sum(numbers: Tensor) -> Tensor:
    """The sum of each group: (..., G) -> (..., 1)."""
    return numbers.sum(dim=-1, keepdim=True)
