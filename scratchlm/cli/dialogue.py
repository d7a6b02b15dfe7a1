"""A dialogue in the terminal: its turns and settings, and the commands that change them."""

import contextlib
import dataclasses
import json
import typing
from collections.abc import Generator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from scratchlm.cli.messages import MULTI_LINE
from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import write_json
from scratchlm.data.assistant_prompt import AssistantPrompt, chosen_template
from scratchlm.generation.beam import check_beams, check_length_penalty
from scratchlm.generation.config import BEAM_SETTINGS, IDLE_WITHOUT, SAMPLING, GenerationConfig
from scratchlm.generation.engine import Engine
from scratchlm.generation.requests import TokenEvent, check_sinks
from scratchlm.serving.language_model import LanguageModel, load

COMMANDS = {  # name -> what it does
    "set": "/set NAME VALUE changes a setting (off restores its default), /set alone shows the settings",
    "system": "/system TEXT changes the system prompt, /system alone removes it",
    "model": "/model PATH continues the conversation with another model, /model alone describes the current one",
    "retry": "/retry answers the last message again",
    "tokens": "/tokens shows the last answer with each token coloured by its probability",
    "save": "/save FILE writes the conversation as JSON",
    "help": "/help shows this list",
    "quit": "/quit ends the chat, as an empty line does",
}
MIN_CAPACITY = 1024  # tokens of the first cache; a longer conversation gets a larger one
# From this probability on.
COLOURS = ((0.9, "green"), (0.5, "cyan"), (0.2, "yellow"), (0.05, "magenta"), (0.0, "red"))
FIXED = {"use_cache", "start_id", "stop_ids"}  # the model's own
BEAM_SEARCH = {"beams": int | None, "length_penalty": float}  # settings outside GenerationConfig
# A setting, and those that have no effect without it.
NEEDED = {"beams": (*BEAM_SETTINGS[:3], "length_penalty"), "temperature": SAMPLING, **IDLE_WITHOUT}


