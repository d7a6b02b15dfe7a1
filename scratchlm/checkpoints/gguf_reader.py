"""The GGUF file format of llama.cpp and Ollama: settings, names of tensors, then the numbers, mapped from disk.

A file comes from anywhere, so every count is checked against the bytes that are there before it is believed.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scratchlm.checkpoints.zip_members import map_file
from scratchlm.core.errors import CheckpointError

MAX_GGUF_ENTRIES = 16_384  # settings, and tensors; Llama 3 with 405 billion weights has 1,138 tensors
MAX_TEXT_BYTES = 1 << 20  # of one text; chat templates are the longest, some 10 kB
MAX_ITEMS = 800_000  # in all arrays: Llama 3 has 128,256 tokens, as many kinds of token, and 280,147 merges
MAX_SETTINGS_MEMORY = 48 << 20  # bytes, and as many again as the file has: Llama 3's take 30 MB
_ITEM_MEMORY = 40  # bytes that Python takes for a number in a list; a text tells its own
Q8_BLOCK = 32  # numbers that share a scale in Q8_0
_MAX_DIMENSIONS = 4
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_TEXT, _ARRAY = 8, 9
_COUNT = struct.Struct("<Q")
_SMALLEST_TEXT = 8  # bytes of an empty text: its length


def _from_q8(data: NDArray[np.uint8]) -> Tensor:
    """Blocks of a float16 scale and 32 bytes to numbers."""
    blocks = data.reshape(-1, 2 + Q8_BLOCK)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)  # (n, 1)
    return torch.from_numpy((blocks[:, 2:].view(np.int8).astype(np.float32) * scales).reshape(-1))


def _viewed_as(dtype: torch.dtype) -> Callable[[NDArray[np.uint8]], Tensor]:
    return lambda data: torch.from_numpy(data.copy()).view(dtype).float()


@dataclass(frozen=True)
class _Kind:
    """How numbers are packed: so many to a block of so many bytes."""

    name: str
    block: int
    block_bytes: int
    unpack: Callable[[NDArray[np.uint8]], Tensor]


_KINDS = {  # llama.cpp's number of each kind: ggml.h, enum ggml_type
    0: _Kind("F32", 1, 4, _viewed_as(torch.float32)),
    1: _Kind("F16", 1, 2, _viewed_as(torch.float16)),
    8: _Kind("Q8_0", Q8_BLOCK, 2 + Q8_BLOCK, _from_q8),
    30: _Kind("BF16", 1, 2, _viewed_as(torch.bfloat16)),
}


@dataclass(frozen=True)
class _Place:
    """Where a tensor's bytes are."""

    shape: tuple[int, ...]
    kind: _Kind
    start: int
    n_bytes: int


