"""8-bit integers: 255 evenly spaced numbers, symmetric around zero."""

from torch import Tensor

from scratchlm.quantization.grids import Fit

LARGEST = 127  # -128 stays unused, so that the grid is symmetric


class Int8Grid:
    """The largest weight of a group becomes 127 or -127, the others the nearest multiple of the same scale.

    Within a row of a few hundred normally distributed weights the error is about 1 % of their standard deviation.

    Source: Dettmers et al. 2022, "LLM.int8()", section 2.1 (absmax quantization, here with a scale per output).
    """

    bits = 8
    table: Tensor | None = None

    def fit(self, groups: Tensor, importance: Tensor | None = None) -> Fit:
        """The scale that makes the largest weight 127, and 0 for a group of zeros; the importance is ignored."""
        return Fit(groups.abs().amax(dim=-1, keepdim=True) / LARGEST)

    def encode(self, weights: Tensor, fit: Fit) -> Tensor:
        """The nearest codes, -127 to 127."""
        return (weights * inverse(fit.scale)).round().clamp(-LARGEST, LARGEST)

    def decode(self, codes: Tensor, fit: Fit) -> Tensor:
        """Codes times scale."""
        return codes * fit.scale


def inverse(scale: Tensor) -> Tensor:
    """1 / scale, and 0 where the scale is 0."""
    return (1 / scale).where(scale != 0, 0.0)
