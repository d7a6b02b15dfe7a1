"""Score the next token of growing texts; handles padding, positions and the cache for the samplers."""

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
    """Compute next-token scores for rows of different lengths that grow by one token at a time.

    Shorter rows are padded on the left, and the padding is masked. While a row fits the context, each call processes
    only its new token; the cache holds the earlier ones. Of a longer row, each call processes the last context_length
    tokens again: positions are absolute, so every token's position changes when the first token leaves the window,
    and cached keys would be wrong. Such rows are processed separately, so that they do not slow the others down.
    """

    def __init__(
        self, model: GPTModel, *, use_cache: bool, n_expected: int, forbidden_ids: Sequence[int] = ()
    ) -> None:
        self._model = model
        self._use_cache = use_cache
        self._n_expected = n_expected  # maximum number of new tokens per row; sets the size of the cache
        self._cache: KVCache | None = None
        self._mask: Tensor | None = None  # (B, S), None when no cached row is padded
        self._cached: list[int] = []  # numbers of the rows in the cache and the mask, in their order
        self._device = next(model.parameters()).device
        self._forbidden_ids = torch.tensor(forbidden_ids, dtype=torch.long, device=self._device)

    def next_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Score the token after each row, where each row is that of the last call plus one token.

        Shapes: B rows of ids -> (B, V), float32; forbidden ids have the score -inf.
        """
        # Both modes end before control returns, so that a caller that pauses does not train with dropout off.
        with evaluation_mode(self._model), torch.inference_mode():
            context_length = self._model.config.context_length
            fitting = [i for i, row in enumerate(rows) if len(row) <= context_length]
            longer = [i for i, row in enumerate(rows) if len(row) > context_length]
            states: dict[int, Tensor] = {}  # of each row's last position, (E,)
            if fitting:
                states |= zip(fitting, self._read_fitting(fitting, [rows[i] for i in fitting])[:, -1])
            if longer:
                windows = [rows[i][-context_length:] for i in longer]
                states |= zip(longer, self._model.hidden_states(self._tensor(windows))[:, -1])
            last_states = torch.stack([states[i] for i in range(len(rows))])  # (B, E)
            logits: Tensor = self._model.out_head(last_states)  # (B, V)
            return logits.float().index_fill(1, self._forbidden_ids, -math.inf)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        places = {row: place for place, row in enumerate(self._cached)}
        with torch.inference_mode():
            self._keep_cached([places[row] for row in rows if row in places])
        self._cached = [i for i, row in enumerate(rows) if row in places]

    def _read_fitting(self, numbers: list[int], rows: Sequence[Sequence[int]]) -> Tensor:
        """States of rows that fit the context: of their last tokens with a cache, of all tokens without."""
        if self._cache is None or self._cache.length == self._cache.capacity:
            self._cached = numbers
            return self._read_all(rows)  # (B, T, E)
        if self._cached != numbers:  # some are now longer than the context
            self._keep_cached([self._cached.index(number) for number in numbers])
            self._cached = numbers
        return self._read_last(rows, self._cache)  # (B, 1, E)

    def _keep_cached(self, places: list[int]) -> None:
        if self._cache is not None and places:
            self._cache.keep_rows(places)
            self._mask = None if self._mask is None else self._mask[places]
        else:
            self._cache = self._mask = None

    def _read_all(self, rows: Sequence[Sequence[int]]) -> Tensor:
        width = max(map(len, rows))
        ids = self._tensor([[0] * (width - len(row)) + list(row) for row in rows])  # (B, T)
        n_padding = torch.tensor([width - len(row) for row in rows], device=self._device)
        is_padded = any(len(row) < width for row in rows)
        self._mask = torch.arange(width, device=self._device) >= n_padding[:, None] if is_padded else None
        capacity = min(self._model.config.context_length, width + self._n_expected)
        needs_cache = (
            self._use_cache and width < capacity
        )  # a cache that is full after the prompt would never be read
        self._cache = KVCache(self._model.config, len(rows), capacity=capacity) if needs_cache else None
        return self._model.hidden_states(ids, attention_mask=self._mask, cache=self._cache)

    def _read_last(self, rows: Sequence[Sequence[int]], cache: KVCache) -> Tensor:
        ids = self._tensor([row[-1:] for row in rows])  # (B, 1)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], dim=1)  # (B, S+1)
        return self._model.hidden_states(ids, attention_mask=self._mask, cache=cache)

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([list(row) for row in rows], device=self._device)


def ids_without_token(
    model: GPTModel, tokenizer: Tokenizer | None, *, stop_ids: Sequence[int] = ()
) -> list[int]:
    """List the ids without a token: padding of the model's vocabulary, or gaps in the tokenizer's.

    Stop ids are not listed: they end a text and need no token. Without a tokenizer the list is empty.
    """
    if tokenizer is None:
        return []
    vocab_size = model.config.vocab_size
    unused = {*getattr(tokenizer, "unused_ids", ()), *range(tokenizer.vocab_size, vocab_size)}
    return sorted(token_id for token_id in unused - {*stop_ids} if token_id < vocab_size)
