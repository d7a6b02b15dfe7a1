"""Write files and folders atomically, and read text and JSON with error messages that locate the fault.

A writer fills a hidden file or folder beside its target, flushes it to disk (fsync), then gives it the target's name:
at any time the target is either the old version or the new one. Nothing here unpickles or executes anything.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from scratchlm.core.atomic_replace import (
    discard,
    finish_files,
    fsync_folder,
    partial_beside,
    place_files,
    replace_folder,
)
from scratchlm.core.errors import DataError, ScratchLMError, writing_advice
from scratchlm.core.file_kinds import BINARY, foreign_kind, not_text

MAX_SETTINGS_BYTES = 4 << 20  # of JSON with settings or metrics; the index of a 405B model has 0.1 MB
MAX_TOKENIZER_BYTES = 24 << 20  # Llama 3's tokenizer.json has 17 MB and about a million values
MAX_JSON_KEYS = 262_144  # of such a file: Llama 3 has 128,256 tokens, Qwen 3 151,936
MAX_JSON_DIGITS = 300  # of an integer; Python rejects more than 4,300, and is slow well below that


def write_bytes(path: str | Path, data: bytes, *, error: type[ScratchLMError] = DataError) -> None:
    """Write a file atomically.

    Raises: `error` when the disk is full, or the folder is missing or not writable.
    """
    with new_file(path, error=error) as partial:
        partial.write_bytes(data)


def write_text(path: str | Path, text: str, *, error: type[ScratchLMError] = DataError) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"), error=error)


def write_json(path: str | Path, value: Any, *, error: type[ScratchLMError] = DataError) -> None:
    """Write indented JSON atomically; NaN and infinity are rejected."""
    write_text(path, as_json(value), error=error)


def as_json(value: Any) -> str:
    """Format as indented JSON; NaN and infinity are rejected."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def make_parent(path: str | Path, *, error: type[ScratchLMError] = DataError) -> None:
    """Create the parent folder of a file or folder, and the folders above it.

    Raises: `error` when that is not possible.
    """
    parent = Path(path).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise error(
            f"{parent} is not a writable folder: {cause.strerror or cause}; choose another."
        ) from cause


@contextlib.contextmanager
def new_file(path: str | Path, *, error: type[ScratchLMError] = DataError) -> Iterator[Path]:
    """Write a file atomically with a writer that needs a path: yields a hidden path to write to.

    When the block succeeds, the file is renamed to the target; when it raises, the target is unchanged.
    Raises: `error` when the disk is full, or the folder is missing or not writable.
    """
    with _new(Path(path), place=_replace_file, error=error) as partial:
        yield partial


@contextlib.contextmanager
def new_folder(path: str | Path, *, error: type[ScratchLMError] = DataError) -> Iterator[Path]:
    """Write a folder atomically: yields a hidden folder to fill, which then replaces an older one.

    When the block raises, the target is unchanged. If target is a link, the linked folder is replaced.
    Raises: `error` when the disk is full or the parent is not writable.
    """
    target = Path(path).resolve() if Path(path).is_symlink() else Path(path)
    make_parent(target, error=error)
    with _new(target, place=replace_folder, error=error) as partial:
        partial.mkdir()
        yield partial


@contextlib.contextmanager
def new_files(path: str | Path, *, error: type[ScratchLMError] = DataError) -> Iterator[Path]:
    """Write a file and others beside it atomically: yields the hidden folder to fill with all of them.

    When the block raises, nothing is changed.
    Raises: `error` when the disk is full or the parent is not writable.
    """
    target = Path(path)
    make_parent(target, error=error)
    with _new(target, place=place_files, error=error) as partial:
        finish_files(target)
        partial.mkdir()
        yield partial


@contextlib.contextmanager
def _new(target: Path, *, place: Callable[[Path, Path], None], error: type[ScratchLMError]) -> Iterator[Path]:
    """Yield a hidden path beside target; its content is then flushed to disk and moved into place."""
    with partial_beside(target) as partial:
        discard(partial)
        try:
            yield partial
            for inside in partial.rglob("*"):
                fsync_folder(inside) if inside.is_dir() else _fsync_file(inside)
            fsync_folder(partial) if partial.is_dir() else _fsync_file(partial)
            place(partial, target)
        except OSError as cause:
            discard(partial)
            raise error(
                f"{target} could not be written: {cause.strerror or cause}; what was there is unchanged. "
                f"{writing_advice(cause).capitalize()}."
            ) from cause
        except BaseException:
            discard(partial)
            raise


def _replace_file(new: Path, target: Path) -> None:
    new.replace(target)
    fsync_folder(target.parent)


