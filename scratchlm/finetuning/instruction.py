"""A base model into an assistant: it learns to answer, and to stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import write_text
from scratchlm.core.protocols import Tokenizer
from scratchlm.core.seed import seed_everything
from scratchlm.data.instruction import InstructionExamples
from scratchlm.data.instructions import Instruction, InstructionSplit
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.prompts import PromptTemplate, template
from scratchlm.evaluation.intervals import wilson_interval
from scratchlm.evaluation.text_scores import exact_match, token_f1
from scratchlm.finetuning.base import load_base
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model.gpt import GPTModel
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import TrainingConfig
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.tensorboard import TensorBoard, next_step
from scratchlm.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class InstructSettings(TrainingConfig):
    """How to train an assistant: the training settings, and what only assistants have."""

    template: str = "alpaca"  # the text around instruction and input; stored with the model
    mask_instruction: bool = True  # learn the answers only; off = the prompts too, as the book does
    max_length: int | None = None  # tokens of prompt and answer; None = as many as the model can read
    drop_rate: float | None = None  # dropout while fine-tuning; None = the base's
    max_new_tokens: int = 64  # of an answer, when the test entries are answered

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        template(self.template)
        if self.max_new_tokens < 1 or (self.max_length is not None and self.max_length < 1):
            raise ConfigError(
                f"max_new_tokens and max_length must be at least 1, got {self.max_new_tokens} and {self.max_length}; "
                "raise them."
            )


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
    n_empty: int  # answers without a word


@dataclass(frozen=True, kw_only=True)
class InstructResult:
    """What fine-tuning an assistant reached."""

    folder: Path
    answers: list[Answer]  # to the test entries, in their order
    scores: AnswerScores
    progress: Progress
    resumed_from: int | None
    earlier_s: float  # training time before this call, when it resumed a run
    n_truncated: int


def finetune_instructions(
    split: InstructionSplit,
    settings: InstructSettings,
    out: Path,
    *,
    base: str,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    notify: Callable[[str], None] = lambda message: None,
) -> InstructResult:
    """Instruction entries and a base model to a tested assistant in the run folder `out`.

    The answers to the test entries are saved as `answers.jsonl` (instruction, input, output, model_response).
    Seeds torch's global generator with `settings.seed`.
    Raises: the readers' and Trainer's errors.
    """
    out.mkdir(parents=True, exist_ok=True)
    chosen = template(settings.template)
    seed_everything(settings.seed)
    texts = (chosen.full(entry) for entry in split.train)
    start = load_base(base, training_texts=texts, device=device, drop_rate=settings.drop_rate)
    context = start.model.config.context_length
    max_length = context if settings.max_length is None else min(settings.max_length, context)

    def loader(entries: Sequence[Instruction], *, shuffle: bool) -> BatchLoader:
        examples = InstructionExamples(
            entries,
            start.tokenizer,
            template=chosen,
            mask_instruction=settings.mask_instruction,
            max_length=max_length,
        )
        batch_size = min(settings.batch_size, len(examples))
        return BatchLoader(
            examples, batch_size=batch_size, seed=settings.seed, shuffle=shuffle, bucket_by_length=True
        )

    train = loader(split.train, shuffle=True)
    assert isinstance(train.examples, InstructionExamples)
    notify(f"{len(split.train):,} entries train, {len(split.val):,} validate, {len(split.test):,} test")
    saved_task = {"kind": "instruction", "template": chosen.name}
    facts = {"data_fingerprint": _fingerprint(split.train), "base": base, "base_sha256": start.sha256}
    with TensorBoard(out / "tensorboard", purge_step=next_step(out)) as tensorboard:
        trainer = Trainer(
            start.model,
            PretrainingTask(label_smoothing=settings.label_smoothing),
            settings,
            run=RunFolder(path=out, tokenizer=start.tokenizer, task=saved_task, facts=facts),
            callbacks=[tensorboard, *callbacks],
        )
        progress = trainer.fit(train, loader(split.val, shuffle=False), resume=resume)
    answers = answer_all(
        split.test, start.model, start.tokenizer, chosen, max_new_tokens=settings.max_new_tokens
    )
    save_answers(answers, out / "answers.jsonl")
    return InstructResult(
        folder=out,
        answers=answers,
        scores=score_answers(answers),
        progress=progress,
        resumed_from=trainer.resumed_from,
        earlier_s=trainer.earlier_s,
        n_truncated=train.examples.n_truncated,
    )


def answer_all(
    entries: Sequence[Instruction],
    model: GPTModel,
    tokenizer: Tokenizer,
    chosen: PromptTemplate,
    *,
    max_new_tokens: int,
    batch_size: int = 64,
) -> list[Answer]:
    """The model's greedy answer to each entry, up to its end-of-text; the order stays that of the entries."""
    end = tokenizer.end_of_text_id
    config = GenerationConfig(max_new_tokens=max_new_tokens, stop_ids=() if end is None else (end,))
    prompts = [tokenizer.encode(chosen.prompt(entry)) for entry in entries]
    order = sorted(range(len(entries)), key=lambda i: len(prompts[i]))  # batches of similar length
    texts: dict[int, str] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        results = generate_ids(model, [prompts[i] for i in rows], config, tokenizer=tokenizer)
        texts |= {i: result.text.removeprefix(chosen.answer_lead) for i, result in zip(rows, results)}
    return [Answer(entry=entry, text=texts[i]) for i, entry in enumerate(entries)]


def score_answers(answers: Sequence[Answer]) -> AnswerScores:
    """Exact match and word overlap over all answers; an empty answer counts as wrong, never as missing.

    Raises: DataError for no answers.
    """
    if not answers:
        raise DataError("scoring needs answers, found none; check the test entries.")
    n_exact = sum(answer.is_exact for answer in answers)
    return AnswerScores(
        n=len(answers),
        exact_match=n_exact / len(answers),
        interval=wilson_interval(n_exact, len(answers)),
        token_f1=sum(answer.f1 for answer in answers) / len(answers),
        n_empty=sum(not answer.text.strip() for answer in answers),
    )


def save_answers(answers: Sequence[Answer], path: Path) -> None:
    """Prompt, reference and answer, a JSON line each, in the form that judges read."""
    lines = (
        json.dumps(
            {
                "instruction": answer.entry.instruction,
                "input": answer.entry.input,
                "output": answer.entry.output,
                "model_response": answer.text,
                "skill": answer.entry.skill,
            },
            ensure_ascii=False,
        )
        for answer in answers
    )
    write_text(path, "".join(f"{line}\n" for line in lines))


def _fingerprint(entries: Sequence[Instruction]) -> str:
    """Which entries were trained on, in any order."""
    rows = sorted(json.dumps([e.instruction, e.input, e.output]) for e in entries)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
