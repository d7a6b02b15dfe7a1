"""`scratchlm evaluate task`: a benchmark file, scored without a judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.progress import work_progress
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import write_text
from scratchlm.evaluation.loss import say_perplexity
from scratchlm.evaluation.task_items import (
    ChoiceItem,
    ClozeItem,
    GenerationItem,
    TaskKind,
    read_task_items,
)
from scratchlm.evaluation.tasks import Measure, TaskResult, score_choices, score_cloze, score_generation
from scratchlm.generation.config import GenerationConfig
from scratchlm.serving.language_model import load
from scratchlm.tokenizers.word import loses_text

IN_WORDS: dict[Measure, str] = {
    "accuracy": "right",
    "accuracy_characters": "right by log probability per character",
    "accuracy_bytes": "right by log probability per byte",
    "accuracy_folded": "right when case and outer punctuation are forgiven",
    "accuracy_strict": "right and written behind ####",
}


@dataclass(frozen=True, kw_only=True)
class EvaluateTask(Common):
    """Accuracy on a benchmark file, with its 95 % interval and the level of chance.

    cloze: {"text"}, the last word is asked for, as in LAMBADA. choice: as in HellaSwag {"ctx", "endings", "label"}, as
    in ARC {"question", "choices": {"text", "label"}, "answerKey"}, or {"prompt", "choices": [...], "answer"}.
    generation: {"prompt", "answer"}, the likeliest continuation must be the answer; of a number, or of a solution that
    ends in "#### NUMBER" as GSM8K's, only the final number is compared.

    Example: scratchlm evaluate task --model runs/books --data hellaswag.jsonl --limit 500
    """

    model: Path | None = None  # a model folder or run folder
    data: Path | None = None  # a .jsonl file, one question a line, or a .json list
    kind: Literal["auto", "cloze", "choice", "generation"] = "auto"  # auto: as the first question looks
    limit: int | None = None  # only so many questions, from the beginning
    batch_size: int = 16  # texts at a time; changes the speed only
    max_new_tokens: int | None = None  # of a generation task; None = 64, for numbers 256 or half the context
    stop: tuple[str, ...] | None = (
        None  # texts that end an answer; None = end of line, for numbers "Question:"
    )
    out: Path | None = None  # write what was done with each question here, one JSON object a line

    def __post_init__(self) -> None:
        check_at_least(1, limit=self.limit, batch_size=self.batch_size, max_new_tokens=self.max_new_tokens)
        GenerationConfig(stop_texts=self.stop or ())


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(EvaluateTask, _act, args, prog=prog)


def _act(command: EvaluateTask, console: Console) -> dict[str, Any]:
    """Score and print; returns the `--json` keys."""
    if command.model is None or command.data is None:
        missing = "--model" if command.model is None else "--data"
        raise ConfigError(f"evaluate task needs a model and a file of questions, found no {missing}.")
    lm = load(command.model, device=command.device)
    lm.check_writes("evaluate task")
    kind, items = read_task_items(
        command.data, kind=None if command.kind == "auto" else command.kind, limit=command.limit
    )
    if loses_text(lm.tokenizer):
        told = "this vocabulary of words takes all words that it does not know for one: read the figures with care"
        console.print(told, markup=False, soft_wrap=True)
    with work_progress(console)(f"{kind} questions") as report:
        settings: dict[str, Any] = {"batch_size": command.batch_size, "progress": report}
        if kind == "cloze":
            result = score_cloze(lm.model, lm.tokenizer, cast("list[ClozeItem]", items), **settings)
        elif kind == "choice":
            result = score_choices(lm.model, lm.tokenizer, cast("list[ChoiceItem]", items), **settings)
        else:
            settings |= {"max_new_tokens": command.max_new_tokens, "stop_texts": command.stop}
            settings["stop_ids"] = lm.stop_ids
            result = score_generation(lm.model, lm.tokenizer, cast("list[GenerationItem]", items), **settings)
    if command.out is not None:
        write_text(command.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.items))
    if not command.json:
        _show(kind, result)
    low, high = result.interval()
    return {
        "kind": kind,
        "n": result.n,
        **{measure: result.share(measure) for measure in result.rights},
        "low": low,
        "high": high,
        "intervals": {measure: list(result.interval(measure)) for measure in result.rights},
        "chance": result.chance,
        "perplexity": result.perplexity,
        "perplexity_interval": result.perplexity_interval and list(result.perplexity_interval),
        "cropped": result.n_cropped,
    }


def _show(kind: TaskKind, result: TaskResult) -> None:
    print(f"{kind}, {_questions(result.n)}")
    chance = "" if result.chance is None else f"; chance is {result.chance:.1%}"
    for measure in result.rights:
        low, high = result.interval(measure)
        told = f"{result.share(measure):.1%} {IN_WORDS[measure]}"
        print(f"  {told} (95 % interval {low:.1%} to {high:.1%}{chance})")
    if result.perplexity is not None:
        sure = "too few questions for an interval"
        if result.perplexity_interval is not None:
            sure = "95 % interval {} to {}".format(*map(say_perplexity, result.perplexity_interval))
        print(f"  perplexity {say_perplexity(result.perplexity)} per word asked for ({sure})")
    if result.n_cropped:
        print(f"  {_questions(result.n_cropped)} longer than the model reads: what stands first was cut off")


def _questions(n: int) -> str:
    return f"{n:,} question{'' if n == 1 else 's'}"
