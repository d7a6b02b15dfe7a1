"""`scratchlm tokenizer decode`: token ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.standard_input import read_text
from scratchlm.cli.tokenizers_by_name import tokenizer_named
from scratchlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TokenizerDecode(Common):
    """Show the text of token ids.

    Example: scratchlm tokenizer decode --tokenizer gpt2 15496 11 466 345 588 8887 30
    """

    ids: tyro.conf.Positional[tuple[int, ...]] = ()  # the ids; without any they are read from standard input
    tokenizer: str = "gpt2"  # gpt2, a tokenizer.json, a model folder, or a .gguf file


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(TokenizerDecode, _act, args, prog=prog)


def _act(command: TokenizerDecode, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Decode and print; returns the `--json` keys."""
    ids = list(command.ids)
    if not ids:
        words = read_text().replace(",", " ").replace("[", " ").replace("]", " ").split()
        wrong = [word for word in words if not word.isdecimal()]
        if wrong or not words:
            raise ConfigError(
                f"decode needs whole numbers, found {repr(wrong[0]) if wrong else 'nothing'}; give ids."
            )
        ids = [int(word) for word in words]
    text = tokenizer_named(command.tokenizer).decode(ids)
    if not command.json:
        print(text)
    return {"ids": ids, "text": text}
