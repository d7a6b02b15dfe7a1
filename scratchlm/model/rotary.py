"""Rotary position embeddings (RoPE): positions encoded by rotating queries and keys."""

import math

import torch
from torch import Tensor

from scratchlm.model.config import GPTConfig, RopeScaling


def rotation(config: GPTConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cosine and sine of the angle by which each position rotates each pair of coordinates.

    Pair i is rotated by position * rope_base**(-2i / D): the first pairs distinguish neighbouring tokens, the last
    ones distant parts of a text. Nothing here is trained, so model files do not contain it.

    Shapes: positions (T,) -> two of (T, D); (B, T) -> two of (B, 1, T, D), the same for all heads.
    Source: Su et al. 2021, section 3.2.2, in Hugging Face's layout: coordinate i pairs with i + D/2.
    """
    angles = positions[..., None].float() * _frequencies(config, positions.device)  # (..., T, D/2)
    angles = torch.cat([angles, angles], dim=-1)  # (..., T, D)
    if positions.dim() == 2:
        angles = angles[:, None]  # (B, 1, T, D)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate every pair of coordinates (i, i + D/2) by its angle; lengths do not change.

    The product of a rotated query and a rotated key depends only on the distance between their positions.

    Shapes: x (B, H, T, D) -> the same.
    """
    cos, sin = (part.to(x.dtype) for part in cos_sin)
    first, second = x.chunk(2, dim=-1)  # (B, H, T, D/2)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _frequencies(config: GPTConfig, device: torch.device) -> Tensor:
    """Angle per token of each pair, in radians: (D/2,)."""
    exponents = torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim
    frequencies: Tensor = 1.0 / config.rope_base**exponents
    return frequencies if config.rope_scaling is None else _scale(frequencies, config.rope_scaling)


def _scale(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Keep high frequencies, divide low ones by `factor`, and interpolate between the two, as Llama 3 does."""
    n_turns = scaling.original_context_length * frequencies / (2 * math.pi)  # in the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((n_turns - low) / (high - low)).clamp(0, 1)  # 0: divided by factor, 1: unchanged
    return frequencies * ((1 - kept) / scaling.factor + kept)
