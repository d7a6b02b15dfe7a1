"""`scratchlm tokenizer decode`: show the text of token ids."""

from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.streams import read_text
from scratchlm.cli.tokenizer_encode import tokenizer_named
from scratchlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TokenizerDecode(Common):
    """Show the text of token ids.

    Example: scratchlm tokenizer decode --tokenizer gpt2 15496 11 466 345 588 8887 30
    """

    ids: tyro.conf.Positional[tuple[int, ...]] = ()  # the ids; without any they are read from standard input
    tokenizer: str = "gpt2"  # gpt2, a tokenizer.json, a model folder, or a .gguf file


@command_line(TokenizerDecode)
def main(command: TokenizerDecode, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Decode the ids and print the text; returns the `--json` keys."""
    ids = list(command.ids)
    if not ids:
        words = read_text().replace(",", " ").replace("[", " ").replace("]", " ").split()
        wrong = [word for word in words if not word.isdecimal()]
        if wrong or not words:
            raise ConfigError(
                f"decode needs whole numbers, got {repr(wrong[0]) if wrong else 'nothing'}; give token ids."
            )
        ids = [int(word) for word in words]
    text = tokenizer_named(command.tokenizer).decode(ids)
    print(text)
    return {"ids": ids, "text": text}
