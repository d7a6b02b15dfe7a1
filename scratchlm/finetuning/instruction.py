"""A base model into an assistant: it learns to answer, and to stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from scratchlm.core.errors import ConfigError
from scratchlm.core.seed import seed_everything
from scratchlm.data.augmentation import augment
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.instruction_split import InstructionSplit
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.prompt_templates import template
from scratchlm.finetuning.answer_loss import InstructionTask
from scratchlm.finetuning.answers import Answer, AnswerScores, answer_into_file, score_answers
from scratchlm.finetuning.base import load_base, readable_length, tell_unknown_marks
from scratchlm.finetuning.lora import merge_lora, merged_copy
from scratchlm.finetuning.lora_settings import ADAPTER_FOLDER, LoRASettings
from scratchlm.finetuning.peft_adapter import export_peft
from scratchlm.model.config import GPTConfig
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import TrainingConfig
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.tensorboard import TensorBoard, next_step
from scratchlm.training.trainer import Trainer

SplitKind = Literal["book", "leak-free"]


@dataclass(frozen=True, kw_only=True)
class InstructSettings(TrainingConfig, LoRASettings):
    """How to train an assistant: the training settings, and what only assistants have."""

    template: str = "alpaca"  # or plain, phi3, chatml, llama3: text around a request; stored with the model
    system: str = ""  # system prompt of the entries that have none of their own; stored with the model
    mask_instruction: bool = True  # learn the answers only; off = the prompts too, as the book does
    last_turn_only: bool = False  # of a conversation learn the last answer only, not all of them
    packing: bool = False  # several entries in a row, instead of batches of similar length
    split: SplitKind = "book"  # in file order 85/10/5 %, or leak-free: near-duplicates on one side
    drop_duplicates: bool = False  # leave out entries that nearly repeat an earlier one
    augment: int = 0  # copies of each training entry in which the instruction begins in other words
    max_length: int | None = None  # tokens of prompt and answer; None = as many as the model can read
    drop_rate: float | None = None  # dropout while fine-tuning; None = the base's
    max_new_tokens: int = 64  # of an answer, when the test entries are answered

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        self.check_writes_no_samples()
        template(self.template)
        augment((), self.augment, seed=self.seed)
        self.check_lora()
        GPTConfig(drop_rate=self.drop_rate or 0.0)  # refuses what no model can have
        if self.max_new_tokens < 1 or (self.max_length is not None and self.max_length < 1):
            raise ConfigError(
                f"max_new_tokens and max_length must be at least 1, got {self.max_new_tokens} and {self.max_length}; "
                "raise them."
            )


@dataclass(frozen=True, kw_only=True)
class InstructResult:
    """What fine-tuning an assistant reached."""

    folder: Path
    answers: list[Answer]  # to the test entries, in their order
    scores: AnswerScores
    progress: Progress
    used_step: int  # of the model that answered: see the setting `use`
    val_loss: float | None  # of that model
    resumed_from: int | None
    earlier_s: float  # training time before this call, when it resumed a run
    n_trained: int  # trainable numbers
    n_truncated: int  # training entries that were cut
    n_left_out: int  # training entries of which no answer was left
    padding_share: float  # of all positions in an epoch's batches
    tokens_per_s: float  # real tokens, over the time spent in steps


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

    The answers to the test entries are saved as `answers.jsonl` (see `answer_into_file`).
    Seeds torch's global generator with `settings.seed`.
    Raises: the readers' and Trainer's errors.
    """
    out.mkdir(parents=True, exist_ok=True)
    chosen = template(settings.template)
    seed_everything(settings.seed)
    start = load_base(
        base,
        training_texts=(chosen.full(entry) for entry in split.train),
        device=device,
        drop_rate=settings.drop_rate,
        role_tokens=chosen.marks,
    )
    tell_unknown_marks(start, chosen.marks, notify)
    max_length = readable_length(start, settings.max_length, notify)

    def loader(entries: Sequence[Instruction], *, shuffle: bool) -> BatchLoader:
        examples = InstructionExamples(
            entries,
            start.tokenizer,
            template=chosen,
            mask_instruction=settings.mask_instruction,
            last_turn_only=settings.last_turn_only,
            max_length=max_length,
            packing=settings.packing,
        )
        return BatchLoader(
            examples,
            batch_size=min(settings.batch_size, len(examples)),
            seed=settings.seed,
            shuffle=shuffle,
            bucket_by_length=not settings.packing,
        )

    train = loader(split.train, shuffle=True)
    assert isinstance(train.examples, InstructionExamples)
    if settings.batch_size > len(train.examples):
        notify(f"batch_size {settings.batch_size} is more than the {len(train.examples)} training entries")
    notify(f"{len(split.train):,} entries train, {len(split.val):,} validate, {len(split.test):,} test")
    saved_task: dict[str, object] = {"kind": "instruction", "template": chosen.name}
    n_exchanges = max(entry.n_exchanges for entry in split.train)
    saved_task |= {"system": settings.system} if settings.system else {}
    saved_task |= {"exchanges": n_exchanges} if n_exchanges > 1 else {}
    facts = {"data_fingerprint": _fingerprint(split), "base": base, "base_sha256": start.sha256}
    has_lora = settings.lora_rank is not None
    if has_lora:
        settings.add_corrections(start.model)
    n_trained = start.model.n_parameters(trainable_only=True)
    notify(f"{n_trained:,} of {start.model.n_parameters():,} parameters learn")
    with TensorBoard(out / "tensorboard", purge_step=next_step(out)) as tensorboard:
        trainer = Trainer(
            start.model,
            InstructionTask(label_smoothing=settings.label_smoothing),
            settings,
            run=RunFolder(
                path=out,
                tokenizer=start.tokenizer,
                task=saved_task,
                facts=facts,
                saved_form=merged_copy if has_lora else None,
            ),
            callbacks=[tensorboard, *callbacks],
        )
        progress = trainer.fit(train, loader(split.val, shuffle=False), resume=resume)
    if has_lora:
        if not start.is_random:
            export_peft(out / ADAPTER_FOLDER, start.model, base=base)
        merge_lora(start.model)
    answers = answer_into_file(
        split.test,
        start.model,
        start.tokenizer,
        chosen,
        out / "answers.jsonl",
        step=trainer.used_step,
        max_new_tokens=settings.max_new_tokens,
    )
    return InstructResult(
        folder=out,
        answers=answers,
        scores=score_answers(answers),
        progress=progress,
        used_step=trainer.used_step,
        val_loss=trainer.used_val_loss,
        resumed_from=trainer.resumed_from,
        earlier_s=trainer.earlier_s,
        n_trained=n_trained,
        n_truncated=train.examples.n_truncated,
        n_left_out=train.examples.n_left_out,
        padding_share=train.examples.padding_share(train.indices(0)),
        tokens_per_s=progress.tokens / max(progress.steps_s, 1e-9),
    )


def _fingerprint(split: InstructionSplit) -> str:
    """Which entries train and validate, and in which order: it decides the batches."""
    texts = [[entry.key for entry in part] for part in (split.train, split.val)]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
