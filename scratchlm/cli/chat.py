"""`scratchlm chat`: ask an assistant, line by line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.standard_input import read_lines
from scratchlm.core.errors import ConfigError
from scratchlm.serving.language_model import load


@dataclass(frozen=True, kw_only=True)
class Chat(Common):
    """Ask an assistant in the terminal; an empty line or Ctrl-D ends it. Each question stands alone.

    Example: scratchlm chat --model runs/quickstart/instruct
    """

    model: Path | None = None  # an assistant's model folder or run folder
    max_new_tokens: int = 128  # per answer


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(Chat, _act, args, prog=prog)


def _act(command: Chat, console: Console) -> dict[str, Any]:
    """Question, answer, question, ...; returns the `--json` keys."""
    if command.model is None:
        raise ConfigError("chat needs an assistant, found no --model; name its folder.")
    lm = load(command.model, device=command.device)
    if lm.kind != "instruction":
        beside = lm.specialist_beside("instruct")
        advice = f"name {beside}" if beside else "make one with `scratchlm finetune instruct`"
        raise ConfigError(f"chat needs an assistant, found a {lm.kind}; {advice}.")
    turns = []
    lines = read_lines()
    while True:
        if sys.stdin is not None and sys.stdin.isatty():
            console.print("you> ", end="", style="bold")
        line = next(lines, "").strip()
        if not line:
            break
        answer = lm.ask(line, max_new_tokens=command.max_new_tokens)
        turns.append({"instruction": line, "answer": answer})
        if not command.json:
            print(answer, flush=True)
    return {"turns": turns}
