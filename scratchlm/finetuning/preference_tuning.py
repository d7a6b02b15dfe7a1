"""Preference tuning from pairs of answers to a run folder: an assistant that answers as people like it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scratchlm.core.errors import ConfigError
from scratchlm.core.seed import seed_everything
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.preference_batches import PreferenceExamples
from scratchlm.data.preference_rows import Preference, PreferenceSplit
from scratchlm.data.prompt_templates import PromptTemplate, template
from scratchlm.finetuning.answers import Answer, answer_into_file
from scratchlm.finetuning.base import load_base, readable_length, tell_unknown_marks
from scratchlm.finetuning.lora import merge_lora, merged_copy
from scratchlm.finetuning.lora_settings import ADAPTER_FOLDER, LoRASettings
from scratchlm.finetuning.peft_adapter import export_peft
from scratchlm.finetuning.preference import LossKind
from scratchlm.finetuning.preference_task import PreferenceTask, ask_reference
from scratchlm.model.config import GPTConfig
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import TrainingConfig
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.tensorboard import TensorBoard, next_step
from scratchlm.training.trainer import Trainer

DEFAULT_TEMPLATE = "alpaca"


@dataclass(frozen=True, kw_only=True)
class PreferSettings(TrainingConfig, LoRASettings):
    """How to tune on preferences: the training settings, and what only preferences have.

    `label_smoothing` is here the share of pairs that may be labelled the wrong way round, for the loss cdpo.
    """

    loss: LossKind = "dpo"  # what is made small: the book's, or one of its relatives
    beta: float | None = None  # how dearly a change is paid; None = 0.1, and 2 for simpo
    per_token: bool = False  # an answer's mean log-probability, as in the book; orpo, simpo: always
    simpo_margin: float = 1.0  # by how much simpo wants the chosen answer's reward to win
    template: str | None = None  # the text around the request; None = the base's own, or alpaca
    max_length: int | None = None  # tokens of prompt and answer; None = as many as the model can read
    drop_rate: float = 0.0  # dropout while tuning; the reference is asked without
    max_new_tokens: int = 64  # of an answer, when the test requests are answered

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        self.check_writes_no_samples()
        self.task()
        if self.template is not None:
            template(self.template)
        lengths = [self.max_new_tokens, *(n for n in (self.max_length,) if n is not None)]
        if min(lengths) < 1:
            raise ConfigError(
                f"max_new_tokens and max_length must be at least 1, got {min(lengths)}; raise it."
            )
        self.check_lora()
        GPTConfig(drop_rate=self.drop_rate)  # refuses what no model can have
        plain = PreferSettings.__dataclass_fields__
        if self.loss != "simpo" and self.simpo_margin != plain["simpo_margin"].default:
            raise ConfigError(
                f"simpo_margin belongs to the loss simpo, got {self.simpo_margin} with {self.loss}; choose simpo."
            )

    def task(self) -> PreferenceTask:
        """What these settings make the Trainer do.

        Raises: ConfigError for settings of another loss than the chosen one.
        """
        return PreferenceTask(
            self.loss,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            per_token=self.per_token,
            margin=self.simpo_margin,
        )


@dataclass(frozen=True, kw_only=True)
class PreferResult:
    """What preference tuning reached, on pairs that it never saw."""

    folder: Path
    adapter: Path | None  # the LoRA adapter's folder; None without LoRA, and on a base of fresh weights
    template: str
    before: dict[str, float]  # PreferenceTask.metrics of the base on the test pairs
    after: dict[str, float]  # of the tuned model
    test_n: int  # pairs that these figures are over
    beta: float
    answers: list[Answer]  # to the test requests; the reference is the chosen answer
    progress: Progress
    used_step: int  # of the tuned model that was tested: see the setting `use`
    val_loss: float | None  # of that model
    resumed_from: int | None
    earlier_s: float  # training time before this call, when it resumed a run
    n_trained: int  # numbers that learnt
    n_truncated: int  # training pairs of which something was cut
    n_left_out: int  # training pairs of which nothing was left to compare


def finetune_preferences(
    split: PreferenceSplit,
    settings: PreferSettings,
    out: Path,
    *,
    base: str,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    notify: Callable[[str], None] = lambda message: None,
) -> PreferResult:
    """Pairs of answers and a base model to a tested assistant in the run folder `out`.

    The base itself is the reference. It is asked once, before anything learns, so that it is not needed in
    memory afterwards; a resumed run asks it again and gets the same answers. With `lora_rank` only corrections
    learn: the checkpoints hold merged weights, and the corrections alone are written to `out/adapter`.
    Seeds torch's global generator with `settings.seed`.
    Raises: the readers' and Trainer's errors.
    """
    out.mkdir(parents=True, exist_ok=True)
    seed_everything(settings.seed)
    words = template(settings.template or DEFAULT_TEMPLATE)
    texts = (words.full(pair.with_answer(pair.chosen)) for pair in split.train)
    start = load_base(
        base, training_texts=texts, device=device, drop_rate=settings.drop_rate, role_tokens=words.marks
    )
    chosen = template(settings.template or str(start.task.get("template", DEFAULT_TEMPLATE)))
    model, task = start.model, settings.task()
    tell_unknown_marks(start, chosen.marks, notify)
    split = _told(split, system=str(start.task.get("system", "")))
    max_length = readable_length(start, settings.max_length, notify)
    parts = {
        name: PreferenceExamples(pairs, start.tokenizer, template=chosen, max_length=max_length)
        for name, pairs in (("train", split.train), ("val", split.val), ("test", split.test))
    }
    n_train, n_val, n_test = map(len, parts.values())
    notify(f"{n_train:,} pairs train, {n_val:,} validate, {n_test:,} test")
    if settings.batch_size > n_train:
        notify(f"batch_size {settings.batch_size} is more than the {n_train} training pairs")
    if task.needs_reference:
        for examples in parts.values():
            ask_reference(model, examples, batch_size=settings.batch_size)
    loaders = {
        name: BatchLoader(
            examples,
            batch_size=min(settings.batch_size, len(examples)),
            seed=settings.seed,
            shuffle=name == "train",
            bucket_by_length=True,
        )
        for name, examples in parts.items()
    }
    before = task.metrics(model, loaders["test"])
    if settings.lora_rank is not None:
        settings.add_corrections(model)
    n_trained = model.n_parameters(trainable_only=True)
    notify(f"{n_trained:,} of {model.n_parameters():,} parameters learn")
    kept: dict[str, object] = {"system": start.task["system"]} if start.task.get("system") else {}
    n_exchanges = max(int(start.task.get("exchanges", 1)), *(len(pair.history) + 1 for pair in split.train))
    kept |= {"exchanges": n_exchanges} if n_exchanges > 1 else {}
    run = RunFolder(
        path=out,
        tokenizer=start.tokenizer,
        task={"kind": "instruction", "template": chosen.name, **kept},
        facts={
            "data_fingerprint": _fingerprint(split, chosen),
            "base": base,
            "base_sha256": start.sha256,
        },
        saved_form=None if settings.lora_rank is None else merged_copy,
    )
    with TensorBoard(out / "tensorboard", purge_step=next_step(out)) as tensorboard:
        trainer = Trainer(model, task, settings, run=run, callbacks=[tensorboard, *callbacks])
        progress = trainer.fit(loaders["train"], loaders["val"], resume=resume)
    after = task.metrics(model, loaders["test"])
    adapter = None
    if settings.lora_rank is not None:
        if not start.is_random:  # nobody could find the weights that they correct
            adapter = export_peft(out / ADAPTER_FOLDER, model, base=base)
        merge_lora(model)
    answers = answer_into_file(
        [pair.with_answer(pair.chosen) for pair in split.test],
        model,
        start.tokenizer,
        chosen,
        out / "answers.jsonl",
        step=trainer.used_step,
        max_new_tokens=settings.max_new_tokens,
    )
    return PreferResult(
        folder=out,
        adapter=adapter,
        template=chosen.name,
        before=before,
        after=after,
        test_n=len(parts["test"]),
        beta=task.beta,
        answers=answers,
        progress=progress,
        used_step=trainer.used_step,
        val_loss=trainer.used_val_loss,
        resumed_from=trainer.resumed_from,
        earlier_s=trainer.earlier_s,
        n_trained=n_trained,
        n_truncated=parts["train"].n_truncated,
        n_left_out=parts["train"].n_left_out,
    )


def _told(split: PreferenceSplit, *, system: str) -> PreferenceSplit:
    """The pairs with the base's system prompt, which `chat` will ask with, where they have none of their own."""
    if not system:
        return split
    train, val, test = (
        [pair if pair.system else dataclasses.replace(pair, system=system) for pair in part]
        for part in (split.train, split.val, split.test)
    )
    return PreferenceSplit(train=train, val=val, test=test)


def _fingerprint(split: PreferenceSplit, words: PromptTemplate) -> str:
    """Which pairs train and validate, in which words, and in which order: it decides the batches."""

    def texts(pairs: Sequence[Preference]) -> list[list[object]]:
        return [[*pair.with_answer(pair.chosen).key, pair.rejected] for pair in pairs]

    parts = [words.name, texts(split.train), texts(split.val)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
