"""`scratchlm evaluate loss`: loss, perplexity and bits per byte of a text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.assets.cache_folder import cache_folder
from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.cli.progress import work_progress
from scratchlm.core.config import check_at_least
from scratchlm.core.protocols import ShowsProgress, Tokenizer
from scratchlm.data.row_files import RowSettings
from scratchlm.data.shards import PreparedTokens, prepare_tokens
from scratchlm.evaluation.loss import (
    TextLoss,
    format_bits_per_byte,
    format_perplexity,
    perplexity_of,
    stride_for,
    text_loss,
)
from scratchlm.serving.language_model import LanguageModel, load
from scratchlm.tokenizers.word import loses_text
from scratchlm.training.settings import resolve_data


@dataclass(frozen=True, kw_only=True)
class EvaluateLoss(Common):
    """Loss, perplexity, bits per byte and per character of texts, with a sliding window; every token is counted once.

    Each file, folder or name given is one text with a row of its own; the result is over all of them.

    Example: scratchlm evaluate loss --model runs/books --data chapter.txt --stride 64
    """

    model: Path | None = None  # a model folder or run folder
    data: tuple[str, ...] = ()  # text files, folders, globs, known names, or folders of token shards
    rows: Annotated[RowSettings, tyro.conf.arg(name="")] = field(default_factory=RowSettings)
    skip_bad_lines: bool = False  # count and report lines that do not parse, instead of stopping
    # tokens attend only to tokens of their own document, as in a run with this setting
    attend_within_documents: bool = False
    stride: int | None = None  # tokens between windows; default: half the context
    batch_size: int = 16  # windows at a time; changes the speed only

    def __post_init__(self) -> None:
        check_at_least(1, stride=self.stride, batch_size=self.batch_size)


@command_line(EvaluateLoss)
def main(command: EvaluateLoss, console: Console) -> dict[str, Any]:
    """Compute the loss and print it; returns the `--json` keys."""
    model, data = required(command, "evaluate loss needs a model and a text", "model", "data")
    lm = load(model, device=command.device)
    lm.check_generates("evaluate loss")
    stride = stride_for(lm.model, command.stride)
    show = work_progress(console)
    reading: dict[str, Any] = {"rows": command.rows, "skip_bad_lines": command.skip_bad_lines}
    texts = [tokens_of(path, lm.tokenizer, show, **reading) for path in resolve_data(data)]
    parts = [_measure(command, name, tokens, lm, show) for name, tokens in zip(command.data, texts)]
    whole = TextLoss.together(parts)
    result = _figures(whole, lm)
    context = lm.config.context_length
    print(f"windows of {context} tokens, {stride} apart: {_context(context - stride)}")
    if len(parts) > 1:
        for name, part in zip(command.data, parts):
            print(f"{name}: {_say(part, lm)}")
        print(f"all {len(parts)}: {_say(whole, lm)}")
    else:
        print(_say(whole, lm))
    return result | {
        "stride": stride,
        "context_length": lm.config.context_length,
        "skipped_lines": sum(tokens.skipped_lines for tokens in texts),
        "files": [{"data": name} | _figures(part, lm) for name, part in zip(command.data, parts)],
    }


def tokens_of(
    data: str | Path | Sequence[str | Path], tokenizer: Tokenizer, show: ShowsProgress, **reading: Any
) -> PreparedTokens:
    """Tokenise a text without a validation part, or find its tokens in the cache.

    `reading` are the arguments `rows` and `skip_bad_lines` of `prepare_tokens`.
    """
    folder = cache_folder() / "tokens"
    with show("tokenising") as report:
        return prepare_tokens(
            data, tokenizer, cache_folder=folder, val_fraction=0.0, progress=report, **reading
        )


def _measure(
    command: EvaluateLoss, name: str, tokens: PreparedTokens, lm: LanguageModel, show: ShowsProgress
) -> TextLoss:
    with show(f"reading {name}") as report:
        return text_loss(
            lm.model,
            tokens.train,
            n_bytes=tokens.train_n_bytes,
            n_characters=tokens.train_n_characters,
            start_id=lm.tokenizer.end_of_text_id,
            stride=command.stride,
            batch_size=command.batch_size,
            within_documents=command.attend_within_documents,
            progress=report,
        )


def _figures(part: TextLoss, lm: LanguageModel) -> dict[str, Any]:
    """The `--json` keys of one text; bits are not comparable if the tokenizer drops part of it."""
    is_comparable = not loses_text(lm.tokenizer)
    interval = part.interval
    return {
        "loss": part.loss,
        "perplexity": part.perplexity,
        "bits_per_byte": part.bits_per_byte if is_comparable else None,
        "bits_per_character": part.bits_per_character if is_comparable else None,
        "tokens": part.n_tokens,
        "bytes": part.n_bytes,
        "characters": part.n_characters,
        "interval": None if interval is None else list(interval),
        "perplexity_interval": None if interval is None else [perplexity_of(end) for end in interval],
    }


def _context(n: int) -> str:
    if n == 0:
        return "windows do not overlap, so each begins without context"
    return f"after the first window, every counted token has at least {n} tokens of context"


def _say(part: TextLoss, lm: LanguageModel) -> str:
    figures = _figures(part, lm)
    bits = format_bits_per_byte(figures["bits_per_byte"])
    if figures["bits_per_character"] is not None:
        bits += f", {figures['bits_per_character']:.4f} per character"
    interval = "too short for an interval"
    if part.interval is not None:
        low, high = part.interval
        interval = f"95 % interval {low:.4f} to {high:.4f} for similar text"
    return (
        f"{part.loss:.4f} nats per token ({interval}), perplexity {format_perplexity(part.perplexity)}, {bits}, "
        f"over {part.n_tokens:,} tokens of {part.n_bytes:,} bytes"
    )
