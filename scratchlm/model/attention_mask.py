"""Who may look at whom: what padding hides, and where one text of a packed row ends and the next begins."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_keys(attention_mask: Tensor, n_new: int, *, is_causal: bool = True) -> Tensor:
    """Which tokens each of the last n_new tokens may look at: real ones of its own text, not in its future.

    A mask of booleans is one text a row. In a mask of whole numbers, 0 is padding and every other number is a
    text of its own. A padding token also sees itself: nobody reads its output, but a softmax over nothing would be
    NaN.

    Shapes: attention_mask (B, S+T), true at real tokens -> (B, 1, T, S+T), True where the query may look.
    Example:
        >>> visible_keys(torch.tensor([[1, 1, 2, 2, 0]]), 5).int()[0, 0].tolist()
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    """
    n_all = attention_mask.shape[1]
    queries = torch.arange(n_all - n_new, n_all, device=attention_mask.device)[:, None]  # (T, 1)
    keys = torch.arange(n_all, device=attention_mask.device)  # (S+T,)
    visible = (attention_mask != 0)[:, None, :]  # (B, 1, S+T)
    if attention_mask.dtype != torch.bool:
        visible = visible & (attention_mask[:, -n_new:, None] == attention_mask[:, None, :])  # (B, T, S+T)
    if is_causal:
        visible = visible & (keys <= queries)
    return (visible | (keys == queries))[:, None]  # (B, 1, T, S+T)


def text_positions(attention_mask: Tensor) -> Tensor:
    """Each token's place in its text: how many real tokens of the same text stand before it.

    Shapes: attention_mask (B, T) as for `visible_keys` -> (B, T).
    Example:
        >>> text_positions(torch.tensor([[7, 7, 7, 9, 9, 0]])).tolist()
        [[0, 1, 2, 0, 1, 0]]
    """
    if attention_mask.dtype == torch.bool:
        return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    n_tokens = attention_mask.shape[1]
    return visible_keys(attention_mask, n_tokens)[:, 0].sum(dim=-1) - 1
