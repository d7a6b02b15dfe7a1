"""`scratchlm evaluate task`: score a benchmark file without a judge."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console

from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.cli.progress import work_progress
from scratchlm.core.config import check_at_least
from scratchlm.core.files import write_text
from scratchlm.evaluation.loss import format_perplexity
from scratchlm.evaluation.task_items import ChoiceItem, ClozeItem, GenerationItem, TaskKind, read_task_items
from scratchlm.evaluation.tasks import Measure, TaskResult, score_choices, score_cloze, score_generation
from scratchlm.generation.config import GenerationConfig
from scratchlm.serving.language_model import load
from scratchlm.tokenizers.word import loses_text

DESCRIPTIONS: dict[Measure, str] = {
    "accuracy": "correct",
    "accuracy_characters": "correct by log probability per character",
    "accuracy_bytes": "correct by log probability per byte",
    "accuracy_folded": "correct without regard to case and outer punctuation",
    "accuracy_strict": "correct and written after ####",
}


@dataclass(frozen=True, kw_only=True)
class EvaluateTask(Common):
    """Accuracy on a benchmark file, with its 95 % interval and the accuracy of guessing.

    cloze: {"text"}, the model predicts the last word, as in LAMBADA. choice: as in HellaSwag {"ctx", "endings",
    "label"}, as in ARC {"question", "choices": {"text", "label"}, "answerKey"}, or {"prompt", "choices": [...],
    "answer"}. generation: {"prompt", "answer"}, the greedy continuation must be the answer; if the answer is a number,
    or a solution that ends in "#### NUMBER" (GSM8K), only the final number is compared.

    Example: scratchlm evaluate task --model runs/books --data hellaswag.jsonl --limit 500
    """

    model: Path | None = None  # a model folder or run folder
    data: Path | None = None  # a .jsonl file, one question per line, or a .json list
    kind: Literal["auto", "cloze", "choice", "generation"] = "auto"  # auto: decided by the first question
    limit: int | None = None  # maximum number of questions, from the beginning
    batch_size: int = 16  # texts at a time; changes the speed only
    max_new_tokens: int | None = None  # of a generation task; None = 64, for numbers 256 or half the context
    stop: tuple[str, ...] | None = None  # texts that end an answer; None = line end, for numbers "Question:"
    out: Path | None = None  # write the outcome of each question to this file, one JSON object per line

    def __post_init__(self) -> None:
        check_at_least(1, limit=self.limit, batch_size=self.batch_size, max_new_tokens=self.max_new_tokens)
        GenerationConfig(stop_texts=self.stop or ())


@command_line(EvaluateTask)
def main(command: EvaluateTask, console: Console) -> dict[str, Any]:
    """Score the questions and print the result; returns the `--json` keys."""
    model, data = required(command, "evaluate task needs a model and a file of questions", "model", "data")
    lm = load(model, device=command.device)
    lm.check_generates("evaluate task")
    wanted = None if command.kind == "auto" else command.kind
    kind, items = read_task_items(data, kind=wanted, limit=command.limit)
    if loses_text(lm.tokenizer):
        note = "note: this tokenizer maps all words outside its vocabulary to one token, so the figures may mislead"
        console.print(note)
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
    chance = "" if result.chance is None else f"; guessing gives {result.chance:.1%}"
    for measure in result.rights:
        low, high = result.interval(measure)
        share = f"{result.share(measure):.1%} {DESCRIPTIONS[measure]}"
        print(f"  {share} (95 % interval {low:.1%} to {high:.1%}{chance})")
    if result.perplexity is not None:
        interval = "too few questions for an interval"
        if result.perplexity_interval is not None:
            interval = "95 % interval {} to {}".format(*map(format_perplexity, result.perplexity_interval))
        print(f"  perplexity {format_perplexity(result.perplexity)} per target word ({interval})")
    if result.n_cropped:
        print(f"  {_questions(result.n_cropped)} longer than the context: the beginning was cut off")


def _questions(n: int) -> str:
    return f"{n:,} question{'' if n == 1 else 's'}"
