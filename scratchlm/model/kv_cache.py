"""The key-value cache: keys and values of earlier tokens, so that attention need not compute them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from scratchlm.core.errors import DataError
from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.rotary import rotate, rotation


class KVCache:
    """The keys and values of several texts in all blocks, so that each new token needs the work of one token only.

    Every text has a slot, and every slot its own length: texts may begin, end and grow independently. The memory is
    allocated once, at the first use, with the number type and the device of the keys; appending a token writes one
    token, and no other slot is copied.

    Pass `cache.rows(slots)` to a call of the model with the new tokens of these slots, or the cache itself for all
    slots. It is for inference: it is written in place, which autograd does not support.

    Shapes: `keys` and `values` (L, n_slots, H, capacity, D), of which the first `lengths[slot]` positions are filled.
    Units: lengths and `capacity` are tokens, `size_bytes` is bytes.
    Raises: DataError when n_slots or capacity is not positive.
    Example:
        >>> KVCache(GPTConfig(context_length=8), n_slots=1).capacity
        8
    """

    def __init__(
        self, config: GPTConfig | Mapping[str, Any], n_slots: int, *, capacity: int | None = None
    ) -> None:
        self.config = config = as_config(config)
        self.capacity = config.context_length if capacity is None else capacity
        if n_slots < 1 or self.capacity < 1:
            raise DataError(
                f"a cache needs at least 1 slot and a capacity of 1 token, got n_slots={n_slots} and "
                f"capacity={self.capacity}; leave capacity out to use the context length."
            )
        self.lengths = [0] * n_slots
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    @property
    def n_slots(self) -> int:
        """Number of texts that fit."""
        return len(self.lengths)

    @property
    def length(self) -> int:
        """Number of tokens in the longest slot."""
        return max(self.lengths)

    @property
    def size_bytes(self) -> int:
        """Allocated memory in bytes; 0 before the first use."""
        return 0 if self.keys is None else 2 * self.keys.numel() * self.keys.element_size()

    def allocate(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Allocate the memory unless it is there already, and return `keys` and `values`."""
        if self.keys is None or self.values is None:
            config = self.config
            n_heads = config.n_kv_heads or config.n_heads
            shape = (config.n_layers, self.n_slots, n_heads, self.capacity, config.head_dim)
            with torch.inference_mode(False):  # else it could not be written outside that mode later
                self.keys, self.values = _zeros(shape, dtype, device), _zeros(shape, dtype, device)
        return self.keys, self.values

    def rows(self, slots: Sequence[int] | None = None) -> CacheRows:
        """The rows of a batch: text i of the batch is in slot slots[i]; None means all slots."""
        chosen = range(self.n_slots) if slots is None else slots
        return CacheRows(self, tuple(chosen), tuple(self.lengths[slot] for slot in chosen))

    def crop(self, length: int, *, slots: Sequence[int] | None = None) -> None:
        """Drop all but the first `length` tokens of these slots, or of all; the memory stays allocated.

        Raises: DataError when a slot has fewer tokens.
        """
        for slot in range(self.n_slots) if slots is None else slots:
            if not 0 <= length <= self.lengths[slot]:
                raise DataError(
                    f"slot {slot} of this cache holds {self.lengths[slot]} tokens and cannot be cropped to {length}; "
                    f"choose 0 to {self.lengths[slot]}."
                )
            self.lengths[slot] = length

    def drop(self, slot: int, *, first: int, n: int) -> None:
        """Forget n tokens of a slot from position `first` on; the later ones move up to their positions.

        Keys carry their rotary position, so the moved ones are rotated back by n positions.
        Raises: DataError when the slot has fewer tokens, or positions are learned: those are part of every number.
        """
        end = self.lengths[slot]
        if not 0 <= first <= first + n <= end or self.config.positions != "rotary":
            raise DataError(
                f"tokens can be dropped from among the {end} of slot {slot} with rotary positions, got {n} tokens from "
                f"position {first} on with {self.config.positions} positions; compute the slot again instead."
            )
        self.lengths[slot] = end - n
        if self.keys is None or self.values is None:
            return
        keys, values = (stored[:, slot, :, first + n : end] for stored in (self.keys, self.values))
        back = rotation(self.config, torch.tensor([-n], device=keys.device))
        self.values[:, slot, :, first : end - n] = values.clone()
        self.keys[:, slot, :, first : end - n] = rotate(keys.float(), back)

    def fork(self, source: int, target: int, *, length: int | None = None) -> None:
        """Copy the first `length` tokens of a slot, by default all of them, to another slot."""
        n_tokens = self.lengths[source] if length is None else length
        if self.keys is not None and self.values is not None and source != target:
            for stored in (self.keys, self.values):
                stored[:, target, :, :n_tokens] = stored[:, source, :, :n_tokens]
        self.lengths[target] = n_tokens


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; in the computer's own memory they take no room until they are written, which torch.zeros does at once."""
    if device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(numpy.zeros(shape, dtype=numpy.float32))
    return torch.zeros(shape, dtype=dtype, device=device)


