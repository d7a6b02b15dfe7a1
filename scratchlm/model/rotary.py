"""Rotary positions: a token's place told by turning its queries and keys, not by adding a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scratchlm.model.config import GPTConfig, RopeScaling


def rotation(config: GPTConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angle by which each position turns each pair of coordinates.

    Pair i turns by position * rope_base**(-2i / D): the first pairs tell neighbours apart, the last ones the
    beginning of a text from its end. Nothing here is learnt, so a model file holds nothing of it.

    Shapes: positions (T,) -> two of (T, D); (B, T) -> two of (B, 1, T, D), so that all heads turn alike.
    Source: Su et al. 2021, section 3.2.2, in Hugging Face's layout: coordinate i pairs with i + D/2.
    """
    angles = positions[..., None].float() * _frequencies(config, positions.device)  # (..., T, D/2)
    angles = torch.cat([angles, angles], dim=-1)  # (..., T, D)
    if positions.dim() == 2:
        angles = angles[:, None]  # (B, 1, T, D)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
    """Turn every pair of coordinates (i, i + D/2) by its angle; lengths stay.

    The product of a turned query and a turned key depends on how far apart they stand, not on where.

    Shapes: x (B, H, T, D) -> the same.
    """
    cos, sin = (part.to(x.dtype) for part in cos_sin)
    first, second = x.chunk(2, dim=-1)  # (B, H, T, D/2)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _frequencies(config: GPTConfig, device: torch.device) -> Tensor:
    """Angle per token of each pair, in radians: (D/2,)."""
    exponents = torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim
    frequencies: Tensor = 1.0 / config.rope_base**exponents
    return frequencies if config.rope_scaling is None else _slowed(frequencies, config.rope_scaling)


def _slowed(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3: fast waves as they were, slow ones slower by `factor`, a smooth way between the two."""
    turns = scaling.original_context_length * frequencies / (2 * math.pi)  # in the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)  # 0: slowed in full, 1: as it was
    return frequencies * ((1 - kept) / scaling.factor + kept)