class Dialogue:
    """The turns of a chat, and the model and the settings with which the next answer is generated.

    One engine is kept for the whole conversation, so that each turn reads only what is new.
    Raises: ConfigError for a model that is no assistant; CheckpointError when there is no valid model.
    """

    def __init__(
        self,
        model: Path,
        console: Console,
        *,
        device: str = "auto",
        template: str | None = None,
        system: str | None = None,
        memory: int | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        self.turns: list[dict[str, str]] = []
        self._say = console.print
        self._device = device
        self._template = template
        self._system = system
        self._memory = memory
        self._max_new_tokens = max_new_tokens
        self._changed: dict[str, Any] = {}  # by /set
        self._tokens: list[tuple[str, float]] = []  # of the last answer: text and probability
        self._engine: Engine | None = None
        self._lm: LanguageModel
        self._open(model)

    @property
    def description(self) -> str:
        """The model and its training in a sentence."""
        lm, template = self._lm, self._template
        size = f"{lm.model.n_parameters() / 1e6:,.1f} million parameters"
        if lm.kind != "instruction":
            used = f"the template {template}" if template else "the chat template in its own files"
            trained = f"a {lm.kind}, used with {used}"
        else:
            data = "conversations" if lm.supports_conversations else "single instructions and their answers"
            trained = f"an assistant fine-tuned on {data} (template {template or lm.task.get('template')})"
        return f"You are talking to {self._path}: {trained}; {size}, {lm.config.context_length:,} tokens of context."

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the next answer that differ from their defaults, and max_new_tokens."""
        return self._with_defaults(self._changed)

    def answer(self, message: str | None = None) -> Generator[str]:
        """Yield the answer in pieces and add the turn; without a message, the last one is answered again.

        A generator that is closed early adds the turn with what it has yielded. After an error the turns are unchanged.
        """
        earlier = self.turns[:-1] if message is None else self.turns[:]
        message = self.turns[-1]["instruction"] if message is None else message
        prompt = self._prompt(message, earlier)
        settings = self.settings
        self._tokens = []
        engine = self._engine_for(len(prompt.ids) + settings["max_new_tokens"])
        pieces = self._lm.answer_pieces(prompt, engine=engine, on_event=self._note_token, **settings)
        answer = ""
        with contextlib.suppress(GeneratorExit):
            for piece in pieces:
                answer += piece
                yield piece
        self.turns[len(earlier) :] = [{"instruction": message, "answer": answer}]

    def obey(self, line: str) -> bool:
        """Carry out a command such as `/set temperature 0.7`; returns whether the last message is to be answered again.

        Raises: ConfigError for an unknown command, or an impossible value; CheckpointError for an invalid model.
        """
        name, _, rest = line.removeprefix("/").partition(" ")
        rest = rest.strip()
        if name not in COMMANDS:
            raise ConfigError(f"chat has no command {'/' + name!r}; {nearest(name, COMMANDS)}")
        if name == "set":
            self._set(rest)
        elif name == "system":
            self._system = rest
            self._say(f"system prompt: {rest}" if rest else "no system prompt")
        elif name == "model":
            if rest:
                self._open(Path(rest).expanduser())
            self._say(self.description)
        elif name == "tokens":
            self._show_tokens()
        elif name == "save":
            if not rest:
                raise ConfigError("/save needs a file; write e.g. /save chat.json.")
            write_json(Path(rest).expanduser(), {"settings": self.settings, "turns": self.turns})
            self._say(f"saved {len(self.turns)} turns to {rest}")
        elif name == "help":
            self._say("\n".join([*COMMANDS.values(), MULTI_LINE]))
        elif name == "retry" and not self.turns:
            raise ConfigError("/retry needs an earlier message; write one first.")
        return name == "retry"

    def _with_defaults(self, changed: dict[str, Any]) -> dict[str, Any]:
        half = self._lm.config.context_length // 2  # the other half is for the prompt
        default = min(128, half) if self._max_new_tokens is None else self._max_new_tokens
        return {"max_new_tokens": default, **changed}

    def _open(self, path: Path) -> None:
        lm = load(path, device=self._device)
        if lm.kind == "classification" or chosen_template(lm.task, self._template) is None:
            beside = lm.stage_beside("instruct")
            advice = f"name {beside}" if beside else "train one with `scratchlm finetune instruct`"
            raise ConfigError(f"chat needs an assistant, got a {lm.kind}; {advice}, or choose a --template.")
        self._lm, self._path = lm, path
        self._n_dropped = 0  # turns that did not fit, as last shown
        self._noted_single_turns = False
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _engine_for(self, n_tokens: int) -> Engine:
        """The engine of the conversation; one with more room replaces it when a text needs more tokens."""
        context_length = self._lm.config.context_length
        if self._engine is None or self._engine.cache.capacity < min(n_tokens, context_length):
            if self._engine is not None:
                self._engine.close()
            self._engine = Engine(self._lm.model, n_slots=1, capacity=max(MIN_CAPACITY, 2 * n_tokens))
        return self._engine

    def _prompt(self, message: str, earlier: list[dict[str, str]]) -> AssistantPrompt:
        """Encode a message and the earlier turns that fit; what is left out is shown in a note."""
        memory = self._memory
        if memory is None:
            memory = len(earlier) if self._lm.supports_conversations else 0
            if earlier and not memory and not self._noted_single_turns:
                self._noted_single_turns = True
                self._say(
                    "note: this assistant was trained on single questions, so earlier ones are not in its prompt "
                    "(--memory N adds the last N exchanges)"
                )
        history = [(turn["instruction"], turn["answer"]) for turn in earlier[max(0, len(earlier) - memory) :]]
        max_new_tokens = self.settings["max_new_tokens"]
        prompt = self._lm.answer_prompt(
            message,
            system=self._system,
            history=history,
            template_name=self._template,
            max_new_tokens=max_new_tokens,
        )
        context_length = self._lm.config.context_length
        if prompt.n_dropped > self._n_dropped:
            n = prompt.n_dropped
            turns = "the oldest turn is" if n == 1 else f"the {n} oldest turns are"
            self._say(
                f"note: {turns} not in the prompt, which must fit the context of {context_length:,} tokens with "
                f"max_new_tokens={max_new_tokens}"
            )
        self._n_dropped = prompt.n_dropped
        if len(prompt.ids) + max_new_tokens > context_length:
            self._say(
                f"note: the prompt of {len(prompt.ids):,} tokens and max_new_tokens={max_new_tokens} exceed the "
                f"context of {context_length:,} tokens, so a long answer does not see the beginning of the prompt"
            )
        return prompt

    def _set(self, words: str) -> None:
        name, _, value = words.partition(" ")
        if name:
            name = name.replace("-", "_")
            changed = self._changed | {name: _parsed(name, value.strip())}
            if value.strip() == "off":
                del changed[name]
            settings = self._with_defaults(changed)
            beams, length_penalty = settings.pop("beams", None), settings.pop("length_penalty", 1.0)
            config = self._lm.generation_config(**settings)
            check_length_penalty(length_penalty)
            check_sinks(config, self._lm.model)
            if beams is not None:
                check_beams(config, n_beams=beams, length_penalty=length_penalty)
            self._changed = changed
        self._say(", ".join(f"{key} = {value}" for key, value in self.settings.items()))
        for needed, names in NEEDED.items():
            idle = [name for name in names if name in self._changed]
            if idle and not any(self._changed.get(name) for name in (needed, "penalty_alpha")):
                self._say(f"note: no effect until {needed} is set: {', '.join(idle)}")

    def _note_token(self, event: TokenEvent) -> None:
        if event.id is not None:
            self._tokens.append((event.text, event.prob))

    def _show_tokens(self) -> None:
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
        self._say(shown)


def _parsed(name: str, value: str) -> Any:
    """A known setting's value from its text: JSON, else the text itself; a list may be a single value."""
    hints = typing.get_type_hints(GenerationConfig) | BEAM_SEARCH
    known = [field.name for field in dataclasses.fields(GenerationConfig) if field.name not in FIXED]
    known += BEAM_SEARCH
    if name not in known:
        raise ConfigError(f"chat has no setting {name!r}; {nearest(name, known)}")
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