@dataclass(frozen=True, slots=True)
class CacheRows:
    """Slots of a cache in the order of a batch's rows, and how many tokens each holds before the batch."""

    cache: KVCache
    slots: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def is_aligned(self) -> bool:
        """Whether all rows hold equally many tokens."""
        return len(set(self.starts)) == 1

    def layer(self, number: int) -> LayerRows:
        """The part that belongs to one block."""
        return LayerRows(self, number)

    def positions(self, n_new: int, device: torch.device) -> Tensor:
        """The positions of n_new tokens that follow each row: (B, T), or (T,) when they are the same in all rows."""
        new = torch.arange(n_new, device=device)
        if self.is_aligned:
            return self.starts[0] + new
        return torch.tensor(self.starts, device=device)[:, None] + new

    def mask(self, n_new: int, device: torch.device) -> Tensor | None:
        """Which keys each new token may attend to, (B, 1, T, S+T); None when causality is the only limit."""
        if self.is_aligned:
            return None
        keys = torch.arange(max(self.starts) + n_new, device=device)
        return (keys <= self.positions(n_new, device)[:, :, None])[:, None]

    def advance(self, n_new: int) -> None:
        """Count n_new tokens as stored in each row, after all blocks have appended them."""
        for slot, start in zip(self.slots, self.starts):
            self.cache.lengths[slot] = start + n_new

    def check_room(self, n_rows: int, n_new: int) -> None:
        """Check that n_new tokens of n_rows rows fit.

        Raises: DataError.
        """
        if n_rows != len(self.slots) or max(self.starts) + n_new > self.cache.capacity:
            raise DataError(
                f"the cache has room for {self.cache.capacity} tokens of {len(self.slots)} rows, got "
                f"{max(self.starts) + n_new} tokens of {n_rows} rows; make a larger KVCache, or a new one for "
                "another batch."
            )


@dataclass(frozen=True, slots=True)
class LayerRows:
    """The keys and values of some rows in one block."""

    rows: CacheRows
    number: int  # of the block

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of T new tokens and return those of all S + T tokens.

        S is the number of tokens in the longest row; a shorter row ends with numbers that its mask hides.

        Shapes: keys, values (B, H, T, D) -> two of (B, H, S+T, D): views, unless the slots have gaps.
        """
        stored = self.rows.cache.allocate(keys.dtype, keys.device)
        slots, starts, n_new = self.rows.slots, self.rows.starts, keys.shape[2]
        span: slice | list[int] = list(slots)
        if slots == tuple(range(slots[0], slots[0] + len(slots))):
            span = slice(slots[0], slots[0] + len(slots))
        found = []
        for new, buffer in zip((keys, values), stored):
            own = buffer[self.number]  # (n_slots, H, capacity, D)
            if self.rows.is_aligned and isinstance(span, slice):
                own[span, :, starts[0] : starts[0] + n_new] = new
            else:
                for row, (slot, start) in enumerate(zip(slots, starts)):
                    own[slot, :, start : start + n_new] = new[row]
            found.append(own[span][:, :, : max(starts) + n_new])
        return found[0], found[1]
