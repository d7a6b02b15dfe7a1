"""What an assistant answers to test entries, how right that is, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.files import write_text
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import PromptTemplate, answer_end_id, encode_prompt
from scratchlm.evaluation.intervals import bootstrap_interval, wilson_interval
from scratchlm.evaluation.text_scores import exact_match, token_f1
from scratchlm.generation.batches import texts_in_batches
from scratchlm.generation.config import GenerationConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.training.history import History

ANSWERS_AT_ONCE = 32  # as many are lost at most when a run is killed while it answers


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A test entry and what the model said to it."""

    entry: Instruction
    text: str

    @property
    def is_exact(self) -> bool:
        """Does it say what the reference says?"""
        return exact_match(self.text, self.entry.output)

    @property
    def f1(self) -> float:
        """How far its words overlap with the reference's."""
        return token_f1(self.text, self.entry.output)


@dataclass(frozen=True, kw_only=True)
class AnswerScores:
    """Figures over some answers."""

    n: int
    exact_match: float
    interval: tuple[float, float]  # of exact_match, 95 %
    token_f1: float
    f1_interval: tuple[float, float]  # of token_f1, 95 %
    n_empty: int  # answers without a word


def answer_all(
    entries: Sequence[Instruction],
    model: GPTModel,
    tokenizer: Tokenizer,
    chosen: PromptTemplate,
    *,
    max_new_tokens: int,
    batch_size: int = 64,
) -> list[Answer]:
    """The model's greedy answer to each entry, up to its end; the order stays that of the entries."""
    ends = {answer_end_id(chosen, tokenizer), tokenizer.end_of_text_id} - {None}
    stop_ids = tuple(sorted(end for end in ends if end is not None))
    config = GenerationConfig(max_new_tokens=max_new_tokens, stop_ids=stop_ids)
    prompts = [encode_prompt(entry, chosen, tokenizer) for entry in entries]
    texts = texts_in_batches(model, prompts, config, tokenizer=tokenizer, batch_size=batch_size)
    return [
        Answer(entry=entry, text=text.removeprefix(chosen.answer_lead)) for entry, text in zip(entries, texts)
    ]


def answer_into_file(
    entries: Sequence[Instruction],
    model: GPTModel,
    tokenizer: Tokenizer,
    chosen: PromptTemplate,
    path: Path,
    *,
    step: int,
    max_new_tokens: int,
) -> list[Answer]:
    """Answers as `answer_all` gives them, each written to the file as soon as it is there.

    The file holds a JSON line an answer, in the order of the entries: prompt, reference (`output`) and answer
    (`model_response`), in the form that judges read, and the training step of the model that gave it. What the
    file already holds of this step is not asked again, so a run that was killed goes on with the rest; half a
    last line, answers of another step, and those of a group that is not complete go: its prompts are continued
    together, and with other company a score may round the other way.
    """
    history = History(path)
    kept = _already_given(history.records(), entries, chosen, step)
    if len(kept) < len(entries):
        kept = kept[: len(kept) // ANSWERS_AT_ONCE * ANSWERS_AT_ONCE]
    answers = [
        Answer(entry=entry, text=str(record["model_response"])) for entry, record in zip(entries, kept)
    ]
    save_answers(answers, chosen, path, step=step)  # without half a line at its end
    while len(answers) < len(entries):
        group = entries[len(answers) : len(answers) + ANSWERS_AT_ONCE]
        for answer in answer_all(group, model, tokenizer, chosen, max_new_tokens=max_new_tokens):
            history.append(_record(answer, chosen, step))
            answers.append(answer)
    return answers


def save_answers(answers: Sequence[Answer], chosen: PromptTemplate, path: Path, *, step: int) -> None:
    """Answers that are all there already, in the form of `answer_into_file`."""
    lines = (json.dumps(_record(answer, chosen, step), ensure_ascii=False) + "\n" for answer in answers)
    write_text(path, "".join(lines))


def score_answers(answers: Sequence[Answer]) -> AnswerScores:
    """Exact match and word overlap over all answers; an empty answer counts as wrong, never as missing.

    Raises: DataError for no answers.
    """
    if not answers:
        raise DataError("scoring needs answers, got none; check the test entries.")
    n_exact = sum(answer.is_exact for answer in answers)
    f1 = [answer.f1 for answer in answers]
    return AnswerScores(
        n=len(answers),
        exact_match=n_exact / len(answers),
        interval=wilson_interval(n_exact, len(answers)),
        token_f1=sum(f1) / len(f1),
        f1_interval=bootstrap_interval(f1),
        n_empty=sum(not answer.text.strip() for answer in answers),
    )


def _record(answer: Answer, chosen: PromptTemplate, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "prompt": chosen.prompt(answer.entry),
        "instruction": answer.entry.instruction,
        "input": answer.entry.input,
        "output": answer.entry.output,
        "model_response": answer.text,
        "skill": answer.entry.skill,
    }


def _already_given(
    records: Sequence[dict[str, Any]], entries: Sequence[Instruction], chosen: PromptTemplate, step: int
) -> list[dict[str, Any]]:
    """The file's answers from the beginning on, as long as they are this model's to these entries."""
    kept: list[dict[str, Any]] = []
    for entry, record in zip(entries, records):
        expected = _record(Answer(entry=entry, text=str(record.get("model_response"))), chosen, step)
        if record != expected:
            break
        kept.append(record)
    return kept
