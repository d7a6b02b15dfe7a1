"""Write a model's prompt format for other programs: Ollama's Modelfile, llama.cpp's chat template."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from scratchlm.core.errors import ConfigError

TURN = "{{ .Prompt }}"  # where Ollama inserts the question


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFrame:
    """The fixed text around a question; empty for a base model, which only continues text."""

    before: str = ""
    after: str = ""  # the end of every prompt, before the answer
    answer_lead: str = ""  # the beginning of every answer
    answer_end: str = "\n\n"  # the end of every answer
    next_before: str | None = None  # replaces `before` from the second question on; None = the same
    before_system: str = ""
    after_system: str | None = None  # before the first question; None = a blank line and `before`

    @property
    def turn_mark(self) -> str:
        """The line that begins the next question, used as a stop text."""
        lines = [line.strip() for line in self.before.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def modelfile(
    gguf_name: str, *, frame: PromptFrame | None, context_length: int, stops: Sequence[str] = ()
) -> str:
    '''The text of an Ollama Modelfile for a GGUF file in the same folder.

    frame: None for a file with its own chat template, which Ollama then uses.
    stops: texts that end an answer, besides the frame's own mark of a new question.
    Raises: ConfigError when the frame or a stop has characters that a Modelfile cannot hold.
    Source: Ollama's documentation of the Modelfile: FROM, TEMPLATE, PARAMETER.
    Example:
        >>> print(modelfile("a.gguf", frame=PromptFrame(before="Q: ", after="\\nA:"), context_length=64), end="")
        FROM ./a.gguf
        TEMPLATE """Q: {{ .Prompt }}
        A:"""
        PARAMETER num_ctx 64
        PARAMETER stop "Q:"
    '''
    for text in () if frame is None else (frame.before, frame.after):
        if '"""' in text or "{{" in text or "}}" in text:
            raise ConfigError(
                f'a Modelfile template cannot hold """ or double braces, got {text!r:.80}; rename the marks.'
            )
    of_frame = () if frame is None else (frame.answer_end.strip(), frame.turn_mark)
    all_stops = list(dict.fromkeys(text for text in (*stops, *of_frame) if text))
    for text in (gguf_name, *all_stops):
        if '"' in text or "\n" in text:
            raise ConfigError(
                f"names and stops in a Modelfile must be one line without quotes, got {text!r:.80}; rename them."
            )
    lines = [
        f"FROM ./{gguf_name}",
        *([] if frame is None else [f'TEMPLATE """{frame.before}{TURN}{frame.after}"""']),
        f"PARAMETER num_ctx {context_length}",
        *(f'PARAMETER stop "{text}"' for text in all_stops),
    ]
    return "\n".join(lines) + "\n"


def chat_template(frame: PromptFrame) -> str:
    """The frame as a Jinja template with which llama.cpp turns a conversation into a prompt.

    Every question gets the fixed text; a system message comes first, and answers follow their questions.
    """
    parts = {
        "before": frame.before,
        "after": frame.after,
        "lead": frame.answer_lead,
        "end": frame.answer_end,
        "next": frame.before if frame.next_before is None else frame.next_before,
        "before_system": frame.before_system,
        "after_system": f"\n\n{frame.before}" if frame.after_system is None else frame.after_system,
    }
    show = {name: f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" for name, text in parts.items()}
    content = "{{ message['content'] }}"
    return (
        "{%- for message in messages -%}"
        f"{{%- if message['role'] == 'assistant' -%}}{show['lead']}{content}{show['end']}"
        f"{{%- elif message['role'] == 'system' -%}}{show['before_system']}{content}{show['after_system']}"
        f"{{%- else -%}}{{%- if loop.first -%}}{show['before']}"
        f"{{%- elif messages[loop.index0 - 1]['role'] != 'system' -%}}{show['next']}{{%- endif -%}}"
        f"{content}{show['after']}"
        "{%- endif -%}{%- endfor -%}"
    )
