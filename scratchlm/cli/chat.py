"""`scratchlm chat`: talk to an assistant in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.dialogue import Dialogue
from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.streams import read_lines
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, ScratchLMError
from scratchlm.data.assistant_prompt import chosen_template
from scratchlm.serving.language_model import LanguageModel, load

HOW_TO_LEAVE = "An empty line or Ctrl-D ends the chat; /help lists the commands."


@dataclass(frozen=True, kw_only=True)
class Chat(Common):
    """Talk to an assistant in the terminal; an empty line or Ctrl-D ends it.

    The prompt uses the template of the assistant's training, or the chat template in the files of a foreign model. An
    assistant trained on conversations sees all earlier turns that fit into its context; one trained on single
    questions sees none.

    A line that begins with "/" is a command: /set temperature 0.7, /system TEXT, /retry, /tokens, /save FILE, /help.

    Example: scratchlm chat --model runs/quickstart/instruct
    """

    model: Path | None = None  # an assistant: a model folder, run folder, Hugging Face folder or .gguf file
    template: str | None = None  # use one of our templates instead: alpaca, plain, phi3, chatml or llama3
    max_new_tokens: int | None = None  # maximum tokens in an answer; default: 128, or half the context
    system: str | None = None  # system prompt; default: the one of training
    memory: int | None = None  # earlier exchanges in the prompt; default: all that fit, or 0 (see above)

    def __post_init__(self) -> None:
        check_at_least(1, max_new_tokens=self.max_new_tokens)
        if self.memory is not None and self.memory < 0:
            raise ConfigError(f"memory must be at least 0 exchanges, got {self.memory}; raise it.")
        chosen_template({}, self.template)


@command_line(Chat)
def main(command: Chat, console: Console) -> dict[str, Any]:
    """Read questions and print answers until the user ends the chat; returns the `--json` keys."""
    if command.model is None:
        raise ConfigError("chat needs an assistant; name its folder with --model.")
    lm = load(command.model, device=command.device)
    if lm.kind == "classification" or chosen_template(lm.task, command.template) is None:
        beside = lm.stage_beside("instruct")
        advice = f"name {beside}" if beside else "train one with `scratchlm finetune instruct`"
        raise ConfigError(f"chat needs an assistant, got a {lm.kind}; {advice}, or choose a --template.")
    memory = command.memory
    stands_alone = memory is None and not lm.supports_conversations
    if stands_alone:
        memory = 0
    room = lm.config.context_length // 2  # the other half is for the prompt
    talk = Dialogue(
        lm,
        system=command.system,
        memory=memory,
        template=command.template,
        max_new_tokens=min(128, room) if command.max_new_tokens is None else command.max_new_tokens,
    )
    lines = read_lines()
    is_typed = sys.stdin is not None and sys.stdin.isatty()
    if is_typed:
        console.print(f"{_greeting(lm, command)}\n{HOW_TO_LEAVE}", soft_wrap=True)
    while True:
        if is_typed:
            console.print("you> ", end="", style="bold")
        line = next(lines, "").strip()
        if not line:
            break
        if line.startswith("/"):
            again = _obeyed(talk, line, console)
            if again is None:
                continue
            line = again
        elif stands_alone and len(talk.turns) == 1:
            console.print(
                "note: this assistant was trained on single questions, so earlier ones are not in its prompt "
                "(--memory N adds the last N exchanges)",
                soft_wrap=True,
            )
        for piece in talk.answer(line):
            print(piece, end="", flush=True)
        print(flush=True)
    return {"turns": talk.turns}


def _obeyed(talk: Dialogue, line: str, console: Console) -> str | None:
    """Carry out a command; a mistake in it is shown and does not end the chat."""
    try:
        return talk.obey(line, console)
    except ScratchLMError as error:
        console.print(str(error), style="red", soft_wrap=True)
        return None


def _greeting(lm: LanguageModel, command: Chat) -> str:
    """Describe the model and its training in a sentence."""
    size = f"{lm.model.n_parameters() / 1e6:,.1f} million parameters, {lm.config.context_length:,} tokens of context"
    if lm.kind != "instruction":
        template = (
            f"the template {command.template}" if command.template else "the chat template in its own files"
        )
        trained = f"a {lm.kind}, used with {template}"
    else:
        data = "conversations" if lm.supports_conversations else "single instructions and their answers"
        trained = f"an assistant fine-tuned on {data} (template {lm.task.get('template', command.template)})"
    return f"Hello! You are talking to {command.model}: {trained}; {size}."
