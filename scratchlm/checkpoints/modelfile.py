"""How other programs learn in which words a model must be asked: Ollama's Modelfile, llama.cpp's chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from scratchlm.core.errors import ConfigError

TURN = "{{ .Prompt }}"  # where Ollama puts what was asked


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFrame:
    """The fixed text around a question; the empty frame is a base model's, which just continues."""

    before: str = ""
    after: str = ""  # the end of every prompt: now it is the model's turn

    @property
    def turn_mark(self) -> str:
        """The line that begins another question: a model that writes it has finished its answer."""
        lines = [line.strip() for line in self.before.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def modelfile(gguf_name: str, *, frame: PromptFrame, context_length: int, stops: Sequence[str] = ()) -> str:
    '''The text of an Ollama Modelfile for a GGUF file that lies beside it.

    stops: texts that end an answer, besides the frame's own mark of a new question.
    Raises: ConfigError when the frame or a stop holds what a Modelfile cannot spell.
    Source: Ollama's documentation of the Modelfile: FROM, TEMPLATE, PARAMETER.
    Example:
        >>> print(modelfile("a.gguf", frame=PromptFrame(before="Q: ", after="\\nA:"), context_length=64), end="")
        FROM ./a.gguf
        TEMPLATE """Q: {{ .Prompt }}
        A:"""
        PARAMETER num_ctx 64
        PARAMETER stop "Q:"
    '''
    for text in (frame.before, frame.after):
        if '"""' in text or "{{" in text or "}}" in text:
            raise ConfigError(
                f'a Modelfile needs a template without """ or double braces, got {text!r:.80}; rename the marks.'
            )
    all_stops = list(dict.fromkeys(text for text in (*stops, frame.turn_mark) if text))
    for text in (gguf_name, *all_stops):
        if '"' in text or "\n" in text:
            raise ConfigError(
                f"a Modelfile needs names and stops of one line without quotes, got {text!r:.80}."
            )
    lines = [
        f"FROM ./{gguf_name}",
        f'TEMPLATE """{frame.before}{TURN}{frame.after}"""',
        f"PARAMETER num_ctx {context_length}",
        *(f'PARAMETER stop "{text}"' for text in all_stops),
    ]
    return "\n".join(lines) + "\n"


def chat_template(frame: PromptFrame) -> str:
    """The frame as the Jinja text by which llama.cpp turns a conversation into a prompt.

    Every question gets the frame; earlier answers stand between them as they are.
    """
    before, after = (json.dumps(text, ensure_ascii=False) for text in (frame.before, frame.after))
    return (
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'assistant' -%}{{ message['content'] }}{{ \"\\n\\n\" }}"
        f"{{%- else -%}}{{{{ {before} }}}}{{{{ message['content'] }}}}{{{{ {after} }}}}"
        "{%- endif -%}{%- endfor -%}"
    )
