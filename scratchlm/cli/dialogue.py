"""A dialogue in the terminal: its turns and settings, and the commands that change them."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import write_json
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.requests import TokenEvent
from scratchlm.serving.language_model import LanguageModel

COMMANDS = {  # name -> what it does
    "set": "/set NAME VALUE changes a setting (off restores its default), /set alone shows the settings",
    "system": "/system TEXT changes the system prompt",
    "retry": "/retry answers the last message again",
    "tokens": "/tokens shows the last answer with each token coloured by its probability",
    "save": "/save FILE writes the conversation as JSON",
    "help": "/help shows this list",
}
COLOURS = (
    (0.9, "green"),
    (0.5, "cyan"),
    (0.2, "yellow"),
    (0.05, "magenta"),
    (0.0, "red"),
)  # from this probability
FIXED = {"use_cache", "start_id", "stop_ids"}  # the model's own


class Dialogue:
    """The turns of a chat, and the settings with which the next answer is generated."""

    def __init__(
        self,
        lm: LanguageModel,
        *,
        system: str | None,
        memory: int | None,
        template: str | None,
        max_new_tokens: int,
    ) -> None:
        self.turns: list[dict[str, str]] = []
        self._lm = lm
        self._system = system
        self._memory = memory
        self._template = template
        self._settings: dict[str, Any] = {"max_new_tokens": max_new_tokens}
        self._defaults = dict(self._settings)
        self._tokens: list[tuple[str, float]] = []  # of the last answer: text and probability

    def answer(self, message: str) -> Iterator[str]:
        """Yield the answer in pieces, and add the turn when it is complete."""
        said = [(turn["instruction"], turn["answer"]) for turn in self.turns]
        memory = len(said) if self._memory is None else self._memory
        self._tokens = []
        pieces = self._lm.stream_answer(
            message,
            system=self._system,
            history=said[max(0, len(said) - memory) :],
            template_name=self._template,
            on_event=self._note,
            **self._settings,
        )
        answer = ""
        for piece in pieces:
            answer += piece
            yield piece
        self.turns.append({"instruction": message, "answer": answer})

    def obey(self, line: str, console: Console) -> str | None:
        """Carry out a command such as `/set temperature 0.7`; returns the message to answer again, if any.

        Raises: ConfigError for an unknown command, or an impossible value.
        """
        name, _, rest = line.removeprefix("/").partition(" ")
        rest = rest.strip()
        if name not in COMMANDS:
            raise ConfigError(f"chat has no command {'/' + name!r}; {nearest(name, COMMANDS)}")
        if name == "set":
            self._set(rest, console)
        elif name == "system":
            self._system = rest
        elif name == "tokens":
            self._show_tokens(console)
        elif name == "save":
            if not rest:
                raise ConfigError("/save needs a file; write e.g. /save chat.json.")
            write_json(Path(rest).expanduser(), {"settings": self._settings, "turns": self.turns})
            console.print(f"saved {len(self.turns)} turns to {rest}", soft_wrap=True)
        elif name == "help":
            console.print("\n".join(COMMANDS.values()), soft_wrap=True)
        elif name == "retry":
            if not self.turns:
                raise ConfigError("/retry needs an earlier message; write one first.")
            return self.turns.pop()["instruction"]
        return None

    def _set(self, words: str, console: Console) -> None:
        name, _, value = words.partition(" ")
        if name:
            name = name.replace("-", "_")
            changed = self._settings | {name: _parsed(name, value.strip())}
            if value.strip() == "off":
                del changed[name]
                changed = self._defaults | changed
            beams = changed.get("beams")
            self._lm.generation_config(**{key: v for key, v in changed.items() if key != "beams"})
            if beams is not None and (not isinstance(beams, int) or beams < 1):
                raise ConfigError(f"beams must be a whole number of at least 1, got {beams!r}; 4 is usual.")
            self._settings = changed
        console.print(", ".join(f"{key} = {value}" for key, value in self._settings.items()), soft_wrap=True)

    def _note(self, event: TokenEvent) -> None:
        if event.id is not None:
            self._tokens.append((event.text, event.prob))

    def _show_tokens(self, console: Console) -> None:
        if not self._tokens:
            raise ConfigError(
                "/tokens needs an answer that was generated token by token; ask something first."
            )
        shown = Text()
        for text, prob in self._tokens:
            shown.append(text, style=next(colour for limit, colour in COLOURS if prob >= limit))
        shown.append("\nprobability: ")
        for limit, colour in COLOURS:
            shown.append(f"{limit:.0%}+ ", style=colour)
        console.print(shown, soft_wrap=True)


def _parsed(name: str, value: str) -> Any:
    """A setting's value from its text: JSON, else the text itself; a list may be a single value.

    Raises: ConfigError for an unknown setting.
    """
    hints = typing.get_type_hints(GenerationConfig) | {"beams": int | None}
    known = [field.name for field in dataclasses.fields(GenerationConfig) if field.name not in FIXED]
    if name not in {*known, "beams"}:
        raise ConfigError(f"chat has no setting {name!r}; {nearest(name, [*known, 'beams'])}")
    if not value:
        raise ConfigError(
            f"/set {name} needs a value; write e.g. /set temperature 0.7, or off for the default."
        )
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    if name == "logit_bias" and isinstance(parsed, dict):
        return {int(key) if key.isdecimal() else key: bias for key, bias in parsed.items()}
    is_list = typing.get_origin(hints[name]) is tuple
    return [parsed] if is_list and not isinstance(parsed, list) else parsed
