"""`scratchlm evaluate loss`: how surprised a model is by a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.progress import work_progress
from scratchlm.core.assets import cache_folder
from scratchlm.core.errors import ConfigError
from scratchlm.data.shards import prepare_tokens
from scratchlm.evaluation.loss import say_bits_per_byte, text_loss
from scratchlm.serving.language_model import load
from scratchlm.tokenizers.word import loses_text
from scratchlm.training.settings import resolve_texts


@dataclass(frozen=True, kw_only=True)
class EvaluateLoss(Common):
    """Loss, perplexity and bits per byte of a text, with a sliding window; every token is counted once.

    Example: scratchlm evaluate loss --model runs/books --data chapter.txt --stride 64
    """

    model: Path | None = None  # a model folder or run folder
    data: tuple[str, ...] = ()  # text files, folders, globs, or known names
    text_field: str = "text"  # where .jsonl and .parquet keep the text
    skip_bad_lines: bool = False  # count and report lines that do not parse, instead of stopping
    stride: int | None = None  # tokens between windows; default: half the context


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(EvaluateLoss, _act, args, prog=prog)


def _act(command: EvaluateLoss, console: Console) -> dict[str, Any]:
    """Measure and print; returns the `--json` keys."""
    if command.model is None or not command.data:
        missing = "--model" if command.model is None else "--data"
        raise ConfigError(f"evaluate loss needs a model and a text, found no {missing}.")
    lm = load(command.model, device=command.device)
    if lm.kind == "classification":
        raise ConfigError(f"evaluate loss needs a language model, found a classifier in {lm.folder}.")
    with work_progress(console)("tokenising") as report:
        tokens = prepare_tokens(
            resolve_texts(command.data),
            lm.tokenizer,
            cache_folder=cache_folder() / "tokens",
            val_fraction=0.0,
            text_field=command.text_field,
            skip_bad_lines=command.skip_bad_lines,
            progress=report,
        )
    result = text_loss(
        lm.model,
        tokens.train,
        n_bytes=tokens.train_n_bytes,
        start_id=lm.tokenizer.end_of_text_id,
        stride=command.stride,
    )
    bits_per_byte = None if loses_text(lm.tokenizer) else result.bits_per_byte
    if not command.json:
        print(
            f"{result.loss:.4f} nats per token, perplexity {result.perplexity:.2f}, "
            f"{say_bits_per_byte(bits_per_byte)}, over {result.n_tokens:,} tokens of {result.n_bytes:,} bytes"
        )
    return {
        "loss": result.loss,
        "perplexity": result.perplexity,
        "bits_per_byte": bits_per_byte,
        "tokens": result.n_tokens,
        "bytes": result.n_bytes,
        "skipped_lines": tokens.skipped_lines,
    }
