"""Does a file look like what its name says? A check for downloads whose exact bytes nobody has published."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.files import MAX_SETTINGS_BYTES, parse_json, read_json

TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)  # the last eight bytes of a LevelDB table
TABLE_FOOTER_BYTES = 48
PARQUET_MAGIC = b"PAR1"
LONGEST_HEADER_BYTES = 4 << 20  # GPT-2 XL with its optimizer needs 0.2 MB; a file of 16,000 tensors fits
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
GRAPH_PARTS = 7  # tensorflow/core/protobuf/meta_graph.proto
PAGE_BEGINNINGS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script")
TEXT_BEGINNINGS = {"checkpoint": b"model_checkpoint_path:", "vocab.bpe": b"#version"}


def structure_problem(path: Path, *, name: str, settings: Iterable[tuple[str, int]] = ()) -> str | None:
    """What shows that this file is not what its name says, or None when nothing does.

    path: where the bytes lie now; name: what the file is to be called; settings: what a JSON table must say.
    """
    with path.open("rb") as file:
        beginning = file.read(1024)
    if not beginning:
        return "it is empty"
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGE_BEGINNINGS):
        return "it is a web page, perhaps a login or a hotel's portal"
    expected = TEXT_BEGINNINGS.get(name)
    if expected is not None and not beginning.startswith(expected):
        return f"it begins with {beginning[:24]!r}, expected {expected!r}"
    if name.endswith(".json"):
        return _json_problem(path, settings)
    if name.endswith(".index"):
        return _table_problem(path)
    if name.endswith(".safetensors"):
        return _safetensors_problem(path)
    if name.endswith(".parquet"):
        return _parquet_problem(path)
    if name.endswith(".meta"):
        return _graph_problem(path)
    return None


def safetensors_header_problem(path: Path) -> str | None:
    """Is the header longer than any real one, or than the file? The first thing to ask, before it is parsed.

    Raises: OSError when the file cannot be read.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
    n_header = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= n_header <= min(LONGEST_HEADER_BYTES, size_bytes - 8):
        return f"its header should lie within {size_bytes:,} bytes, {n_header:,} were announced"
    return None


def _json_problem(path: Path, settings: Iterable[tuple[str, int]]) -> str | None:
    expected = dict(settings)
    try:
        value = read_json(path, max_bytes=MAX_SETTINGS_BYTES if expected else None)
    except DataError as cause:
        return f"it is no JSON: {cause}"
    if expected and not isinstance(value, dict):  # a data set may be a list
        return "it is no table of settings"
    for name, number in expected.items():
        if value.get(name) != number:
            return f"it says {name} = {value.get(name, 'nothing')!s:.40}, {number} was expected"
    return None


def _graph_problem(path: Path) -> str | None:
    """TensorFlow's MetaGraphDef: nothing but parts with the numbers 1 to 7, each with its length before it."""
    with path.open("rb") as file:
        left = file.seek(0, os.SEEK_END)
        file.seek(0)
        while left > 0:
            head = file.read(11)
            number, n_bytes, n_head = _part(head)
            left -= n_head + n_bytes
            if not 1 <= number <= GRAPH_PARTS or n_head == 0 or left < 0:
                return "it is no graph of TensorFlow's"
            file.seek(n_head + n_bytes - len(head), os.SEEK_CUR)
    return None


def _part(head: bytes) -> tuple[int, int, int]:
    """Number, length and width of the head of one part of a protobuf message; zeros when it is none."""
    if len(head) < 2 or head[0] & 7 != 2:
        return 0, 0, 0
    n_bytes = 0
    for i, byte in enumerate(head[1:]):
        n_bytes |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return head[0] >> 3, n_bytes, i + 2
    return 0, 0, 0


def _table_problem(path: Path) -> str | None:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < TABLE_FOOTER_BYTES:
            return "it is shorter than the end of a LevelDB table"
        file.seek(-len(TABLE_MAGIC), os.SEEK_END)
        return None if file.read() == TABLE_MAGIC else "it does not end as a LevelDB table does"


def _parquet_problem(path: Path) -> str | None:
    """A parquet file begins and ends with the same four letters; one that was cut short has lost the last."""
    with path.open("rb") as file:
        beginning = file.read(len(PARQUET_MAGIC))
        file.seek(-min(len(PARQUET_MAGIC), file.seek(0, os.SEEK_END)), os.SEEK_END)
        ending = file.read()
    return (
        None if beginning == ending == PARQUET_MAGIC else "it does not begin and end as a parquet file does"
    )


def _safetensors_problem(path: Path) -> str | None:
    """The header lies within the file, and its tensors fill the rest without gap or overlap."""
    problem = safetensors_header_problem(path)
    if problem is not None:
        return problem
    with path.open("rb") as file:
        header = file.read(struct.unpack("<Q", file.read(8))[0])
    size_bytes, n_header = path.stat().st_size, len(header)
    try:
        tensors = parse_json(header.decode("utf-8"), where=str(path))
    except (UnicodeDecodeError, DataError) as cause:
        return f"its header is no JSON: {cause}"
    if not isinstance(tensors, dict):
        return "its header is no table of tensors"
    spans = [_span(entry) for name, entry in tensors.items() if name != "__metadata__"]
    end = 0
    for span in sorted(spans, key=lambda span: span or (-1, -1)):
        if span is None or span[0] != end:
            return "its tensors do not follow each other"
        end = span[1]
    n_data = size_bytes - 8 - n_header
    return None if end == n_data else f"its tensors take {end:,} bytes, found {n_data:,}"


def _span(entry: Any) -> tuple[int, int] | None:
    """Where a tensor begins and ends, or None when its entry contradicts itself."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return None
    offsets, shape = _counts(entry.get("data_offsets")), _counts(entry.get("shape"))
    if entry["dtype"] not in ITEM_BYTES or offsets is None or shape is None or len(offsets) != 2:
        return None
    begin, end = offsets
    return (begin, end) if end - begin == math.prod(shape) * ITEM_BYTES[entry["dtype"]] else None


def _counts(value: Any) -> list[int] | None:
    is_valid = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
    return value if is_valid else None