class GGUFFile:
    """An open GGUF file: `metadata` at hand, tensors read one by one.

    Texts that are not UTF-8 keep their bytes as lone surrogates.
    Raises: CheckpointError naming the file and what is wrong with it, for anything but a sound file of version
        2 or 3 with numbers of the kinds F32, F16, BF16 and Q8_0.
    Source: ggml's docs/gguf.md.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._data = map_file(self.path)
        self._at = 0
        if bytes(self._data[:4]) != b"GGUF":
            raise self.wrong(f"found the first bytes {bytes(self._data[:4])!r} instead of b'GGUF'")
        self._view = self._data.data
        self._items_left = MAX_ITEMS
        self._memory_left = MAX_SETTINGS_MEMORY + len(self._data)
        self._at = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            raise self.wrong(f"found format version {version}; versions 2 and 3 can be read, little-endian")
        n_tensors, n_settings = self._count(MAX_GGUF_ENTRIES), self._count(MAX_GGUF_ENTRIES)
        self.metadata: dict[str, Any] = {}
        for _ in range(n_settings):
            key = self._text()
            if key in self.metadata:
                raise self.wrong(f"found the setting {key!r:.80} twice")
            self.metadata[key] = self._value(self._scalar("<I"))
        self._places = self._directory(n_tensors)

    def wrong(self, problem: str) -> CheckpointError:
        """The error to raise for something in this file."""
        return CheckpointError(
            f"{self.path} must be a GGUF file that fits together, {problem}; get it again."
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape, the dimension that changes slowest first, as in torch."""
        return {name: place.shape for name, place in self._places.items()}

    def tensor(self, name: str) -> Tensor:
        """A tensor's numbers as float32, in memory of its own."""
        place = self._places[name]
        packed = self._data[place.start : place.start + place.n_bytes]
        return place.kind.unpack(packed).reshape(place.shape)

    def _directory(self, n_tensors: int) -> dict[str, _Place]:
        found: dict[str, tuple[tuple[int, ...], _Kind, int]] = {}
        for _ in range(n_tensors):
            name = self._text()
            n_dimensions = self._scalar("<I")
            if not 1 <= n_dimensions <= _MAX_DIMENSIONS or name in found:
                raise self.wrong(f"found the tensor {name!r:.80} twice or with {n_dimensions} dimensions")
            shape = tuple(self._scalar("<Q") for _ in range(n_dimensions))[::-1]
            number = self._scalar("<I")
            if number not in _KINDS:
                known = ", ".join(kind.name for kind in _KINDS.values())
                raise self.wrong(f"found {name!r:.80} packed in the way number {number}; {known} can be read")
            found[name] = (shape, _KINDS[number], self._scalar("<Q"))
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment not in (1 << n for n in range(17)):
            raise self.wrong(f"found general.alignment {alignment!r:.40}")
        start = -(-self._at // alignment) * alignment
        places = {name: self._place(name, *facts, start) for name, facts in found.items()}
        end = start
        for name, place in sorted(places.items(), key=lambda item: item[1].start):
            if place.start < end:
                raise self.wrong(f"found {name!r:.80} lying over another tensor")
            end = place.start + place.n_bytes
        return places

    def _place(self, name: str, shape: tuple[int, ...], kind: _Kind, offset: int, start: int) -> _Place:
        n_numbers = math.prod(shape)
        if n_numbers == 0 or shape[-1] % kind.block != 0:
            raise self.wrong(f"found {name!r:.80} of shape {shape}, which {kind.name} cannot hold")
        n_bytes = n_numbers // kind.block * kind.block_bytes
        if start + offset + n_bytes > len(self._data):
            raise self.wrong(f"found {name!r:.80} reaching past the end of the file")
        return _Place(shape, kind, start + offset, n_bytes)

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY:
            raise self.wrong(f"found a setting of the unknown kind {kind}")
        item = self._scalar("<I")
        if item == _TEXT:
            n_texts = self._count(self._left() // _SMALLEST_TEXT)
            self._spend(n_items=n_texts)
            return [self._text() for _ in range(n_texts)]
        if item not in _SCALARS:
            raise self.wrong(f"found an array of the kind {item}")
        size = struct.calcsize(_SCALARS[item])
        n_items = self._count(self._left() // size)
        self._spend(n_items=n_items, memory=n_items * _ITEM_MEMORY)
        return np.frombuffer(self._take(n_items * size), dtype=np.dtype(_SCALARS[item])).tolist()

    def _scalar(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self) -> str:
        text = str(self._take(self._count(MAX_TEXT_BYTES)), "utf-8", "surrogateescape")
        self._spend(memory=sys.getsizeof(text) + 8)
        return text

    def _spend(self, *, n_items: int = 0, memory: int = 0) -> None:
        self._items_left -= n_items
        self._memory_left -= memory
        if self._items_left < 0 or self._memory_left < 0:
            raise self.wrong(f"found more settings by byte {self._at} than the largest vocabulary needs")

    def _count(self, most: int) -> int:
        count: int = _COUNT.unpack(self._take(8))[0]
        if count > most:
            raise self.wrong(f"found a count of {count} at byte {self._at - 8}, {most} being possible")
        return count

    def _left(self) -> int:
        return max(0, len(self._data) - self._at - 8)  # behind the count that comes next

    def _take(self, n_bytes: int) -> memoryview:
        if n_bytes > len(self._data) - self._at:
            raise self.wrong(f"found its end at byte {len(self._data)} in the middle of the header")
        self._at += n_bytes
        return self._view[self._at - n_bytes : self._at]
