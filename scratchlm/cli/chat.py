"""`scratchlm chat`: talk to an assistant in the terminal."""

import signal
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.dialogue import Dialogue
from scratchlm.cli.messages import MULTI_LINE, Message, MessageReader
from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, ScratchLMError
from scratchlm.data.assistant_prompt import chosen_template
from scratchlm.training.interrupts import stop_requests

QUIT = Message("/quit", is_command=True)
HOW_TO_LEAVE = f"An empty line or Ctrl-D ends the chat. /help lists the commands.\n{MULTI_LINE}"


@dataclass(frozen=True, kw_only=True)
class Chat(Common):
    """Talk to an assistant in the terminal; an empty line or Ctrl-D ends it, Ctrl-C stops an answer.

    The prompt uses the template of the assistant's training, or the chat template in the files of a foreign model. An
    assistant trained on conversations sees all earlier turns that fit into its context, and a note says when turns no
    longer fit; one trained on single questions sees none.

    A line that ends with a backslash continues on the next line, and lines between two lines of three double quotes
    are one message. In a terminal the arrow keys edit the line and recall earlier ones, also those of earlier chats.

    A line that begins with "/" is a command:
    /set temperature 0.7, /system TEXT, /model PATH, /retry, /tokens, /save FILE, /help.

    Example: scratchlm chat --model runs/quickstart/instruct
    """

    model: Path | None = None  # an assistant: a model folder, run folder, Hugging Face folder or .gguf file
    template: str | None = None  # use one of our templates instead: alpaca, plain, phi3, chatml or llama3
    max_new_tokens: int | None = None  # maximum tokens in an answer; default: 128, or half the context
    system: str | None = None  # system prompt; default: the one used in training
    memory: int | None = None  # maximum number of earlier turns in the prompt; default: all that fit, or 0

    def __post_init__(self) -> None:
        check_at_least(1, max_new_tokens=self.max_new_tokens)
        if self.memory is not None and self.memory < 0:
            raise ConfigError(f"memory must be at least 0 exchanges, got {self.memory}; raise it.")
        chosen_template({}, self.template)


@command_line(Chat)
def main(command: Chat, console: Console) -> dict[str, Any]:
    """Read messages and print answers until the user ends the chat; returns the `--json` keys."""
    [model] = required(command, "chat needs an assistant", "model")
    talk = Dialogue(
        model,
        console,
        device=command.device,
        template=command.template,
        system=command.system,
        memory=command.memory,
        max_new_tokens=command.max_new_tokens,
    )
    reader = MessageReader(console)
    if reader.is_typed:
        console.print(f"Hello! {talk.description}\n{HOW_TO_LEAVE}")
    while (message := reader.read()) is not None and message != QUIT:
        try:
            _respond(talk, message, can_stop=reader.is_typed)
        except ScratchLMError as error:  # shown, and the conversation continues
            if not (reader.is_typed or message.is_command):
                raise
            console.print(str(error), style="red")
    return {"turns": talk.turns}


def _respond(talk: Dialogue, message: Message, *, can_stop: bool) -> None:
    """Carry out a command, or print the answer to a message; with `can_stop` Ctrl-C stops the answer only."""
    if message.is_command and not talk.obey(message.text):
        return
    answer = talk.answer(None if message.is_command else message.text)
    with stop_requests() if can_stop else nullcontext() as stop:
        for piece in answer:
            print(piece, end="", flush=True)
            if stop is not None and stop.is_made:
                answer.close()
                break
        print(flush=True)
    if stop is not None and stop.signal_number == signal.SIGTERM:
        raise SystemExit(128 + signal.SIGTERM)
