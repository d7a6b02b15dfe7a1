"""Show training progress: a live bar in a terminal, otherwise one line per evaluation."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from scratchlm.assets.known_datasets import Asset
from scratchlm.core.protocols import ShowsProgress
from scratchlm.training.callbacks import Callback, StepRecord

SPEED_MEMORY = 0.9  # weight of earlier steps in the displayed speed


def work_progress(console: Console) -> ShowsProgress:
    """A progress bar for tasks such as tokenising, shown only in a terminal and removed at the end."""

    @contextmanager
    def show(what: str, /) -> Iterator[Callable[[int, int], None]]:
        with _bar(console, TaskProgressColumn(), transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(what, total=None)  # animated until the total is known
            yield lambda done, total: bar.update(task, completed=done, total=total)

    return show


def _bar(console: Console, *middle: ProgressColumn, **options: bool) -> Progress:
    words = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), words, BarColumn(bar_width=24), *middle, TimeRemainingColumn())
    return Progress(*columns, console=console, **options)  # type: ignore[arg-type]


@contextmanager
def download_bar(console: Console, asset: Asset) -> Iterator[Callable[[int, int | None], None]]:
    """A bar with the size and speed of one download; the function updates it with the bytes so far and their total."""
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(escape(asset.id), total=asset.size_bytes)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class TrainingProgress(Callback):
    """A callback that shows stage, first step after resuming, loss, speed, remaining time and memory.

    `name` is the stage, such as `[1/3] pretrain`; `close` stops the bar.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._is_live = console.is_terminal
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._n_steps: int | None = None
        self._tokens_per_s: float | None = None
        self._last: StepRecord | None = None
        self._val = ""

    def on_step(self, record: StepRecord) -> None:
        """Update the bar."""
        earlier = record.tokens_per_s if self._tokens_per_s is None else self._tokens_per_s
        self._tokens_per_s = SPEED_MEMORY * earlier + (1 - SPEED_MEMORY) * record.tokens_per_s
        if record.step > 1 and (self._last is None or record.step <= self._last.step):  # a first step
            self._console.print(f"{self._name}: resuming from step {record.step - 1}")
        self._last = record
        if not self._is_live:
            return
        if self._bar is None:
            status = TextColumn("{task.fields[status]}", markup=False)
            self._bar = _bar(self._console, TextColumn("{task.completed}/{task.total}"), status)
            self._task = self._bar.add_task(self._name, total=record.n_steps, status="")
            self._bar.start()
        self._bar.update(self._task, completed=record.step, total=record.n_steps, status=self._status(record))

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Show the validation metrics."""
        if self._last is not None and step < self._last.step:  # another training run has started
            self._last = self._tokens_per_s = None
        self._val = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())
        if not self._is_live:
            record = self._last
            status = "" if record is None else f"  {self._status(record)}"
            of = "" if record is None or record.n_steps is None else f"/{record.n_steps}"
            shown = status if self._val in status else f"  {self._val}"
            self._console.print(f"{self._name}: step {step}{of}{shown}")

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Show a text sample."""
        shown = re.sub(r"\s+", " ", text)
        shown = shown if len(shown) <= 160 else f"{shown[:160]}..."
        self._console.print(Text.assemble((f"step {step}:", "dim"), " ", (prompt, "bold"), shown))

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _status(self, record: StepRecord) -> str:
        speed = f"{self._tokens_per_s or 0:,.0f} tokens/s"
        memory = f"{record.memory_bytes / 2**30:.2f} GiB"
        val = f"  {self._val}" if self._val else ""
        return f"loss {record.train_loss:.3f}{val}  {speed}  {memory}"