def _fsync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_replaceable(
    folder: str | Path,
    names: Collection[str],
    *,
    kind: str,
    marks: Collection[str] = (),
    error: type[ScratchLMError] = DataError,
) -> None:
    """Refuse to replace a folder that holds files of other names, which may be the user's.

    A path that does not exist and an empty folder are accepted. `kind` describes the expected folder in the
    message; it must have at least one of the files `marks`.
    Raises: `error` naming what else is in it, or when it is not a folder.
    """
    target = Path(folder)
    if not target.exists() and not target.is_symlink():
        return
    held = sorted(target.iterdir()) if target.is_dir() else None
    others = [path.name for path in held or () if path.name not in names or path.is_dir()]
    lacks_mark = bool(held and marks) and not any((target / mark).is_file() for mark in marks)
    if others or held is None or lacks_mark:
        found = f" holds other files ({', '.join(others[:3])!s:.120})" if others else " is something else"
        raise error(f"{target} cannot become the {kind}, since it{found}; choose another name.")


def read_utf8(
    path: str | Path, *, max_bytes: int | None = None, error: type[ScratchLMError] = DataError
) -> str:
    """Read a UTF-8 file, without a byte-order mark at its start; line ends are unchanged.

    Raises: `error` naming the file and the byte offset of the first fault, and when it is larger than max_bytes.
    """
    data = read_bytes(path, max_bytes=max_bytes, error=error)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        kind = foreign_kind(data)
        if kind is not None:
            advice = "save it as UTF-8" if kind.startswith(("text in", BINARY)) else not_text(kind)
            raise error(f"{path} is {kind}, not UTF-8 text; {advice}.") from cause
        raise error(
            f"{path} is not UTF-8 text: byte 0x{data[cause.start]:02x} at byte offset {cause.start} "
            f"({cause.reason}); save it as UTF-8."
        ) from cause


def check_characters(text: str, *, where: str) -> str:
    """Return the text unchanged if a text file can hold it: JSON can spell half a surrogate pair, and NUL.

    Raises: DataError naming the position.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise DataError(
            f"{where} is not valid Unicode: a lone surrogate at character {cause.start}; repair it."
        ) from cause
    if "\0" in text:
        raise DataError(f"{where} holds a NUL character at {text.index(chr(0))}; remove it.")
    return text


def read_bytes(
    path: str | Path, *, max_bytes: int | None = None, error: type[ScratchLMError] = DataError
) -> bytes:
    """Read a whole file.

    Raises: `error` when it is missing, a folder, not readable, or larger than max_bytes.
    """
    try:
        size_bytes = Path(path).stat().st_size
        if max_bytes is not None and size_bytes > max_bytes:
            raise error(
                f"{path} has {size_bytes:,} bytes, more than the {max_bytes:,} that such a file can have; "
                "restore it from another copy."
            )
        return Path(path).read_bytes()
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror}; check the path.") from cause


def read_json(
    path: str | Path, *, max_bytes: int | None = MAX_SETTINGS_BYTES, error: type[ScratchLMError] = DataError
) -> Any:
    """Read a JSON file; NaN, repeated keys and very deep nesting are rejected.

    max_bytes: a larger file is rejected, and one with more than one value per 20 of these bytes, since a few
        characters can take a hundred bytes of memory. None for the user's own data.
    Raises: `error` naming the file and, where known, line and column.
    """
    text = read_utf8(path, max_bytes=max_bytes, error=error)
    if max_bytes is not None:
        n_values = text.count(",") + text.count("{") + text.count("[")  # at least the actual number
        n_keys = text.count(":")  # likewise
        max_keys = min(MAX_JSON_KEYS, max_bytes // 26)  # a key takes 220 bytes while it is read
        if n_values > max_bytes // 20 or n_keys > max_keys:
            raise error(
                f"{path} holds about {n_values:,} values and {n_keys:,} keys, more than the {max_bytes // 20:,} values "
                f"and {max_keys:,} keys that such a file can have; restore it from another copy."
            )
    return parse_json(text, where=str(path), error=error)


def parse_json(text: str, *, where: str, finite: bool = True, error: type[ScratchLMError] = DataError) -> Any:
    """Parse JSON as strictly as `read_json`; `where` names its origin in messages.

    finite=False allows NaN and infinity, which pandas writes for missing values.
    """

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in pairs:
            if key in value:
                raise error(f"{where} has the key {key!r:.100} twice; remove one of them.")
            value[key] = item
        return value

    def no_constant(name: str) -> Any:
        raise error(f"{where} must hold finite numbers, got {name:.40}; restore it from another copy.")

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
            f"{where} is not valid JSON: {cause.msg} at line {cause.lineno}, column {cause.colno}; "
            "repair it or restore it from another copy."
        ) from cause
    except RecursionError as cause:
        raise error(f"{where} is nested too deeply; restore it from another copy.") from cause
