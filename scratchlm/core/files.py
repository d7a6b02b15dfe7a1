"""Files that appear whole or not at all, and readers that name what is wrong.

A writer fills a hidden neighbour of its target, makes the disk keep it (fsync), then takes its name: at any instant
the target is either the older one or the new one. Nothing here ever unpickles or executes anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError, ScratchLMError
from scratchlm.core.file_kinds import foreign_kind, not_text
from scratchlm.core.partials import (
    discard,
    finish_files,
    fsync_folder,
    partial_beside,
    place_files,
    replace_folder,
)

MAX_SETTINGS_BYTES = 4 << 20  # of JSON with settings or figures; the index of 405 billion weights has 0.1 MB
MAX_TOKENIZER_BYTES = 24 << 20  # Llama 3's tokenizer.json has 17 MB and about a million values
MAX_JSON_KEYS = 262_144  # of such a file: Llama 3 has 128,256 tokens, Qwen 3 151,936
MAX_JSON_DIGITS = 300  # of a whole number; Python itself refuses 4,300, and takes long before


def write_bytes(path: str | Path, data: bytes, *, error: type[ScratchLMError] = DataError) -> None:
    """Write a file, whole or not at all.

    Raises: `error` when the disk is full, the folder is missing or may not be written.
    """
    with new_file(path, error=error) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def new_file(path: str | Path, *, error: type[ScratchLMError] = DataError) -> Iterator[Path]:
    """Fill a file that appears whole or not at all, for writers that want a path.

    Yields the hidden neighbour to write. When the block ends well, it is fsynced and takes the target's name;
    when the block raises, it is removed and the target stays as it was.
    Raises: `error` when the disk is full, the folder is missing or may not be written.
    """
    target = Path(path)
    with partial_beside(target) as partial:
        try:
            yield partial
            _fsync_file(partial)
            partial.replace(target)
            fsync_folder(target.parent)
        except OSError as cause:
            discard(partial)
            raise _cannot_write(target, cause, error) from cause
        except BaseException:
            discard(partial)
            raise


def write_text(path: str | Path, text: str, *, error: type[ScratchLMError] = DataError) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode("utf-8"), error=error)


def write_json(path: str | Path, value: Any, *, error: type[ScratchLMError] = DataError) -> None:
    """Write JSON that people can read, whole or not at all; NaN and infinity are refused."""
    write_text(path, as_json(value), error=error)


def as_json(value: Any) -> str:
    """JSON that people can read; NaN and infinity are refused."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def make_parent(path: str | Path, *, error: type[ScratchLMError] = DataError) -> None:
    """Make the folder that a file or folder is to stand in, and those above it.

    Raises: `error` when that cannot be.
    """
    parent = Path(path).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise error(
            f"{parent} must be a folder that can be written to: {cause.strerror or cause}; choose another place."
        ) from cause


@contextlib.contextmanager
def new_folder(path: str | Path, *, error: type[ScratchLMError] = DataError) -> Iterator[Path]:
    """Fill a folder that appears whole or not at all; an older folder of that name is replaced at one instant.

    Yields the hidden folder to fill. When the block ends well, everything in it is fsynced and it takes the
    target's name; when the block raises, it is removed and the target stays as it was. Where target is a link, the
    folder it points to is replaced.
    Raises: `error` when the disk is full or the parent may not be written.
    """
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    make_parent(target, error=error)
    with partial_beside(target) as partial:
        try:
            discard(partial)
            partial.mkdir()
            yield partial
            for file in partial.rglob("*"):
                fsync_folder(file) if file.is_dir() else _fsync_file(file)
            fsync_folder(partial)
            replace_folder(partial, target)
        except OSError as cause:
            discard(partial)
            raise _cannot_write(target, cause, error) from cause
        except BaseException:
            discard(partial)
            raise


@contextlib.contextmanager
def new_files(path: str | Path, *, error: type[ScratchLMError] = DataError) -> Iterator[Path]:
    """Fill a folder with a file of path's name and what belongs beside it; all of them take their places together.

    Yields the hidden folder to fill. When the block raises, it is removed and everything stays as it was.
    Raises: `error` when the disk is full or the parent may not be written.
    """
    target = Path(path)
    make_parent(target, error=error)
    with partial_beside(target) as partial:
        try:
            finish_files(target)
            discard(partial)
            partial.mkdir()
            yield partial
            for file in partial.iterdir():
                _fsync_file(file)
            fsync_folder(partial)
            place_files(partial, target)
        except OSError as cause:
            discard(partial)
            raise _cannot_write(target, cause, error) from cause
        except BaseException:
            discard(partial)
            raise


def check_replaceable(
    folder: str | Path,
    names: Collection[str],
    *,
    kind: str,
    marks: Collection[str] = (),
    error: type[ScratchLMError] = DataError,
) -> None:
    """Refuse to replace a folder that holds more than files of these names: the rest is someone's work.

    A place where nothing is, and an empty folder, may be taken. `kind` says in the message what an older one would be,
    `marks` names files of which it has at least one.
    Raises: `error` naming what else is in it, or when it is no folder.
    """
    target = Path(folder)
    if not target.exists() and not target.is_symlink():
        return
    held = sorted(target.iterdir()) if target.is_dir() else None
    others = [path.name for path in held or () if path.name not in names or path.is_dir()]
    lacks_mark = bool(held and marks) and not any((target / mark).is_file() for mark in marks)
    if others or held is None or lacks_mark:
        told = f" in it ({', '.join(others[:3])!s:.120})" if others else ""
        raise error(
            f"{target} should be an older {kind} to be replaced, found something else{told}; choose another name."
        )


