"""Attention masks for padding and for packed rows of several texts, and the positions of their tokens."""

import torch
from torch import Tensor


def query_key_mask(attention_mask: Tensor, n_new: int, *, is_causal: bool = True) -> Tensor:
    """Compute which keys each of the last n_new tokens may attend to.

    A boolean mask marks real tokens; a row is one text. An integer mask numbers the texts of a packed row: 0 is
    padding, and tokens with the same number form one text. A token attends to real tokens of its own text,
    and with is_causal only to those up to itself. A padding token attends to itself: its output is never
    used, but a softmax over no keys at all would be NaN.

    Shapes: attention_mask (B, S+T) -> (B, 1, T, S+T), True where the query may attend to the key.
    Example:
        >>> query_key_mask(torch.tensor([[1, 1, 2, 2, 0]]), 5).int()[0, 0].tolist()
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    """
    n_all = attention_mask.shape[1]
    queries = torch.arange(n_all - n_new, n_all, device=attention_mask.device)[:, None]  # (T, 1)
    keys = torch.arange(n_all, device=attention_mask.device)  # (S+T,)
    mask = (attention_mask != 0)[:, None, :]  # (B, 1, S+T)
    if attention_mask.dtype != torch.bool:
        mask = mask & (attention_mask[:, -n_new:, None] == attention_mask[:, None, :])  # (B, T, S+T)
    if is_causal:
        mask = mask & (keys <= queries)
    return (mask | (keys == queries))[:, None]  # (B, 1, T, S+T)


def document_numbers(ids: Tensor, start_id: int) -> Tensor:
    """Number the documents of each row: the integer mask that keeps them apart.

    A document begins with `start_id`, the end-of-text token. That token ends the document before as a target, and as an
    input it is the only context of the next document's first token. A row may begin inside a document.

    Shapes: ids (B, T) -> (B, T), from 1.
    Example:
        >>> document_numbers(torch.tensor([[5, 6, 0, 7, 0]]), 0).tolist()
        [[1, 1, 2, 2, 3]]
    """
    return 1 + (ids == start_id).cumsum(dim=1)


def text_positions(attention_mask: Tensor) -> Tensor:
    """Count the real tokens before each token in its own text.

    Shapes: attention_mask (B, T) as for `query_key_mask` -> (B, T).
    Example:
        >>> text_positions(torch.tensor([[7, 7, 7, 9, 9, 0]])).tolist()
        [[0, 1, 2, 0, 1, 0]]
    """
    if attention_mask.dtype == torch.bool:
        return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    return query_key_mask(attention_mask, attention_mask.shape[1])[:, 0].sum(dim=-1) - 1
