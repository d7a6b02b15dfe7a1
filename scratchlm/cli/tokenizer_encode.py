"""`scratchlm tokenizer encode`: text to token ids."""

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
class TokenizerEncode(Common):
    """Show a text's tokens and their ids.

    Example: scratchlm tokenizer encode --tokenizer gpt2 "Hello, do you like tea?"
    """

    text: tyro.conf.Positional[str | None] = None  # the text; "-" reads standard input
    tokenizer: str = "gpt2"  # gpt2, a tokenizer.json, a model folder, or a .gguf file
    allow_special: bool = False  # let special tokens' strings in the text become their ids


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(TokenizerEncode, _act, args, prog=prog)


def _act(command: TokenizerEncode, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Encode and print; returns the `--json` keys."""
    if command.text is None:
        raise ConfigError("encode needs a text, found none; give it in quotes, or - to read standard input.")
    tokenizer = tokenizer_named(command.tokenizer)
    text = read_text() if command.text == "-" else command.text
    allowed = tuple(tokenizer.special_tokens) if command.allow_special else ()
    ids = tokenizer.encode(text, allowed_special=allowed)
    tokens = [tokenizer.decode([token_id]) for token_id in ids]
    if not command.json:
        print(" ".join(map(str, ids)))
        print(" ".join(map(repr, tokens)))
    return {"ids": ids, "tokens": tokens}