def read_utf8(
    path: str | Path, *, max_bytes: int | None = None, error: type[ScratchLMError] = DataError
) -> str:
    """Text of a UTF-8 file, a byte-order mark at its start dropped, line ends untouched.

    Raises: `error` naming the file, and the byte offset where it stops being UTF-8; and when it is larger than
        max_bytes.
    """
    data = read_bytes(path, max_bytes=max_bytes, error=error)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        kind = foreign_kind(data)
        if kind is not None:
            raise error(f"{path} must be UTF-8 text, got {kind}; {not_text(kind)}.") from cause
        raise error(
            f"{path} must be UTF-8 text, found byte 0x{data[cause.start]:02x} at byte offset {cause.start} "
            f"({cause.reason}); save it as UTF-8."
        ) from cause


def check_characters(text: str, *, where: str) -> str:
    """The text itself, when a text file can hold it: JSON can spell half a surrogate pair, and NUL.

    Raises: DataError with the place.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise DataError(
            f"{where} must be Unicode text, found a lone surrogate at character {cause.start}; repair it."
        ) from cause
    if "\0" in text:
        raise DataError(f"{where} must be text, found a NUL character at {text.index(chr(0))}; remove it.")
    return text


def read_bytes(
    path: str | Path, *, max_bytes: int | None = None, error: type[ScratchLMError] = DataError
) -> bytes:
    """All bytes of a file.

    Raises: `error` when it is missing, a folder, or may not be read; and when it is larger than max_bytes.
    """
    try:
        size_bytes = Path(path).stat().st_size
        if max_bytes is not None and size_bytes > max_bytes:
            raise error(
                f"{path} should have at most {max_bytes:,} bytes, found {size_bytes:,}; it is not what its name "
                "says, take another copy."
            )
        return Path(path).read_bytes()
    except OSError as cause:
        raise error(f"{path} should be a readable file, got: {cause.strerror}; check the path.") from cause


def read_json(
    path: str | Path,
    *,
    max_bytes: int | None = MAX_SETTINGS_BYTES,
    error: type[ScratchLMError] = DataError,
) -> Any:
    """The value of a JSON file; NaN, repeated keys and bottomless nesting are refused.

    max_bytes: a larger file is refused, and one with more than a value in 20 of these bytes: a few characters can
        ask for a hundred bytes of memory. None for the user's own data.
    Raises: `error` naming the file and, where known, line and column.
    """
    text = read_utf8(path, max_bytes=max_bytes, error=error)
    if max_bytes is not None:
        n_values = text.count(",") + text.count("{") + text.count("[")  # no fewer than there are
        n_keys = text.count(":")  # likewise
        most_keys = min(MAX_JSON_KEYS, max_bytes // 26)  # a key takes 220 bytes while it is read
        if n_values > max_bytes // 20 or n_keys > most_keys:
            raise error(
                f"{path} should hold at most {max_bytes // 20:,} values and {most_keys:,} keys, found about "
                f"{n_values:,} and {n_keys:,}; it is not what its name says, take another copy."
            )
    return parse_json(text, where=str(path), error=error)


def parse_json(text: str, *, where: str, finite: bool = True, error: type[ScratchLMError] = DataError) -> Any:
    """The value of a JSON text, as strictly as `read_json`; `where` names its origin in messages.

    finite=False allows NaN and infinity, which pandas writes for what is missing.
    """

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in pairs:
            if key in value:
                raise error(f"{where} must name each key once, found {key!r:.100} twice; remove one of them.")
            value[key] = item
        return value

    def no_constant(name: str) -> Any:
        raise error(f"{where} must hold finite numbers, found {name:.40}; the file is damaged or foreign.")

    def finite_float(digits: str) -> float:
        number = float(digits)  # 1e999 is a number in JSON and infinity here
        return number if math.isfinite(number) else no_constant(digits)

    def whole(digits: str) -> int:
        return int(digits) if len(digits) <= MAX_JSON_DIGITS else no_constant(digits)

    try:
        return json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_constant=no_constant if finite else None,
            parse_float=finite_float if finite else None,
            parse_int=whole,
        )
    except json.JSONDecodeError as cause:
        raise error(
            f"{where} must be JSON, found {cause.msg} at line {cause.lineno}, column {cause.colno}; "
            "repair it or take it from a backup."
        ) from cause
    except RecursionError as cause:
        raise error(f"{where} must be JSON of ordinary depth, found thousands of nested levels.") from cause


def sha256_of_file(path: str | Path, *, error: type[ScratchLMError] = DataError) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as cause:
        raise error(f"{path} should be a readable file, got: {cause.strerror}; check the path.") from cause
    return digest.hexdigest()


def _fsync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _cannot_write(target: Path, cause: OSError, error: type[ScratchLMError]) -> ScratchLMError:
    return error(
        f"{target} could not be written: {cause.strerror or cause}; what was there is untouched. Free some space or "
        "choose another folder."
    )
