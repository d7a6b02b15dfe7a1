"""Read benchmark files in their published formats as three kinds of question: cloze, choice and generation.

Cloze: `{"text": ...}`, the model predicts the last word (LAMBADA). Choice: `{"ctx", "endings", "label"}` (HellaSwag),
`{"question", "choices": {"text", "label"}, "answerKey"}` (ARC), or `{"prompt" or "question", "choices": [...],
"answer": index or text}`. Generation: `{"prompt" or "question", "answer": text or list of texts}`; if the answer is a
number, or a solution that ends in `#### NUMBER` (GSM8K), only the number counts.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from scratchlm.core.errors import DataError
from scratchlm.data.row_files import read_rows
from scratchlm.evaluation.text_scores import marked_number

TaskKind = Literal["cloze", "choice", "generation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClozeItem:
    """A text whose last word the model predicts."""

    context: str
    target: str  # the last word and the white space before it
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceItem:
    """A question with several answers, one of them correct."""

    context: str
    delimiter: str  # the text between the context and a choice
    choices: tuple[str, ...]
    answer: int
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationItem:
    """A prompt and its correct answers; if `number` is set, the final number of an answer must equal it."""

    prompt: str
    answers: tuple[str, ...]
    origin: str
    number: Decimal | None = None


TaskItem = ClozeItem | ChoiceItem | GenerationItem


def read_task_items(
    path: str | Path, *, kind: TaskKind | None = None, limit: int | None = None
) -> tuple[TaskKind, list[TaskItem]]:
    """Read a file's questions, and their kind, which is detected from the first row unless given.

    limit: maximum number of questions; None reads all.
    Raises: DataError naming file and row for a row of another kind or with a missing field, and for no rows.
    """
    items: list[TaskItem] = []
    for value, origin in read_rows(path):
        if limit is not None and len(items) == limit:
            break
        kind = kind or _kind_of(value, origin)
        items.append(_READERS[kind](value, origin))
    if kind is None or not items:
        raise DataError(f"{path} must hold questions, got none; check the file and --limit.")
    return kind, items


def _kind_of(value: Mapping[str, Any], origin: str) -> TaskKind:
    if "endings" in value or "choices" in value:
        return "choice"
    if ("prompt" in value or "question" in value) and "answer" in value:
        return "generation"
    if "text" in value:
        return "cloze"
    raise DataError(
        f"{origin} must have text, or choices or endings, or prompt and answer; got "
        f"{', '.join(map(repr, value)) or 'nothing'}; see `scratchlm evaluate task --help`."
    )


def _cloze(value: Mapping[str, Any], origin: str) -> ClozeItem:
    found = re.fullmatch(r"(.*\S)(\s+\S+)", _text(value, "text", origin).rstrip(), re.DOTALL)
    if found is None:
        raise DataError(f"{origin} must have at least two words in 'text', got fewer; remove the line.")
    return ClozeItem(context=found[1], target=found[2], origin=origin)


def _choice(value: Mapping[str, Any], origin: str) -> ChoiceItem:
    if "endings" in value:
        choices, context = _texts(value, "endings", origin), _hellaswag_context(value, origin)
        choices, wanted = tuple(map(_without_brackets, choices)), value.get("label")
        labels = tuple(str(i) for i in range(len(choices)))
    elif isinstance(value.get("choices"), dict):
        context = f"Question: {_text(value, 'question', origin)}\nAnswer:"
        choices = _texts(value["choices"], "text", origin)
        labels, wanted = _texts(value["choices"], "label", origin), value.get("answerKey")
        if len(labels) != len(choices):
            raise DataError(
                f"{origin} must label every choice, got {len(labels)} labels for {len(choices)} choices; correct it."
            )
    elif "choices" not in value:
        raise DataError(
            f"{origin} must have choices or endings, got {', '.join(map(repr, value)) or 'nothing'}; a file holds "
            "questions of one kind, that of --kind or of its first line."
        )
    else:
        is_asked = "prompt" not in value
        context = _text(value, "question" if is_asked else "prompt", origin)
        context = f"Question: {context}\nAnswer:" if is_asked else context
        choices, wanted = _texts(value, "choices", origin), value.get("answer")
        labels = choices if isinstance(wanted, str) else tuple(str(i) for i in range(len(choices)))
    wanted = str(wanted) if isinstance(wanted, (int, str)) and not isinstance(wanted, bool) else ""
    if labels is choices and choices.count(wanted) > 1:
        raise DataError(
            f"{origin} must name the correct choice, got {wanted!r:.40}, which occurs twice; give its index, from 0."
        )
    if len(choices) < 2 or wanted not in labels:
        raise DataError(
            f"{origin} must have at least two choices and name the correct one, got {len(choices)} and the answer "
            f"{wanted!r}; it must be one of {', '.join(labels)!r:.80}. Test sets of contests have no answers."
        )
    delimiter = "" if not context or context[-1].isspace() else " "
    return ChoiceItem(
        context=context, delimiter=delimiter, choices=choices, answer=labels.index(wanted), origin=origin
    )


def _hellaswag_context(value: Mapping[str, Any], origin: str) -> str:
    """HellaSwag's context as in lm-evaluation-harness: activity, colon, sentence, start of the next one."""
    if isinstance(value.get("ctx_a"), str) and isinstance(value.get("ctx_b"), str):
        context = f"{value['ctx_a']} {value['ctx_b'].capitalize()}"
    else:
        context = _text(value, "ctx", origin)
    activity = value.get("activity_label")
    return _without_brackets(f"{activity}: {context}" if isinstance(activity, str) else context)


def _without_brackets(text: str) -> str:
    """Remove WikiHow's markup, such as [header], from the data set's texts."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _generation(value: Mapping[str, Any], origin: str) -> GenerationItem:
    answer = value.get("answer")
    if isinstance(answer, (int, float)) and not isinstance(answer, bool) and math.isfinite(answer):
        value = {**value, "answer": f"#### {Decimal(str(answer)):f}"}
    is_list = isinstance(answer, list)
    answers = _texts(value, "answer", origin) if is_list else (_text(value, "answer", origin),)
    prompt = _text(value, "prompt" if "prompt" in value else "question", origin)
    if not answers:
        raise DataError(f"{origin} must have an answer, got an empty list; remove the line.")
    number = None if is_list else marked_number(answers[0])
    if number is not None and "prompt" not in value:
        prompt = f"Question: {prompt}\nAnswer:"
    return GenerationItem(prompt=prompt, answers=answers, origin=origin, number=number)


def _text(value: Mapping[str, Any], key: str, origin: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{origin} must have text in {key!r}, got {text!r:.40}; fill it or remove the line.")
    return text


def _texts(value: Mapping[str, Any], key: str, origin: str) -> tuple[str, ...]:
    texts = value.get(key)
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{origin} must have a list of texts in {key!r}, got {texts!r:.60}; correct it.")
    return tuple(texts)


_READERS: dict[TaskKind, Callable[[Mapping[str, Any], str], TaskItem]] = {
    "cloze": _cloze,
    "choice": _choice,
    "generation": _generation,
}
