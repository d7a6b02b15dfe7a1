"""The inputs of every block besides the hidden states: positions and the attention mask."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scratchlm.model.attention_mask import query_key_mask, text_positions
from scratchlm.model.config import GPTConfig
from scratchlm.model.kv_cache import CacheRows
from scratchlm.model.rotary import rotation


@dataclass(frozen=True, slots=True)
class AttentionContext:
    """Positions of the tokens and the attention mask; computed once, used by every block.

    Shapes: positions (T,) or (B, T); mask (B, 1, T, S+T), True where a query may attend to a key, or None when
        causality is the only limit; cos_sin, for rotary positions, two of (T, D) or (B, 1, T, D).
    """

    positions: Tensor | None = None
    mask: Tensor | None = None
    cos_sin: tuple[Tensor, Tensor] | None = None
    _additive: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def additive_mask(self, dtype: torch.dtype) -> Tensor | None:
        """The mask as 0 and -inf, which are added to the scores.

        torch's fused kernel needs it so. It would convert a boolean mask in every block, and keep each for the backward
        pass.
        Shapes: -> (B, 1, T, S+T).
        """
        if self.mask is not None and dtype not in self._additive:
            zeros = torch.zeros_like(self.mask, dtype=dtype)
            self._additive[dtype] = zeros.masked_fill_(~self.mask, -math.inf)
        return self._additive.get(dtype)


def attention_context(
    tokens: Tensor,
    config: GPTConfig,
    *,
    attention_mask: Tensor | None = None,
    positions: Tensor | None = None,
    rows: CacheRows | None = None,
) -> AttentionContext:
    """Build the context of T new tokens, which follow the cached ones of `rows`.

    Without `positions`, each token's position is the number of real tokens before it in its text.

    Shapes: tokens (B, T) ids or (B, T, E) states; attention_mask (B, S+T); positions (T,) or (B, T).
    """
    n_new, device = tokens.shape[1], tokens.device
    mask = None
    if attention_mask is not None:
        mask = query_key_mask(attention_mask, n_new, is_causal=config.is_causal)  # (B, 1, T, S+T)
    elif rows is not None:
        mask = rows.mask(n_new, device)  # (B, 1, T, S+T)
    if positions is None and attention_mask is not None:
        positions = text_positions(attention_mask)[:, -n_new:]  # (B, T)
    elif positions is None:
        positions = torch.arange(n_new, device=device) if rows is None else rows.positions(n_new, device)
    cos_sin = rotation(config, positions) if config.positions == "rotary" else None
    return AttentionContext(positions, mask, cos_sin)
