"""The settings of quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scratchlm.core.errors import ConfigError
from scratchlm.quantization.grids import Grid
from scratchlm.quantization.int4 import Int4Grid
from scratchlm.quantization.int8 import Int8Grid
from scratchlm.quantization.matrix import GROUP_SIZES
from scratchlm.quantization.nf4 import NF4Grid

Rounding = Literal["rtn", "gptq", "nf4"]
DEFAULT_GROUP_SIZE = 64  # of 4 bits; bitsandbytes has the same


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """How a model is quantized.

    Raises: ConfigError naming a setting that is invalid or contradicts another.
    """

    bits: Literal[8, 4] = 8  # bits per weight
    group_size: int | None = None  # weights per scale: 32, 64 or 128; None = a row for 8 bits, 64 for 4 bits
    kind: Rounding = "rtn"  # round to nearest; gptq: calibrated; nf4: spaced for normally distributed weights
    symmetric: bool = False  # 4 bits without an offset per group: smaller, with a larger error
    head_bits: Literal[8, 4] = 8  # bits of the output head, and of a token embedding that it shares
    skip_head: bool = False  # leave the token embedding and the output head in floating point

    def __post_init__(self) -> None:
        if self.bits not in (8, 4):
            raise ConfigError(f"bits must be 8 or 4, got {self.bits}; choose one.")
        if self.group_size is not None and self.group_size not in GROUP_SIZES:
            raise ConfigError(
                f"group_size must be {', '.join(map(str, sorted(GROUP_SIZES)))}, got {self.group_size}; choose one."
            )
        if self.head_bits not in (8, 4) or (self.bits == 8 and self.head_bits == 4):
            raise ConfigError(
                f"head_bits must be 8 or 4, and not fewer than bits, got {self.head_bits}; choose 8."
            )
        if self.skip_head and self.head_bits == 4:
            raise ConfigError(
                "skip_head leaves the head in floating point, got head_bits=4 too; leave one of them out."
            )
        if self.bits == 8 and self.kind == "nf4":
            raise ConfigError("nf4 has 4 bits, got --bits 8; choose --bits 4, or --kind rtn or gptq.")
        if self.symmetric and (self.bits == 8 or self.kind == "nf4"):
            raise ConfigError("symmetric has no effect with 8 bits or nf4, which always are; leave it out.")

    def head(self) -> QuantizationConfig | None:
        """The settings for the output head; None if it stays in floating point, as the token embedding does too."""
        if self.skip_head:
            return None
        return self if self.bits == self.head_bits else QuantizationConfig(bits=8)

    def grid(self) -> Grid:
        """The numbers that weights are rounded to."""
        if self.bits == 8:
            return Int8Grid()
        return NF4Grid() if self.kind == "nf4" else Int4Grid(asymmetric=not self.symmetric)

    def group_size_of(self, n_in: int) -> int | None:
        """The group size for rows of n_in weights: the wanted one if it divides them, else the largest that does.

        None where no group size fits, so that the matrix has to stay in floating point.
        Example:
            >>> QuantizationConfig(bits=4, group_size=128).group_size_of(576)
            64
        """
        if self.bits == 8 and self.group_size is None:
            return n_in
        sizes = (self.group_size or DEFAULT_GROUP_SIZE, *GROUP_SIZES)
        return next((size for size in sizes if n_in % size == 0), None)
