"""Check the structure of a file by its name, for downloads without a published sha256."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from scratchlm.core.errors import DataError
from scratchlm.core.file_kinds import PARQUET_MAGIC
from scratchlm.core.files import MAX_SETTINGS_BYTES, read_json

TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)  # the last eight bytes of a LevelDB table
TABLE_FOOTER_BYTES = 48
MAX_HEADER_BYTES = 4 << 20  # GPT-2 XL with its optimizer needs 0.2 MB; a file of 16,000 tensors fits
GRAPH_PARTS = 7  # tensorflow/core/protobuf/meta_graph.proto
PAGE_BEGINNINGS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script")
TEXT_BEGINNINGS = {"checkpoint": b"model_checkpoint_path:", "vocab.bpe": b"#version"}


def structure_problem(path: Path, *, name: str, settings: Iterable[tuple[str, int]] = ()) -> str | None:
    """Describe how the file differs from the format its name implies; None when it does not.

    path: the file on disk; name: its final name; settings: values that a JSON file must contain.
    """
    with path.open("rb") as file:
        beginning = file.read(1024)
    if not beginning:
        return "it is empty"
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGE_BEGINNINGS):
        return "it is a web page, perhaps a login page"
    expected = TEXT_BEGINNINGS.get(name)
    if expected is not None and not beginning.startswith(expected):
        return f"it begins with {beginning[:24]!r}, expected {expected!r}"
    if name.endswith(".json"):
        return _json_problem(path, settings)
    checks = {
        ".index": _table_problem,
        ".safetensors": _safetensors_problem,
        ".parquet": _parquet_problem,
        ".meta": _graph_problem,
    }
    check = checks.get(Path(name).suffix)
    return None if check is None else check(path)


def safetensors_header_problem(path: Path) -> str | None:
    """Check, before a header is parsed, that it is no longer than any real one or than the file.

    Raises: OSError when the file cannot be read.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
    n_header = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= n_header <= min(MAX_HEADER_BYTES, size_bytes - 8):
        return f"it announces a header of {n_header:,} bytes in a file of {size_bytes:,}"
    return None


def _json_problem(path: Path, settings: Iterable[tuple[str, int]]) -> str | None:
    expected = dict(settings)
    try:
        value = read_json(path, max_bytes=MAX_SETTINGS_BYTES if expected else None)
    except DataError as cause:
        return f"it is not valid JSON: {cause}"
    if expected and not isinstance(value, dict):  # a data set may be a list
        return "it is not a JSON object"
    for name, number in expected.items():
        if value.get(name) != number:
            return f"it has {name} = {value.get(name, 'nothing')!s:.40} instead of {number}"
    return None


def _graph_problem(path: Path) -> str | None:
    """Check for TensorFlow's MetaGraphDef: only fields numbered 1 to 7, each preceded by its length."""
    with path.open("rb") as file:
        left = file.seek(0, os.SEEK_END)
        file.seek(0)
        while left > 0:
            head = file.read(11)
            number, n_bytes, n_head = _part(head)
            left -= n_head + n_bytes
            if not 1 <= number <= GRAPH_PARTS or n_head == 0 or left < 0:
                return "it is not a TensorFlow graph"
            file.seek(n_head + n_bytes - len(head), os.SEEK_CUR)
    return None


def _part(head: bytes) -> tuple[int, int, int]:
    """Number, length and header size of one field of a protobuf message; zeros for anything else."""
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
            return "it is shorter than the footer of a LevelDB table"
        file.seek(-len(TABLE_MAGIC), os.SEEK_END)
        return None if file.read() == TABLE_MAGIC else "it does not end with the footer of a LevelDB table"


def _parquet_problem(path: Path) -> str | None:
    """A parquet file begins and ends with the same four bytes; a truncated one lacks the last."""
    with path.open("rb") as file:
        beginning = file.read(len(PARQUET_MAGIC))
        file.seek(-min(len(PARQUET_MAGIC), file.seek(0, os.SEEK_END)), os.SEEK_END)
        ending = file.read()
    is_parquet = beginning == ending == PARQUET_MAGIC
    return None if is_parquet else "it does not begin and end as a parquet file does"


def _safetensors_problem(path: Path) -> str | None:
    """Let the library check that the header is valid and its tensors fill the rest without gap or overlap."""
    problem = safetensors_header_problem(path)
    if problem is not None:
        return problem
    try:
        with safe_open(path, framework="np"):
            return None
    except SafetensorError as cause:
        return f"it is not a valid safetensors file ({cause})"
