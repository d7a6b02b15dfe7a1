"""The file of a judgement: JSON lines that grow while the judge replies, and are put in order at the end.

First a header that says who judged what and how. While the run goes on, a line for each reply, on the disk before the
next question. At the end the whole file is written anew, in the order of the answers: header, a line for each item
with its texts, status, score and the judge's words, a line for each control, and the result. Neither time nor order of
arrival stands in it, so a run that was killed ends with the same bytes as one that was not.

Scores are worked out from the replies each time, so what a file holds of an earlier run is its replies alone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import parse_json, read_bytes, write_text
from scratchlm.core.partials import fsync_folder, remove_partials

if sys.platform != "win32":
    import fcntl

FORMAT = "scratchlm judge 1"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file of results is about: a file with another header belongs to another judgement."""

    judge: str
    identity: str
    protocol: str
    prompt_sha256: str
    answers_sha256: str
    n_items: int

    def record(self) -> dict[str, Any]:
        """As the file's first line."""
        return {
            "kind": "header",
            "format": FORMAT,
            "judge": self.judge,
            "identity": self.identity,
            "protocol": self.protocol,
            "prompt_sha256": self.prompt_sha256,
            "answers_sha256": self.answers_sha256,
            "n_items": self.n_items,
        }


class Journal:
    """The file while it grows: any thread adds lines, each on the disk when `add` returns; a context manager."""

    def __init__(self, path: Path, header: Header) -> None:
        """Begin the file, or go on with what a killed run left, without half a last line.

        Raises: ConfigError for a file of another judgement, of something else, or that another run is writing;
            DataError for a damaged one.
        """
        self._path = path
        self._lock = threading.Lock()
        self._file = _open_alone(path)
        try:
            records = read_whole_lines(path)
            if records:
                check_same(records[0], header, path)
            self.known = replies_of(records, path)
            self._has_replies = len(records) > 1
            os.truncate(path, _whole_size(read_bytes(path)) if records else 0)
        except BaseException:
            self._file.close()
            raise
        remove_partials(path.parent, of=path.name)
        if not records:
            self._append(header.record())
            fsync_folder(path.parent)

    def add(self, key: str, reply: str) -> None:
        """Keep a reply."""
        self._append({"kind": "reply", "call": key, "reply": reply})
        self._has_replies = True

    def finish(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the whole file anew, in order, and close it."""
        self.close()
        write_text(self._path, "".join(json_line(record) for record in records))

    def close(self) -> None:
        """Keep what is there."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is not None and not self._has_replies:
            self._path.unlink(missing_ok=True)  # a file that says nothing yet

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._lock:
            if self._file.closed:  # the run was stopped while this reply was under way
                return
            try:
                self._file.write(json_line(record).encode())
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as cause:
                raise DataError(
                    f"{self._path} should take another line, got: {cause.strerror}; free some space and start again, "
                    "it goes on from there."
                ) from cause


def json_line(record: Mapping[str, Any]) -> str:
    """A record as one line; half a surrogate pair, which no file can hold, is kept in JSON's own spelling."""
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(record, allow_nan=False)
    return line + "\n"


def read_whole_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of results; half a last line is left out.

    Raises: ConfigError for a file of something else; DataError for a damaged line.
    """
    content = read_bytes(path)
    text = content[: _whole_size(content)].decode("utf-8", errors="surrogateescape")
    records = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            record = parse_json(line, where=f"{path} line {number}")
        except DataError:
            if number == 1:
                raise _not_ours(path) from None
            raise
        if not isinstance(record, dict) or (number == 1 and record.get("format") != FORMAT):
            raise _not_ours(path)
        records.append(record)
    if (
        not records
        and content
        and not json_line({"kind": "header"}).startswith(content[:9].decode("latin-1"))
    ):
        raise _not_ours(path)
    return records


def replies_of(records: Iterable[Mapping[str, Any]], path: Path) -> dict[str, str]:
    """Key and text of each reply that a file holds, from an unfinished run and from a finished one.

    Raises: DataError for a line that is neither.
    """
    replies: dict[str, str] = {}
    for number, record in enumerate(records, start=1):
        lines = [record] if record.get("kind") == "reply" else record.get("replies", [])
        if not isinstance(lines, list) or not all(map(_is_reply, lines)):
            raise DataError(
                f"{path} line {number} must hold replies with their call, found {lines!r:.60}; remove that line."
            )
        replies |= {line["call"]: line["reply"] for line in lines}
    return replies


def _is_reply(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("call"), str) and isinstance(line.get("reply"), str)


def check_same(record: Mapping[str, Any], header: Header, path: Path) -> None:
    """Is it the same judgement? The judge is known by its identity; its name may be another path to the same model.

    Raises: ConfigError naming what differs.
    """
    expected = header.record()
    for key, value in expected.items():
        if key != "judge" and record.get(key) != value:
            raise ConfigError(
                f"{path} should be of the same judgement, found {key.replace('_', ' ')} {record.get(key)!r:.400} "
                f"where this one has {value!r:.400}; name another --out, or say --fresh to begin anew."
            )


def remove_results(path: Path) -> None:
    """Forget an earlier judgement.

    Raises: ConfigError for a file of something else, or that another run is writing; both are left alone.
    """
    if path.exists():
        with _open_alone(path):
            read_whole_lines(path)
        path.unlink()


def _open_alone(path: Path) -> BinaryIO:
    """The file, to be added to; no other process has it, where the system knows locks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as cause:
        raise DataError(f"{path} should be writable, got: {cause.strerror}; choose another --out.") from cause
    if sys.platform == "win32":
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        file.close()
        raise ConfigError(
            f"{path} should be ours to write, found another run at it; wait for its end, or name another --out."
        ) from cause
    except OSError:  # a file system without locks
        return file
    if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return file
    file.close()  # between open and lock another run finished it
    return _open_alone(path)


def _whole_size(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def _not_ours(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} should be a file of `evaluate judge`, found something else; name another --out."
    )
