"""`scratchlm tokenizer train`: learn a vocabulary from text."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.progress import work_progress
from scratchlm.core.errors import ConfigError
from scratchlm.data.row_files import RowSettings
from scratchlm.data.sources import read_documents
from scratchlm.training.settings import LearntKind, learn_tokenizer, resolve_data

DEFAULT_VOCAB_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(Common):
    """Learn a vocabulary, byte-level BPE or whole words, and write it as a Hugging Face tokenizer.json.

    Example: scratchlm tokenizer train --data my_books/ --vocab-size 4096 --out tokenizer.json
    """

    data: tuple[str, ...] = ()  # text files, folders, globs, or known names
    kind: LearntKind = "bpe"  # word: the book's, loses spaces and unknown words; lossless-word keeps all
    vocab_size: int | None = None  # number of BPE tokens, special ones included; default: 4,096
    rows: Annotated[RowSettings, tyro.conf.arg(name="")] = field(default_factory=RowSettings)
    skip_bad_lines: bool = False  # count and report lines that do not parse, instead of stopping
    out: Path = Path("tokenizer.json")  # the file to write


@command_line(TokenizerTrain)
def main(command: TokenizerTrain, console: Console) -> dict[str, Any]:
    """Train the tokenizer and write it; returns the `--json` keys."""
    if not command.data:
        raise ConfigError("training a tokenizer needs text; name files or folders with --data.")
    if command.kind != "bpe" and command.vocab_size is not None:
        raise ConfigError(
            f"--vocab-size needs --kind bpe, got --kind {command.kind}, which keeps every word; drop one."
        )
    started_at_s = time.perf_counter()
    skipped: list[str] = []
    documents = read_documents(
        resolve_data(command.data),
        rows=command.rows,
        skip_bad_lines=command.skip_bad_lines,
        on_skip=skipped.append,
    )
    texts = (document.text for document in documents)
    with work_progress(console)("training a tokenizer") as report:
        tokenizer = learn_tokenizer(
            command.kind, texts, vocab_size=command.vocab_size or DEFAULT_VOCAB_SIZE, progress=report
        )
    tokenizer.save(command.out)
    if skipped:
        console.print(f"skipped {len(skipped):,} lines that could not be used; the first: {skipped[0]}")
    seconds = time.perf_counter() - started_at_s
    print(f"{command.out}: {tokenizer.vocab_size:,} tokens in {seconds:.1f} s")
    return {
        "out": str(command.out),
        "vocab_size": tokenizer.vocab_size,
        "seconds": seconds,
        "skipped_lines": len(skipped),
    }
