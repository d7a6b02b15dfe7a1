"""`scratchlm tokenizer train`: learn a BPE vocabulary from text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.progress import work_progress
from scratchlm.core.errors import ConfigError
from scratchlm.data.sources import read_documents
from scratchlm.tokenizers.bpe_training import train_bpe
from scratchlm.training.settings import resolve_texts


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(Common):
    """Learn a byte-level BPE vocabulary and write it as a Hugging Face tokenizer.json.

    Example: scratchlm tokenizer train --data my_books/ --vocab-size 4096 --out tokenizer.json
    """

    data: tuple[str, ...] = ()  # text files, folders, globs, or known names
    vocab_size: int = 4096  # tokens, special ones included
    text_field: str = "text"  # where .jsonl and .parquet keep the text
    skip_bad_lines: bool = False  # count and report lines that do not parse, instead of stopping
    out: Path = Path("tokenizer.json")  # the file to write


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(TokenizerTrain, _act, args, prog=prog)


def _act(command: TokenizerTrain, console: Console) -> dict[str, Any]:
    """Train and write; returns the `--json` keys."""
    if not command.data:
        raise ConfigError("training a tokenizer needs text, found none; name files or folders with --data.")
    started_at_s = time.perf_counter()
    complaints: list[str] = []
    documents = read_documents(
        resolve_texts(command.data),
        text_field=command.text_field,
        skip_bad_lines=command.skip_bad_lines,
        on_skip=complaints.append,
    )
    texts = (document.text for document in documents)
    with work_progress(console)("learning a vocabulary") as report:
        tokenizer = train_bpe(texts, command.vocab_size, progress=report)
    tokenizer.save(command.out)
    if complaints:
        told = f"skipped {len(complaints):,} lines that could not be used; the first: {complaints[0]}"
        console.print(told, markup=False, soft_wrap=True)
    seconds = time.perf_counter() - started_at_s
    if not command.json:
        print(f"{command.out}: {tokenizer.vocab_size:,} tokens in {seconds:.1f} s")
    return {
        "out": str(command.out),
        "vocab_size": tokenizer.vocab_size,
        "seconds": seconds,
        "skipped_lines": len(complaints),
    }
