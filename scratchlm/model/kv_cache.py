"""The key-value cache: keys and values of earlier tokens, so that attention need not compute them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from scratchlm.core.errors import DataError
from scratchlm.model.config import GPTConfig, as_config


class LayerCache:
    """The keys and values of one block, in memory allocated once.

    Appending a token to a tensor copies the whole tensor; writing into a buffer copies one token. The buffer is
    allocated at the first use, with the number type and the device of the keys.

    Shapes: keys and values (B, H, capacity, D), of which the first `length` positions are filled.
    """

    def __init__(self, batch_size: int, capacity: int) -> None:
        self.batch_size = batch_size
        self.capacity = capacity
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of T new tokens and return those of all S + T tokens.

        Shapes: keys, values (B, H, T, D) -> two views (B, H, S+T, D).
        Raises: DataError when they exceed the capacity or have another batch size.
        """
        n_rows, n_heads, n_new, head_dim = keys.shape
        end = self.length + n_new
        if end > self.capacity or n_rows != self.batch_size:
            raise DataError(
                f"the cache has room for {self.capacity} tokens of {self.batch_size} rows, got {end} "
                f"tokens of {n_rows} rows; make a larger KVCache, or a new one for another batch."
            )
        if self._keys is None or self._values is None:
            self._keys = keys.new_empty(n_rows, n_heads, self.capacity, head_dim)
            self._values = values.new_empty(n_rows, n_heads, self.capacity, head_dim)
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    @property
    def filled(self) -> tuple[Tensor, Tensor] | None:
        """The keys and values stored so far, as views; None before the first use."""
        if self._keys is None or self._values is None:
            return None
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        self.batch_size = len(rows)
        if self._keys is not None and self._values is not None:
            self._keys = self._select(self._keys, rows)
            self._values = self._select(self._values, rows)

    @property
    def size_bytes(self) -> int:
        """Allocated memory in bytes."""
        return 0 if self._keys is None else 2 * self._keys.numel() * self._keys.element_size()

    def _select(self, buffer: Tensor, rows: Sequence[int]) -> Tensor:
        selected = buffer.new_empty(len(rows), *buffer.shape[1:])
        selected[:, :, : self.length] = buffer[list(rows), :, : self.length]  # the unused part is not copied
        return selected


class KVCache:
    """The keys and values of a batch in all blocks, so that each new token needs the work of one token only.

    Pass the same cache to consecutive calls of the model, each with the new tokens only. It is for inference: it is
    written in place, which autograd does not support.

    Units: `length` and `capacity` are tokens, `size_bytes` is bytes.
    Raises: DataError when batch_size or capacity is not positive.
    Example:
        >>> KVCache(GPTConfig(context_length=8), batch_size=1).capacity
        8
    """

    def __init__(
        self, config: GPTConfig | Mapping[str, Any], batch_size: int, *, capacity: int | None = None
    ) -> None:
        config = as_config(config)
        self.capacity = config.context_length if capacity is None else capacity
        if batch_size < 1 or self.capacity < 1:
            raise DataError(
                f"a cache needs at least 1 row and a capacity of 1 token, got batch_size={batch_size} and "
                f"capacity={self.capacity}; leave capacity out to use the context length."
            )
        self.layers = [LayerCache(batch_size, self.capacity) for _ in range(config.n_layers)]

    @property
    def length(self) -> int:
        """Number of tokens stored per row, including padding."""
        return self.layers[0].length

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.layers[0].batch_size

    @property
    def size_bytes(self) -> int:
        """Allocated memory in bytes; 0 before the first use."""
        return sum(layer.size_bytes for layer in self.layers)

    def crop(self, length: int) -> None:
        """Drop all but the first `length` tokens; the memory stays allocated.

        Raises: DataError when fewer tokens are stored.
        """
        if not 0 <= length <= self.length:
            raise DataError(
                f"this cache holds {self.length} tokens and cannot be cropped to {length}; choose 0 to {self.length}."
            )
        for layer in self.layers:
            layer.length = length

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be repeated, as beam search needs."""
        for layer in self.layers:
            layer.keep_rows(rows)
