"""Train a base model on a task in a run folder: code shared by all kinds of fine-tuning."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.protocols import Task
from scratchlm.data.loaders import BatchLoader, Examples
from scratchlm.finetuning.base import Base
from scratchlm.finetuning.lora import merged_copy
from scratchlm.finetuning.peft import ADAPTER_FOLDER, export_peft
from scratchlm.finetuning.settings import FineTuningSettings
from scratchlm.training.callbacks import Callback
from scratchlm.training.distributed import current_ranks
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.tensorboard import tensorboard_of
from scratchlm.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """The result of a fine-tuning run; each kind of fine-tuning adds its own metrics."""

    progress: Progress
    used_step: int  # step of the model that was tested: see the setting `use`
    val_loss: float | None  # of that model
    resumed_from: int | None
    earlier_s: float  # training time before this call, when it resumed a run
    n_trained: int  # trainable parameters
    adapter: Path | None = None  # the LoRA adapter's folder; None without LoRA, and for a random base


def make_loader(
    examples: Examples, settings: FineTuningSettings, *, shuffle: bool, bucket_by_length: bool = True
) -> BatchLoader:
    """Batches of up to `batch_size` examples, by default of similar length."""
    return BatchLoader(
        examples,
        batch_size=min(settings.batch_size, len(examples)),
        seed=settings.seed,
        shuffle=shuffle,
        bucket_by_length=bucket_by_length,
    )


def fine_tune(
    base: Base,
    task: Task,
    settings: FineTuningSettings,
    train: BatchLoader,
    val: BatchLoader,
    *,
    out: Path | None,
    saved_task: Mapping[str, Any],
    facts: Mapping[str, Any],
    noun: str,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    notify: Callable[[str], None] = lambda message: None,
) -> FineTuned:
    """Train the base's trainable parameters in the run folder `out`; None trains without a folder.

    With LoRA the checkpoints have merged weights, and the adapter alone is written to `out/adapter`, unless
    the base is random and so not available elsewhere. The model keeps its LoRA layers.
    noun: name of an example in messages. saved_task and facts: contents of the checkpoints' task.json and manifest.
    Raises: the Trainer's errors.
    """
    n_trained = base.model.n_parameters(trainable_only=True)
    if settings.batch_size > len(train.examples):
        notify(f"batch_size {settings.batch_size} is more than the {len(train.examples)} training {noun}")
    notify(
        f"{n_trained:,} of {base.model.n_parameters():,} parameters are trained on {len(train.examples):,} {noun}"
    )
    has_lora, adapter = settings.lora_rank is not None, None
    with ExitStack() as stack:
        run = None
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            callbacks = [*stack.enter_context(tensorboard_of(out)), *callbacks]
            run = RunFolder(
                path=out,
                tokenizer=base.tokenizer,
                task=saved_task,
                facts=facts,
                merge=merged_copy if has_lora else None,
            )
        trainer = Trainer(base.model, task, settings, run=run, callbacks=callbacks, notify=notify)
        progress = trainer.fit(train, val, resume=resume)
    if has_lora and out is not None and not base.is_random and current_ranks().is_main:
        adapter = export_peft(out / ADAPTER_FOLDER, base.model, base=base.name)
    return FineTuned(
        progress=progress,
        used_step=trainer.used_step,
        val_loss=trainer.used_val_loss,
        resumed_from=trainer.resumed_from,
        earlier_s=trainer.earlier_s,
        n_trained=n_trained,
        adapter=adapter,
    )


def facts_about(base: Base, *data: object) -> dict[str, Any]:
    """The facts about base and data that go into a checkpoint's manifest."""
    return {"data_fingerprint": data_fingerprint(*data), "base": base.name, "base_sha256": base.sha256}


def data_fingerprint(*data: object) -> str:
    """A sha256 of the examples in their order, which determines the batches."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
