"""How a model of others wants a conversation written: the Jinja template that comes with it.

A template is a program of whoever made the file. It runs in a process of its own with little time and memory, in
Jinja's sandbox, and gives back text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scratchlm.core.errors import CheckpointError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.tokenizers.special_tokens import split_on_special

Message = Mapping[str, str]  # "role" (system, user or assistant) and "content"

MAX_SECONDS = (
    30.0  # by the clock, on a machine that is busy with other things; its own time is limited to 2 s
)
_RENDERER = Path(__file__).with_name("template_renderer.py")
_GUARDS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # characters that no text may hold


class TurnEnd(NamedTuple):
    """What a template writes behind an assistant's message: the id of a mark, or else a text; or nothing."""

    id: int | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatTemplate:
    """A conversation in the form that a model was trained on, written by the template in the model's own file.

    Source: transformers, `apply_chat_template`, whose settings of Jinja and whose functions it has.
    """

    source: str
    tokens: Mapping[str, str]  # the special tokens that templates ask for by name: bos_token, eos_token, ...

    @property
    def name(self) -> str:
        """What identifies it: a digest of the template."""
        return f"own-{hashlib.sha256(self.source.encode('utf-8', 'replace')).hexdigest()[:16]}"

    @staticmethod
    def of_task(task: Mapping[str, Any]) -> ChatTemplate | None:
        """The template that a model's task holds, if there is one."""
        source = task.get("chat_template")
        return None if source is None else ChatTemplate(source=source, tokens=task.get("chat_tokens", {}))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The conversation as text, with add_generation_prompt up to where the assistant's next answer begins.

        Raises: CheckpointError for a template that is wrong, or takes too much time or memory; DataError for a
            conversation that it refuses, such as one with a system message where the model knows none.
        """
        request = {
            "template": self.source,
            "values": {
                "messages": [dict(message) for message in messages],
                "tools": None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                **self.tokens,
            },
        }
        reply = _rendered(json.dumps(request))
        if "refused" in reply:
            raise DataError(
                f"the model's chat template refuses this conversation: {reply['refused']:.300}; change the "
                "conversation, or name one of our templates."
            )
        if "text" not in reply:
            raise CheckpointError(
                f"the model's chat template must write a text, got {reply.get('wrong')!s:.300}; name one of our "
                "templates."
            )
        return str(reply["text"])

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """Ids of the conversation, up to where the assistant's next answer begins.

        The template's marks become their ids; what a message says never does, even if it spells a mark.
        Raises: as `render`.
        """
        marks = tokenizer.special_tokens
        if not any(mark in message["content"] for message in messages for mark in marks):
            return tokenizer.encode(self.render(messages), allowed_special="all")
        said = "".join(message["content"] for message in messages)
        guard = next(character for character in _GUARDS if character not in said)
        hidden = [{**message, "content": _hide(message["content"], marks, guard)} for message in messages]
        ids: list[int] = []
        for part, is_mark in split_on_special(self.render(hidden), marks):
            ids += [marks[part]] if is_mark else tokenizer.encode(part.replace(guard, ""))
        return ids

    def turn_end(self, tokenizer: Tokenizer) -> TurnEnd:
        """How the template ends an assistant's message: whoever writes that has finished.

        Raises: CheckpointError as `render`.
        """
        messages = [{"role": role, "content": text} for role, text in zip(_ROLES, _WORDS)]
        try:
            _, _, behind = self.render(messages, add_generation_prompt=False).rpartition(_WORDS[1])
        except DataError:
            return TurnEnd()
        behind = behind.partition(_WORDS[2])[0]
        marks = (part for part, is_mark in split_on_special(behind, tokenizer.special_tokens) if is_mark)
        if (mark := next(marks, None)) is not None:
            return TurnEnd(id=tokenizer.special_tokens[mark])
        return TurnEnd(text=next((line.strip() for line in behind.splitlines() if line.strip()), None))


_ROLES, _WORDS = ("user", "assistant", "user"), ("Question", "Answer", "Afterwards")


def _hide(text: str, marks: Collection[str], guard: str) -> str:
    """The text with a character inside of all that looks like a mark."""
    longest_first = sorted(marks, key=len, reverse=True)
    return re.sub(
        "|".join(map(re.escape, longest_first)), lambda match: match[0][0] + guard + match[0][1:], text
    )


@functools.lru_cache(maxsize=16)
def _rendered(request: str) -> dict[str, Any]:
    """What the other process says; {"wrong": ...} for one that did not come to an end."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_RENDERER)],
            input=request.encode(),
            capture_output=True,
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"wrong": f"none in {MAX_SECONDS:g} seconds"}
    if done.returncode < 0:  # ended by the system
        return {"wrong": "one that needs more time or memory than a text takes"}
    if done.returncode > 0:
        return {"wrong": done.stderr.decode(errors="replace").strip().rpartition("\n")[2]}
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply
