"""What happened, a line each: `metrics.jsonl` and `samples.jsonl` of a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.files import read_utf8, write_text


class History:
    """An append-only log of records, each with a `step`, that can be wound back to a step.

    A killed process can leave half a last line; winding back drops it, and every record after the step.
    Raises: DataError when the file may not be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it reaches the file at once."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(record), ensure_ascii=False) + "\n")
        except OSError as cause:
            raise DataError(
                f"{self.path} should take another line, got: {cause.strerror}; free some space."
            ) from cause

    def records(self) -> list[dict[str, Any]]:
        """All whole records, in order; half a last line is left out."""
        if not self.path.exists():
            return []
        records = []
        lines = read_utf8(self.path).split("\n")
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                    raise DataError(
                        f"{self.path}, line {number} must be a record with a step; remove that line."
                    )
                records.append(record)
            except json.JSONDecodeError as cause:
                if number == len(lines):  # no line end: the writer was killed in the middle
                    break
                raise DataError(
                    f"{self.path}, line {number} must be JSON, found {cause.msg}; remove that line."
                ) from cause
        return records

    def wind_back(self, step: int, *, keep: Callable[[dict[str, Any]], bool] = lambda record: True) -> None:
        """Forget what came after a step, and what `keep` does not want: a resumed run writes it again."""
        if self.path.exists():
            kept = [record for record in self.records() if record["step"] <= step and keep(record)]
            write_text(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
