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
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.data.assistant_prompt import chosen_template
from scratchlm.serving.language_model import load


@dataclass(frozen=True, kw_only=True)
class Chat(Common):
    """Talk to an assistant in the terminal; an empty line or Ctrl-D ends it.

    It is asked in the template it was trained with: for an assistant of others, the chat template in its own files. An
    assistant that knows conversations is reminded of all that was said, as far as its context reaches; one that was
    trained on single questions only, of nothing.

    Example: scratchlm chat --model runs/quickstart/instruct
    """

    model: Path | None = None  # an assistant: a model folder, run folder, Hugging Face folder or .gguf file
    template: str | None = None  # ask in one of our templates instead: alpaca, plain, phi3, chatml or llama3
    max_new_tokens: int = 128  # per answer
    system: str | None = None  # what the assistant is told about itself; None = as in training
    memory: int | None = None  # earlier exchanges to remind it of; default: all that fit, or 0 (see above)

    def __post_init__(self) -> None:
        check_at_least(1, max_new_tokens=self.max_new_tokens)
        if self.memory is not None and self.memory < 0:
            raise ConfigError(f"memory must be at least 0 exchanges, got {self.memory}; raise it.")
        chosen_template({}, self.template)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(Chat, _act, args, prog=prog)


def _act(command: Chat, console: Console) -> dict[str, Any]:
    """Question, answer, question, ...; returns the `--json` keys."""
    if command.model is None:
        raise ConfigError("chat needs an assistant, found no --model; name its folder.")
    lm = load(command.model, device=command.device)
    if lm.kind == "classification" or chosen_template(lm.task, command.template) is None:
        beside = lm.specialist_beside("instruct")
        advice = f"name {beside}" if beside else "make one with `scratchlm finetune instruct`"
        raise ConfigError(f"chat needs an assistant, found a {lm.kind}; {advice}, or choose a --template.")
    memory = command.memory
    stands_alone = memory is None and not lm.knows_conversations
    if stands_alone:
        memory = 0
    turns: list[dict[str, str]] = []
    lines = read_lines()
    while True:
        if sys.stdin is not None and sys.stdin.isatty():
            console.print("you> ", end="", style="bold")
        line = next(lines, "").strip()
        if not line:
            break
        if stands_alone and len(turns) == 1:
            console.print(
                "note: trained on single questions, it forgets the earlier ones (--memory N reminds it)",
                soft_wrap=True,
            )
        said = [(turn["instruction"], turn["answer"]) for turn in turns]
        pieces = lm.stream_answer(
            line,
            system=command.system,
            history=said[len(said) - memory :] if memory is not None and memory < len(said) else said,
            template_name=command.template,
            max_new_tokens=command.max_new_tokens,
        )
        answer = ""
        for piece in pieces:
            answer += piece
            if not command.json:
                print(piece, end="", flush=True)
        turns.append({"instruction": line, "answer": answer})
        if not command.json:
            print(flush=True)
    return {"turns": turns}
