"""Render a conversation with the Jinja chat template from a model's files, as transformers does.

A template is a program from an untrusted file. It runs in Jinja's sandbox, in a separate process with limited time
and memory (template_renderer.py), and returns text.
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

MAX_SECONDS = 30.0  # wall-clock limit for a busy machine; the renderer limits its own CPU time to 2 s
_RENDERER = Path(__file__).with_name("template_renderer.py")
_GUARDS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode noncharacters


class TurnEnd(NamedTuple):
    """What a template writes after an assistant's message: a special token, a text, or nothing."""

    id: int | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatTemplate:
    """The chat template from a model's files.

    Source: transformers, `apply_chat_template`, with the same Jinja settings and functions.
    """

    source: str
    tokens: Mapping[str, str]  # special tokens that templates use by name: bos_token, eos_token, ...

    @property
    def name(self) -> str:
        """A digest that identifies the template."""
        return f"own-{hashlib.sha256(self.source.encode('utf-8', 'replace')).hexdigest()[:16]}"

    @staticmethod
    def of_task(task: Mapping[str, Any]) -> ChatTemplate | None:
        """The template in a model's task, or None."""
        source = task.get("chat_template")
        return None if source is None else ChatTemplate(source=source, tokens=task.get("chat_tokens", {}))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The conversation as text; with add_generation_prompt, up to where the assistant's next answer begins.

        Raises: CheckpointError for a template with an error, or one that takes too much time or memory; DataError
            for a conversation that it rejects, such as one with an unsupported system message.
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
                f"the model's chat template failed: {reply.get('wrong')!s:.300}; name one of our templates."
            )
        return str(reply["text"])

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """Ids of the conversation, up to where the assistant's next answer begins.

        The template's marks become special tokens; the text of a message never does, even if it spells a mark.
        Raises: as `render`.
        """
        marks = tokenizer.special_tokens
        if not any(mark in message["content"] for message in messages for mark in marks):
            return tokenizer.encode(self.render(messages), allowed_special="all")
        content = "".join(message["content"] for message in messages)
        guard = next(character for character in _GUARDS if character not in content)
        hidden = [{**message, "content": _hide(message["content"], marks, guard)} for message in messages]
        ids: list[int] = []
        for part, is_mark in split_on_special(self.render(hidden), marks):
            ids += [marks[part]] if is_mark else tokenizer.encode(part.replace(guard, ""))
        return ids

    def turn_end(self, tokenizer: Tokenizer) -> TurnEnd:
        """Find how the template ends an assistant's message; generation stops there.

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
    """Insert a guard character into everything in the text that looks like a special token."""
    longest_first = sorted(marks, key=len, reverse=True)
    return re.sub(
        "|".join(map(re.escape, longest_first)), lambda match: match[0][0] + guard + match[0][1:], text
    )


@functools.lru_cache(maxsize=16)
def _rendered(request: str) -> dict[str, Any]:
    """The reply of the renderer process; {"wrong": ...} when it failed."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_RENDERER)],
            input=request.encode(),
            capture_output=True,
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"wrong": f"it took more than {MAX_SECONDS:g} seconds"}
    if done.returncode < 0:  # killed by the operating system
        return {"wrong": "it exceeded the time or memory limit"}
    if done.returncode > 0:
        return {"wrong": done.stderr.decode(errors="replace").strip().rpartition("\n")[2]}
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply
