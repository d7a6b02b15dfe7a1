"""Training classifiers on one set of texts: once or with several seeds, and the frozen part of the model only once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scratchlm.checkpoints.store import resolve_model
from scratchlm.checkpoints.update_task import rewrite_task
from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.json_table import read_json_table
from scratchlm.core.partials import remove_folder
from scratchlm.core.seed import seed_everything
from scratchlm.data.classification_batches import ClassificationExamples
from scratchlm.data.label_split import LabelSplit, balance, class_counts, repeat_to_balance, share_of
from scratchlm.data.loaders import BatchLoader
from scratchlm.finetuning.activation_cache import TrunkCache, TrunkExamples, n_frozen_blocks
from scratchlm.finetuning.base import RANDOM, Base, load_base, readable_length
from scratchlm.finetuning.classification_task import (
    ClassificationTask,
    Prediction,
    Threshold,
    best_threshold,
    predict,
)
from scratchlm.finetuning.freeze import TrainPart, freeze_all_but
from scratchlm.finetuning.heads import Position, replace_head
from scratchlm.finetuning.lora import merge_lora, merged_copy
from scratchlm.finetuning.lora_settings import ADAPTER_FOLDER, USUAL_RANK, LoRASettings
from scratchlm.finetuning.peft_adapter import export_peft
from scratchlm.finetuning.reading import Padding, TextReading, plan_reading
from scratchlm.finetuning.side_runs import (
    BESIDE,
    SideRun,
    find_side_run,
    has_origin,
    keep_side_run,
    side_run_key,
)
from scratchlm.finetuning.targets import EVERY_LINEAR
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import EXTENDABLE, TrainingConfig
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.tensorboard import TensorBoard, next_step
from scratchlm.training.trainer import Trainer

Balance = Literal["weights", "sampling", "subsample", "none"]
RAW_SPLIT = "raw-split"


@dataclass(frozen=True, kw_only=True)
class ClassifySettings(TrainingConfig, LoRASettings):
    """How to train a classifier: the training settings, and what only classifiers have."""

    train: TrainPart | None = None  # what learns; None = all of a random base, else the last block, or LoRA
    lora_targets: tuple[str, ...] = EVERY_LINEAR  # the head's correction too, as the book has it
    position: Position = "last-real"  # the token at which a text is judged; "mean" = the average of all
    pad: Padding | int = "none"  # pad texts so that the model sees it: to the longest, the context, N tokens
    causal_mask: bool = True  # off = a token also sees those after it
    max_length: int | None = None  # tokens of a text that are read; None = as many as the model can
    balance: Balance = "weights"  # weigh classes equally in the loss, repeat or drop rows, or neither
    token_noise: float = 0.0  # share of a text's tokens that are replaced by random ones while training
    ignore_index: int = IGNORE_INDEX  # number of a class that carries no loss while training
    drop_rate: float | None = None  # None = 0 below frozen blocks, which then run once, else the base's
    trunk_cache: bool = True  # off = run frozen blocks in every epoch; the result is the same
    trunk_cache_mb: int = 2048  # of that in memory; what comes after lies in a file in the run folder
    seeds: int = 1  # train so many times, with seed, seed + 1, ...; the first is the one that is kept
    learning_curve: tuple[float, ...] = ()  # also train on these shares of the training texts, e.g. 0.1 0.3
    choose_threshold: bool = False  # of two classes: the probability that suits the validation texts best
    compare_raw_split: bool = True  # also train and test once on the book's split, for comparison
    balanced_test: bool = False  # validate and test on as many texts of each class, not on all held-out ones
    split_seed: int = 123  # decides which groups of texts train, validate and test

    @property
    def extendable(self) -> frozenset[str]:
        """Also what stands beside the training that is kept."""
        return EXTENDABLE | BESIDE

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        self.check_writes_no_samples()
        if self.train == "lora" and self.lora_rank is None:
            object.__setattr__(self, "lora_rank", USUAL_RANK)
        self.check_lora()
        if self.train not in (None, "lora") and self.lora_rank is not None:
            raise ConfigError(f"lora_rank goes with train=lora, got train={self.train}; drop one of them.")
        if self.seeds < 1 or self.trunk_cache_mb < 0 or (self.max_length is not None and self.max_length < 1):
            raise ConfigError(
                f"seeds and max_length must be at least 1 and trunk_cache_mb not negative, got {self.seeds}, "
                f"{self.max_length} and {self.trunk_cache_mb}; change them."
            )
        GPTConfig(drop_rate=self.drop_rate or 0.0)  # refuses what no model can have
        if not 0 <= self.token_noise < 1:
            raise ConfigError(
                f"token_noise must be at least 0 and below 1, got {self.token_noise}; choose 0.1."
            )
        if not all(0 < share < 1 for share in self.learning_curve):
            raise ConfigError(f"learning_curve must be between 0 and 1, got {self.learning_curve}; try 0.1.")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained classifier, and how the training went."""

    base: Base  # with the trained model
    reading: TextReading
    progress: Progress
    used_step: int  # whose weights the model has: see the setting `use`
    resumed_from: int | None
    earlier_s: float
    n_trained: int
    n_truncated: int
    cache: TrunkCache | None


class ClassifierTrainings:
    """The same texts, base and settings, to be trained on one split or another, with one seed or another.

    `close` it afterwards. Trainings from the same saved base share what its frozen blocks make of the texts.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        classes: tuple[str, ...],
        settings: ClassifySettings,
        *,
        base: str,
        device: torch.device,
        out: Path,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.texts, self.labels, self.classes = texts, labels, classes
        self.settings, self.base, self.device, self.out, self.notify = settings, base, device, out, notify
        self.trunk_s = 0.0  # time of running frozen blocks
        self.n_cached = 0  # texts they ran on
        self._caches: dict[str, TrunkCache] = {}  # by the base's sha256
        self._base_sha256: str | None = None  # of the base of the latest training

    def close(self) -> None:
        """Give memory and files of the caches back."""
        for cache in self._caches.values():
            cache.close()
        self._caches.clear()

    def train(
        self,
        split: LabelSplit,
        out: Path | None,
        callbacks: Sequence[Callback] = (),
        *,
        resume: bool = False,
        seed: int | None = None,
    ) -> Fitted:
        """Train on a split; in a run folder, or without one when only the trained model is wanted."""
        settings = self.settings if seed is None else dataclasses.replace(self.settings, seed=seed)
        seed_everything(settings.seed)
        indices = self._balanced(split.train).tolist()
        part = settings.train or ("all" if self.base.startswith(RANDOM) else "last-block")
        part = "lora" if settings.lora_rank is not None else part
        drop_rate = settings.drop_rate
        if drop_rate is None and part not in ("all", "lora") and settings.trunk_cache:
            drop_rate = 0.0
        base = load_base(
            self.base,
            training_texts=[self.texts[i] for i in split.train],
            device=self.device,
            drop_rate=drop_rate,
            is_causal=settings.causal_mask,
        )
        model, self._base_sha256 = base.model, base.sha256
        replace_head(model, len(self.classes))
        n_trained = self._free(model, part)
        reading = self._reading(base, indices)
        cache = self._cache(base, reading, settings)

        def examples_of(rows: Sequence[int], **how: int) -> ClassificationExamples:
            texts, labels = [self.texts[i] for i in rows], [self.labels[i] for i in rows]
            return reading.examples(texts, labels, base.tokenizer, self.classes, **how)

        examples = examples_of(indices, ignore_index=settings.ignore_index)
        if settings.batch_size > len(indices):
            self.notify(f"batch_size {settings.batch_size} is more than the {len(indices)} training texts")
        self.notify(f"{n_trained:,} of {model.n_parameters():,} parameters learn from {len(indices):,} texts")
        task = ClassificationTask(
            class_weights=self._class_weights(indices),
            label_smoothing=settings.label_smoothing,
            position=reading.position,
            is_plain=not settings.trunk_cache,
            token_noise=settings.token_noise,
        )
        train = self._loader(examples, cache, settings, shuffle=True)
        val = self._loader(examples_of(split.val.tolist()), cache, settings, shuffle=False)
        run = None
        if out is not None:
            saved_task = {"kind": "classification", "classes": list(self.classes), **reading.to_task()}
            facts = {
                "data_fingerprint": self._fingerprint(indices, split.val.tolist()),
                "base": self.base,
                "base_sha256": base.sha256,
            }
            if out != self.out and resume and not has_origin(out, facts):
                remove_folder(out)  # a side run of other texts or another base: it begins anew
            form = merged_copy if part == "lora" else None
            run = RunFolder(path=out, tokenizer=base.tokenizer, task=saved_task, facts=facts, saved_form=form)
        progress, trainer = self._fit(base, task, settings, (train, val), run, callbacks, resume=resume)
        if part == "lora":
            if run is not None and not base.is_random:
                export_peft(run.path / ADAPTER_FOLDER, model, base=self.base)
            merge_lora(model)
        return Fitted(
            base=base,
            reading=reading,
            progress=progress,
            used_step=trainer.used_step,
            resumed_from=trainer.resumed_from,
            earlier_s=trainer.earlier_s,
            n_trained=n_trained,
            n_truncated=examples.n_truncated,
            cache=cache,
        )

    def predict(
        self,
        fitted: Fitted,
        indices: Sequence[int] | np.ndarray[Any, Any],
        *,
        threshold: Threshold | None = None,
    ) -> list[Prediction]:
        """What a trained classifier says to some of the texts."""
        return predict(
            [self.texts[i] for i in indices],
            fitted.base.model,
            fitted.base.tokenizer,
            self.classes,
            fitted.reading,
            threshold=threshold,
            cache=fitted.cache,
        )

    def threshold(self, fitted: Fitted, val: Sequence[int] | np.ndarray[Any, Any]) -> Threshold | None:
        """The threshold that suits these validation texts best; None when none is wanted."""
        if not self.settings.choose_threshold:
            return None
        return best_threshold(self.predict(fitted, val), [self.labels[i] for i in val], self.classes)

    def keep_threshold(self, out: Path, threshold: Threshold) -> None:
        """Save the threshold with the checkpoint that a run folder stands for: predictions use it from now on."""
        folder = resolve_model(out)
        task = read_json_table(folder / "task.json", error=CheckpointError).values
        rewrite_task(folder, {**task, "threshold": dataclasses.asdict(threshold)})

    def on_the_side(
        self, split: LabelSplit, *, seed: int | None = None, share: float | None = None
    ) -> SideRun:
        """Train with another seed or on a share of the texts, keep only the accuracy, and never do it twice.

        A threshold, where one is wanted, is chosen anew on the validation texts. What was finished before a run was
        killed is read from its folder, when texts, base and settings are those of now.
        """
        seed = self.settings.seed if seed is None else seed
        train = split.train
        if share is not None:
            train = share_of(self.labels, train, share, seed=self.settings.split_seed, keys=self.texts)
        settings = dataclasses.replace(self.settings, seed=seed)
        rows = [list(map(int, part)) for part in (train, split.val, split.test)]
        texts = self._fingerprint(range(len(self.texts)))
        key = side_run_key(settings, texts=texts, rows=rows, base=self.base, sha256=self._base_sha256)
        if (earlier := find_side_run(self.out, key)) is not None:
            return earlier
        self.notify(f"on the side: seed {seed}, {len(train):,} texts")
        fitted = self.train(dataclasses.replace(split, train=train), None, seed=seed)
        said = self.predict(fitted, split.test, threshold=self.threshold(fitted, split.val))
        n_right = sum(p.label == self.labels[i] for p, i in zip(said, split.test))
        run = SideRun(seed=seed, n_texts=len(train), accuracy=n_right / len(said))
        keep_side_run(self.out, key, run, step=fitted.progress.step)
        return run

    def _fit(
        self,
        base: Base,
        task: ClassificationTask,
        settings: ClassifySettings,
        loaders: tuple[BatchLoader, BatchLoader],
        run: RunFolder | None,
        callbacks: Sequence[Callback],
        *,
        resume: bool,
    ) -> tuple[Progress, Trainer]:
        if run is None:
            trainer = Trainer(base.model, task, settings)
            return trainer.fit(*loaders), trainer
        run.path.mkdir(parents=True, exist_ok=True)
        with TensorBoard(run.path / "tensorboard", purge_step=next_step(run.path)) as tensorboard:
            trainer = Trainer(base.model, task, settings, run=run, callbacks=[tensorboard, *callbacks])
            return trainer.fit(*loaders, resume=resume), trainer

    def _free(self, model: GPTModel, part: TrainPart) -> int:
        """Let a part of the model learn; returns how many numbers that are.

        With corrections the new head learns by its own, as in the book, or whole when it gets none.
        """
        if part != "lora":
            return freeze_all_but(model, part)
        if "out_head" not in self.settings.add_corrections(model):
            model.out_head.requires_grad_(True)
        return model.n_parameters(trainable_only=True)

    def _reading(self, base: Base, indices: list[int]) -> TextReading:
        settings, lengths = self.settings, [1]
        if settings.pad == "longest":
            lengths = [len(base.tokenizer.encode(self.texts[i])) for i in indices]
        return plan_reading(
            lengths,
            context_length=base.model.config.context_length,
            pad=settings.pad,
            position=settings.position,
            max_length=readable_length(base, settings.max_length, self.notify),
        )

    def _cache(self, base: Base, reading: TextReading, settings: ClassifySettings) -> TrunkCache | None:
        """What the frozen blocks make of texts; None when none are, or dropout makes it different each time."""
        n_blocks = n_frozen_blocks(base.model)
        if not settings.trunk_cache or n_blocks == 0:
            return None
        if base.model.config.has_dropout or settings.token_noise > 0:
            self.notify(
                "dropout and token noise run the frozen blocks in every epoch; --drop-rate 0 runs them once"
            )
            return None
        # Fresh weights differ by seed, and by vocabulary, which they learnt from their own training texts.
        key = f"{base.sha256 or (settings.seed, base.tokenizer.fingerprint)} {reading}"
        if key not in self._caches:
            self.close()  # trainings come one after the other, so the budget is that of one cache
            self._caches[key] = TrunkCache(
                base.model,
                n_blocks,
                position=reading.position,
                budget_bytes=settings.trunk_cache_mb * 2**20,
                folder=self.out,
            )
        return self._caches[key]

    def _loader(
        self,
        examples: ClassificationExamples,
        cache: TrunkCache | None,
        settings: ClassifySettings,
        *,
        shuffle: bool,
    ) -> BatchLoader:
        rows: ClassificationExamples | TrunkExamples = examples
        if cache is not None:
            started_at_s, n_before = time.perf_counter(), len(cache)
            rows = TrunkExamples(examples, cache)
            self.trunk_s += time.perf_counter() - started_at_s
            self.n_cached += len(cache) - n_before
        return BatchLoader(
            rows,
            batch_size=min(settings.batch_size, len(examples)),
            seed=settings.seed,
            shuffle=shuffle,
            bucket_by_length=True,
        )

    def _balanced(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The training rows as the balance setting has them: some dropped, or some repeated."""
        if self.settings.balance == "subsample":
            return balance(self.labels, indices, seed=self.settings.split_seed, keys=self.texts)
        if self.settings.balance == "sampling":
            return repeat_to_balance(self.labels, indices)
        return indices

    def _class_weights(self, indices: Sequence[int]) -> Tensor | None:
        """Weights that make every class count the same, with a mean of 1 over the training texts."""
        if self.settings.balance != "weights":
            return None
        counts = class_counts(self.labels, list(indices))
        n = sum(counts.values())
        return torch.tensor([n / (len(counts) * counts[label]) for label in self.classes])

    def _fingerprint(self, *parts: Sequence[int]) -> str:
        """Which texts with which labels train and validate, and in which order: it decides the batches."""
        rows = [[[self.labels[i], self.texts[i]] for i in part] for part in parts]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
