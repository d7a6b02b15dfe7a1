"""The logs of a run folder, one JSON record per line: `metrics.jsonl` and `samples.jsonl`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError, writing_advice
from scratchlm.core.files import read_bytes, write_text
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.progress import Progress

logger = logging.getLogger(__name__)


class History:
    """An append-only log of records, each with a `step`, that can be truncated after a step.

    A killed process can leave an incomplete line, even an incomplete character, and a power failure a
    sequence of zero bytes; such lines are ignored at any position.
    Raises: DataError when the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record to the file immediately, on a separate line."""
        line = json.dumps(dict(record), ensure_ascii=False).encode() + b"\n"
        try:
            with self.path.open("ab+") as file:
                if file.tell() > 0:
                    file.seek(-1, 2)
                    line = line if file.read(1) == b"\n" else b"\n" + line  # after an incomplete line
                file.write(line)
        except OSError as cause:
            raise DataError(
                f"{self.path} cannot be appended to: {cause.strerror}; {writing_advice(cause)}."
            ) from cause

    def records(self) -> list[dict[str, Any]]:
        """All complete records, in order; other lines are ignored, with a warning except for the last."""
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
            elif number < len(lines):  # an incomplete last line was being written
                torn.append(number)
        if torn:
            logger.warning(
                "%s: line %d is not a complete record (%d in all), left out", self.path, torn[0], len(torn)
            )
        return records

    def truncate_after(
        self, step: int, *, keep: Callable[[dict[str, Any]], bool] = lambda record: True
    ) -> None:
        """Delete the records after a step, and those that `keep` rejects: a resumed run writes them again."""
        if self.path.exists():
            kept = [record for record in self.records() if record["step"] <= step and keep(record)]
            write_text(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))


class RunLog(Callback):
    """A callback that writes steps and evaluations to `metrics.jsonl` and text samples to `samples.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self.metrics, self.samples = History(folder / "metrics.jsonl"), History(folder / "samples.jsonl")

    @classmethod
    def begin(cls, folder: Path, resumed: Progress | None) -> RunLog:
        """The log of a run that is new, so that its folder has none, or that was resumed."""
        log = cls(folder)
        log.truncate_after(resumed or Progress(step=-1))
        return log

    def truncate_after(self, progress: Progress) -> None:
        """Delete the records that the run wrote after this point."""
        self.metrics.truncate_after(
            progress.step,
            keep=lambda r: r.get("kind") in ("step", "skipped") or r["step"] <= progress.evaluated_step,
        )
        self.samples.truncate_after(progress.sampled_step)

    def on_step(self, record: StepRecord) -> None:
        """Add a line to the metrics."""
        self.metrics.append({"kind": "step", **asdict(record)})

    def on_skipped_step(self, step: int, reason: str) -> None:
        """Add a line to the metrics."""
        self.metrics.append({"kind": "skipped", "step": step, "reason": reason})

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Add a line to the metrics."""
        self.metrics.append({"kind": "evaluation", "step": step, **metrics})

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Add a line to the samples."""
        self.samples.append({"step": step, "prompt": prompt, "text": text})

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Nothing is written for a checkpoint."""
