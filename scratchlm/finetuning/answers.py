"""Generate an assistant's answers to test entries, save them while they are generated, and score them."""

import json
from collections.abc import Iterator, Sequence
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
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_texts
from scratchlm.model.gpt import GPTModel
from scratchlm.training.distributed import current_ranks
from scratchlm.training.history import History


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A test entry and the model's answer."""

    entry: Instruction
    text: str

    @property
    def is_exact(self) -> bool:
        """Whether the answer matches the reference."""
        return exact_match(self.text, self.entry.output)


@dataclass(frozen=True, kw_only=True)
class AnswerScores:
    """Scores over a list of answers."""

    n: int
    exact_match: float
    interval: tuple[float, float]  # of exact_match, 95 %
    token_f1: float
    f1_interval: tuple[float, float]  # of token_f1, 95 %
    n_empty: int  # answers without text


def answer_all(
    entries: Sequence[Instruction],
    model: GPTModel,
    tokenizer: Tokenizer,
    chosen: PromptTemplate,
    *,
    max_new_tokens: int,
    batch_size: int = 64,
) -> Iterator[Answer]:
    """Generate the model's greedy answer to each entry, in the order of the entries, batch_size of them at a time."""
    ends = {answer_end_id(chosen, tokenizer), tokenizer.end_of_text_id}
    stop_ids = tuple(sorted(end for end in ends if end is not None))
    config = GenerationConfig(max_new_tokens=max_new_tokens, stop_ids=stop_ids)
    prompts = [encode_prompt(entry, chosen, tokenizer) for entry in entries]
    texts = generate_texts(model, prompts, config, tokenizer=tokenizer, batch_size=batch_size)
    for entry, text in zip(entries, texts, strict=True):
        yield Answer(entry=entry, text=text.removeprefix(chosen.answer_lead))


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
    """Answer entries as `answer_all` does, and append each to a JSON lines file, so that a killed run resumes.

    A line has the prompt, the reference (`output`) and the answer (`model_response`), in the format that
    judges read, and the training step of the model. Existing answers of this step are kept; an incomplete last line
    and answers of another step are dropped.
    """
    history, ranks = History(path), current_ranks()
    with ranks.main_first():  # the other ranks read the answers from its file
        answers = _saved_answers(history.records(), entries, chosen, step)
        if not ranks.is_main:
            return answers
        lines = (json.dumps(_record(answer, chosen, step), ensure_ascii=False) + "\n" for answer in answers)
        write_text(path, "".join(lines))  # without an incomplete last line
        rest = entries[len(answers) :]
        for answer in answer_all(rest, model, tokenizer, chosen, max_new_tokens=max_new_tokens):
            history.append(_record(answer, chosen, step))
            answers.append(answer)
    return answers


def score_answers(answers: Sequence[Answer]) -> AnswerScores:
    """Exact match and token F1 over all answers; an empty answer counts as wrong.

    Raises: DataError for no answers.
    """
    if not answers:
        raise DataError("there are no answers to score; check the test entries.")
    n_exact = sum(answer.is_exact for answer in answers)
    f1 = [token_f1(answer.text, answer.entry.output) for answer in answers]
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


def _saved_answers(
    records: Sequence[dict[str, Any]], entries: Sequence[Instruction], chosen: PromptTemplate, step: int
) -> list[Answer]:
    """The first records of the file that are answers of this step's model to these entries."""
    answers: list[Answer] = []
    for entry, record in zip(entries, records):
        answer = Answer(entry=entry, text=str(record.get("model_response")))
        if record != _record(answer, chosen, step):
            break
        answers.append(answer)
    return answers
