"""The model's view of growing texts: padding, positions and cache, out of the sight of whoever samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scratchlm.core.protocols import Tokenizer
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache
from scratchlm.model.modes import evaluation_mode


class ContextWindow:
    """Gives the scores of the next token for rows of different lengths that grow one token at a time.

    Shorter rows are padded on the left and the padding is masked. While a cache has room, each call reads one
    new token per row. When the context is full, each call reads the last context_length tokens of each row
    anew: positions are absolute, so every token moves when the first one leaves, and no cache can be kept.
    """

    def __init__(
        self, model: GPTModel, *, use_cache: bool, n_expected: int, never: Sequence[int] = ()
    ) -> None:
        self._model = model
        self._use_cache = use_cache
        self._n_expected = n_expected  # how many tokens each row may grow by; sizes the cache
        self._cache: KVCache | None = None
        self._mask: Tensor | None = None  # (B, S), None when no row is padded
        self._device = next(model.parameters()).device
        self._never = torch.tensor(never, dtype=torch.long, device=self._device)  # ids that may not be chosen

    def next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Scores for the token after each row; each row is the last call's row and one token more.

        Ids that may not be chosen have the score -inf.

        Shapes: B rows of ids -> (B, V), float32.
        """
        # Both modes end before control returns: a caller that reads slowly must not train with dropout off.
        with evaluation_mode(self._model), torch.inference_mode():
            if self._cache is not None and self._cache.length < self._cache.capacity:
                states = self._read_last(rows, self._cache)  # (B, 1, E)
            else:
                states = self._read_all(rows)  # (B, T, E)
            logits: Tensor = self._model.out_head(states[:, -1])  # (B, V)
            return logits.float().index_fill(1, self._never, -math.inf)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        with torch.inference_mode():
            if self._cache is not None:
                self._cache.keep_rows(rows)
            if self._mask is not None:
                self._mask = self._mask[list(rows)]

    def _read_all(self, rows: Sequence[Sequence[int]]) -> Tensor:
        context_length = self._model.config.context_length
        windows = [list(row[-context_length:]) for row in rows]
        width = max(map(len, windows))
        ids = torch.tensor([[0] * (width - len(window)) + window for window in windows], device=self._device)
        n_padding = torch.tensor([width - len(window) for window in windows], device=self._device)
        is_padded = any(len(window) < width for window in windows)
        self._mask = torch.arange(width, device=self._device) >= n_padding[:, None] if is_padded else None
        capacity = min(context_length, width + self._n_expected)
        # A cache that the prompt alone fills would never be read.
        self._cache = (
            KVCache(self._model.config, len(rows), capacity=capacity)
            if self._use_cache and width < capacity
            else None
        )
        return self._model.hidden_states(ids, attention_mask=self._mask, cache=self._cache)

    def _read_last(self, rows: Sequence[Sequence[int]], cache: KVCache) -> Tensor:
        ids = torch.tensor([[row[-1]] for row in rows], device=self._device)  # (B, 1)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], dim=1)  # (B, S+1)
        return self._model.hidden_states(ids, attention_mask=self._mask, cache=cache)


def ids_without_token(
    model: GPTModel, tokenizer: Tokenizer | None, *, stop_ids: Sequence[int] = ()
) -> list[int]:
    """Ids that a model scores and that stand for nothing: padding of the vocabulary, and holes in it.

    An id that ends a text needs no token. Without a tokenizer nothing is known, and every id may be chosen.
    """
    if tokenizer is None:
        return []
    unused = {*getattr(tokenizer, "unused_ids", ()), *range(tokenizer.vocab_size, model.config.vocab_size)}
    return sorted(id_ for id_ in unused - {*stop_ids} if id_ < model.config.vocab_size)
