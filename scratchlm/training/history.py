"""What happened, a line each: `metrics.jsonl` and `samples.jsonl` of a run folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.files import read_bytes, write_text

logger = logging.getLogger(__name__)


class History:
    """An append-only log of records, each with a `step`, that can be truncated after a step.

    A killed process can leave half a line, cut inside a character, and a machine that lost power a run of zero bytes:
    such lines are left out, wherever they stand.
    Raises: DataError when the file may not be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it reaches the file at once, on a line of its own."""
        line = json.dumps(dict(record), ensure_ascii=False).encode() + b"\n"
        try:
            with self.path.open("ab+") as file:
                if file.tell() > 0:
                    file.seek(-1, 2)
                    line = line if file.read(1) == b"\n" else b"\n" + line  # after what a killed writer left
                file.write(line)
        except OSError as cause:
            raise DataError(
                f"{self.path} could not take another line: {cause.strerror}; free some space."
            ) from cause

    def records(self) -> list[dict[str, Any]]:
        """All whole records, in order; what is not one is left out, with a warning unless it is the last line."""
        if not self.path.exists():
            return []
        records, torn = [], []
        lines = read_bytes(self.path).split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not (content := line.strip(b"\0 \r")):
                continue
            try:
                record = json.loads(content)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
            elif number < len(lines):  # a last line without its end was being written
                torn.append(number)
        if torn:
            logger.warning(
                "%s: line %d is no whole record (%d in all), left out", self.path, torn[0], len(torn)
            )
        return records

    def truncate_after(
        self, step: int, *, keep: Callable[[dict[str, Any]], bool] = lambda record: True
    ) -> None:
        """Forget what came after a step, and what `keep` does not want: a resumed run writes it again."""
        if self.path.exists():
            kept = [record for record in self.records() if record["step"] <= step and keep(record)]
            write_text(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
