"""`scratchlm evaluate harness`: the tasks of EleutherAI's lm-evaluation-harness."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.progress import work_progress
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.evaluation.harness import run_harness
from scratchlm.serving.language_model import load


@dataclass(frozen=True, kw_only=True)
class EvaluateHarness(Common):
    """Scores of a model on tasks of lm-evaluation-harness, which is optional: pip install 'scratchlm[harness]'.

    Its tasks fetch their data from the Hugging Face hub at first use, unless they are yours.

    Example: scratchlm evaluate harness --model runs/books --tasks arc_easy hellaswag --limit 200
    """

    model: Path | None = None  # a model folder or run folder
    tasks: tuple[str, ...] = ()  # names, patterns such as "blimp_*", groups, or .yaml files
    include_path: Path | None = None  # a folder with tasks of your own
    limit: int | None = None  # only so many questions of each task
    fewshot: int | None = None  # solved examples before each question; default: what the task says
    batch_size: int = 16  # texts at a time; changes the speed only

    def __post_init__(self) -> None:
        check_at_least(1, limit=self.limit, batch_size=self.batch_size)
        check_at_least(0, fewshot=self.fewshot)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(EvaluateHarness, _act, args, prog=prog)


def _act(command: EvaluateHarness, console: Console) -> dict[str, Any]:
    """Ask and print; returns the `--json` keys."""
    if command.model is None or not command.tasks:
        missing = "--model" if command.model is None else "--tasks"
        raise ConfigError(f"evaluate harness needs a model and tasks, found no {missing}.")
    lm = load(command.model, device=command.device)
    lm.check_writes("evaluate harness")
    with contextlib.redirect_stdout(sys.stderr):  # the harness prints, and standard output is for the result
        scores = run_harness(
            lm.model,
            lm.tokenizer,
            command.tasks,
            include_path=command.include_path,
            limit=command.limit,
            n_fewshot=command.fewshot,
            stop_ids=lm.stop_ids,
            batch_size=command.batch_size,
            show=work_progress(console),
        )
    if not command.json:
        for row in scores:
            error = "" if row.stderr is None else f" ± {row.stderr:.4f} (one standard error)"
            used = "" if row.filter == "none" else f", filter {row.filter}"
            value = "not a number" if row.value is None else f"{row.value:.4f}"
            print(f"{row.task}: {row.metric} {value}{error}, {row.n:,} questions{used}")
    return {"scores": [asdict(row) for row in scores]}
