"""The result file of `evaluate judge`: JSON lines that are appended during the run and sorted at the end.

The first line is a header with judge, protocol and answers. During the run, each reply is appended and flushed to disk
before the next question. At the end the whole file is rewritten in the order of the answers: header, a line for each
item with its texts, status, score and replies, a line for each control, and the result. It contains neither times nor
the order of arrival, so a killed and resumed run produces the same bytes as an uninterrupted one.

Scores are always recomputed from the replies, so a resumed run reads only the replies from the file.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from scratchlm.core.atomic_replace import fsync_folder, remove_partials
from scratchlm.core.errors import ConfigError, DataError, writing_advice
from scratchlm.core.files import parse_json, read_bytes, write_text
from scratchlm.core.run_lock import is_at, lock_file

FORMAT = "scratchlm judge 1"


@dataclass(frozen=True, kw_only=True)
class Header:
    """Judge, protocol, prompt and answers, which identify the judgement that a result file belongs to."""

    judge: str
    identity: str
    protocol: str
    prompt_sha256: str
    answers_sha256: str
    n_items: int

    def record(self) -> dict[str, Any]:
        """The values for the file's first line."""
        return {"kind": "header", "format": FORMAT, **asdict(self)}


class Journal:
    """The file during the run (a context manager); thread-safe, and a line is on disk when `add` returns."""

    def __init__(self, path: Path, header: Header) -> None:
        """Create the file, or resume that of a killed run; an incomplete last line is removed.

        Raises: ConfigError for a file of another judgement, another kind of file, or one in use by another run;
            DataError for a damaged file.
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
        """Append a reply."""
        self._append({"kind": "reply", "call": key, "reply": reply})
        self._has_replies = True

    def finish(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace the journal with the finished, sorted file."""
        self.close()
        write_text(self._path, "".join(json_line(record) for record in records))

    def close(self) -> None:
        """Stop appending, and keep the lines so far."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is not None and not self._has_replies:
            self._path.unlink(missing_ok=True)  # the file has only the header

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._lock:
            if self._file.closed:  # the run was stopped before this reply arrived
                return
            try:
                self._file.write(json_line(record).encode())
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as cause:
                raise DataError(
                    f"{self._path} cannot be written: {cause.strerror}; {writing_advice(cause)}, and run the "
                    "command again, which resumes there."
                ) from cause


def json_line(record: Mapping[str, Any]) -> str:
    """Format a record as one line; a lone surrogate, which UTF-8 cannot encode, becomes a JSON escape."""
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(record, allow_nan=False)
    return line + "\n"


def read_whole_lines(path: Path) -> list[dict[str, Any]]:
    """Read the records of a result file; an incomplete last line is ignored.

    Raises: ConfigError for another kind of file; DataError for a damaged line.
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
    start = content[:9].decode("latin-1")
    if not records and start and not json_line({"kind": "header"}).startswith(start):
        raise _not_ours(path)
    return records


def replies_of(records: Iterable[Mapping[str, Any]], path: Path) -> dict[str, str]:
    """Read the key and text of each reply in the file of an unfinished or finished run.

    Raises: DataError for a line with malformed replies.
    """
    replies: dict[str, str] = {}
    for number, record in enumerate(records, start=1):
        lines = [record] if record.get("kind") == "reply" else record.get("replies", [])
        if not isinstance(lines, list) or not all(map(_is_reply, lines)):
            raise DataError(
                f"{path} line {number} must hold replies with 'call' and 'reply', got {lines!r:.60}; remove that line."
            )
        replies |= {line["call"]: line["reply"] for line in lines}
    return replies


def _is_reply(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("call"), str) and isinstance(line.get("reply"), str)


def check_same(record: Mapping[str, Any], header: Header, path: Path) -> None:
    """Check that a file's header is that of this judgement, except the judge's name, which may contain another path.

    Raises: ConfigError naming what differs.
    """
    for key, value in header.record().items():
        if key != "judge" and record.get(key) != value:
            raise ConfigError(
                f"{path} belongs to another judgement: its {key.replace('_', ' ')} is {record.get(key)!r:.400}, not "
                f"{value!r:.400}; choose another --out, or start over with --fresh."
            )


def remove_results(path: Path) -> None:
    """Delete an earlier result file.

    Raises: ConfigError for another kind of file, or one in use by another run, without deleting it.
    """
    if path.exists():
        with _open_alone(path):
            read_whole_lines(path)
        path.unlink()


def _open_alone(path: Path) -> BinaryIO:
    """Open the file for appending, locked against other processes if the file system supports it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as cause:
        raise DataError(f"{path} cannot be written: {cause.strerror}; choose another --out.") from cause
    if not lock_file(file.fileno()):
        file.close()
        raise ConfigError(f"{path} is in use by another run; wait until it ends, or choose another --out.")
    if is_at(file.fileno(), path):
        return file
    file.close()  # another run replaced it between open and lock
    return _open_alone(path)


def _whole_size(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def _not_ours(path: Path) -> ConfigError:
    return ConfigError(f"{path} is not a result file of `evaluate judge`; choose another --out.")
