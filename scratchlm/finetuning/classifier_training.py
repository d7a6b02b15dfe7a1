"""Train a classifier on a split of labelled texts, optionally with several seeds or on part of the texts."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from scratchlm.checkpoints.store import resolve_model
from scratchlm.checkpoints.update_task import update_task
from scratchlm.core.atomic_replace import remove_folder
from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.json_table import read_json_table
from scratchlm.core.seed import seed_everything
from scratchlm.data.classification_batches import ClassificationExamples
from scratchlm.data.label_split import LabelSplit, balance, class_counts, repeat_to_balance, share_of
from scratchlm.data.loaders import BatchLoader
from scratchlm.finetuning.activation_cache import ActivationCache, CachedExamples
from scratchlm.finetuning.base import RANDOM, Base, load_base, readable_length
from scratchlm.finetuning.classification_task import (
    ClassificationTask,
    Prediction,
    Threshold,
    best_threshold,
    predict,
)
from scratchlm.finetuning.fine_tune import (
    FineTuned,
    data_fingerprint,
    facts_about,
    fine_tune,
    make_loader,
)
from scratchlm.finetuning.freeze import TrainPart, freeze_all_but
from scratchlm.finetuning.heads import Position, replace_head
from scratchlm.finetuning.input_format import InputFormat, Padding
from scratchlm.finetuning.linear_start import LinearModel, fit_linear_model, start_as_linear_model
from scratchlm.finetuning.lora import EVERY_LINEAR, merge_lora
from scratchlm.finetuning.settings import DEFAULT_RANK, FineTuningSettings
from scratchlm.finetuning.side_runs import (
    SIDE_SETTINGS,
    SideRun,
    find_side_run,
    has_origin,
    record_side_run,
    side_run_key,
)
from scratchlm.model.gpt import GPTModel
from scratchlm.training.batch_memory import n_frozen_blocks
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import EXTENDABLE
from scratchlm.training.distributed import current_ranks

Indices = Sequence[int] | np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ClassifySettings(FineTuningSettings):
    """The settings of training a classifier, in addition to the common ones."""

    OLD_NAMES: ClassVar[dict[str, str]] = {
        "trunk_cache": "activation_cache",
        "trunk_cache_mb": "activation_cache_mb",
    }

    extendable: ClassVar = EXTENDABLE | SIDE_SETTINGS

    train: TrainPart | None = None  # trained part; None = all of a random base, else the last block, or LoRA
    lora_targets: tuple[str, ...] = EVERY_LINEAR  # names of the layers that get an update; also the head
    position: Position = "last-real"  # the token that the head is applied to; "mean" = the average of all
    pad: Padding | int = "none"  # pad texts with visible tokens: to the longest, the context, N tokens
    # weights of a random base: random, or first those of a linear model of its tokens, see linear_start.py
    start: Literal["random", "linear"] = "random"
    causal_mask: bool = True  # off = tokens also attend to later ones
    max_length: int | None = None  # maximum tokens of a text; None = the model's context length
    # weigh classes equally in the loss, repeat rows, drop rows, or neither
    balance: Literal["weights", "sampling", "subsample", "none"] = "weights"
    token_noise: float = 0.0  # share of a text's tokens replaced by random ones during training
    ignore_index: int = IGNORE_INDEX  # number of a class that is left out of the loss in training
    drop_rate: float | None = None  # None = 0 with frozen blocks, so that they run once, else the base's
    activation_cache: bool = True  # off = run frozen blocks in every epoch; the result is the same
    activation_cache_mb: int = 2048  # maximum size of the cache in memory; the rest goes to the run folder
    seeds: int = 1  # number of trainings, with seed, seed + 1, ...; the first model is kept
    learning_curve: tuple[float, ...] = ()  # also train on these shares of the training texts, e.g. 0.1 0.3
    choose_threshold: bool = False  # two classes: choose the probability threshold on the validation texts
    compare_raw_split: bool = True  # also train and test once on the book's split, for comparison
    balanced_test: bool = False  # validate and test on equally many texts of each class
    split_seed: int = 123  # decides which groups of texts train, validate and test

    def __post_init__(self) -> None:
        if self.train == "lora" and self.lora_rank is None:
            object.__setattr__(self, "lora_rank", DEFAULT_RANK)
        super().__post_init__()
        if self.train not in (None, "lora") and self.lora_rank is not None:
            raise ConfigError(f"lora_rank needs train=lora, got train={self.train}; drop one of them.")
        if self.seeds < 1 or self.activation_cache_mb < 0:
            raise ConfigError(
                f"seeds must be at least 1 and activation_cache_mb at least 0, got {self.seeds} and "
                f"{self.activation_cache_mb}; raise them."
            )
        if self.start == "linear" and (self.position != "last-real" or self.base_bits is not None):
            raise ConfigError(
                f"start=linear needs position=last-real and no base_bits, got position={self.position} and base_bits="
                f"{self.base_bits}; change them, or set start=random."
            )
        if not 0 <= self.token_noise < 1:
            raise ConfigError(f"token_noise must be at least 0 and below 1, got {self.token_noise}; try 0.1.")
        if not all(0 < share < 1 for share in self.learning_curve):
            raise ConfigError(f"learning_curve must be between 0 and 1, got {self.learning_curve}; try 0.1.")

    def trained_part(self, base: str) -> TrainPart:
        """The part of this base to train."""
        if self.lora_rank is not None:
            return "lora"
        return self.train or ("all" if base.startswith(RANDOM) else "last-block")


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """A trained classifier and the results of its training."""

    base: Base  # with the trained model
    input_format: InputFormat
    tuned: FineTuned
    n_truncated: int  # training texts that were cut
    cache: ActivationCache | None


class ClassifierTrainings:
    """Train classifiers with the same texts, base and settings, on several splits or with several seeds.

    Trainings from the same saved base share the activations of its frozen blocks. `close` it afterwards.
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
        self.cache_s = 0.0  # time of the frozen blocks
        self.n_cached = 0  # number of texts that they ran on
        self._cache: tuple[str, ActivationCache] | None = None  # with the key of its activations
        self._base_sha256: str | None = None  # of the base of the latest training

    def close(self) -> None:
        """Free memory and file of the activation cache."""
        if self._cache is not None:
            self._cache[1].close()
        self._cache = None

    def train(
        self,
        split: LabelSplit,
        out: Path | None,
        callbacks: Sequence[Callback] = (),
        *,
        resume: bool = False,
        seed: int | None = None,
    ) -> TrainedClassifier:
        """Train on a split, in the run folder `out`; None trains without a folder."""
        settings = self.settings if seed is None else dataclasses.replace(self.settings, seed=seed)
        ranks = current_ranks()
        seed_everything(settings.seed)
        indices = self._balanced(split.train).tolist()
        part, drop_rate = settings.trained_part(self.base), settings.drop_rate
        if drop_rate is None and part not in ("all", "lora") and settings.activation_cache:
            drop_rate = 0.0
        linear = self._fit_linear_model(indices)
        base = load_base(
            self.base,
            tokenizer=None if linear is None else linear.tokenizer,
            training_texts=[self.texts[i] for i in split.train],
            device=self.device,
            drop_rate=drop_rate,
            is_causal=settings.causal_mask,
            base_bits=settings.base_bits,
        )
        self._base_sha256 = base.sha256
        replace_head(base.model, len(self.classes))
        if linear is not None:
            start_as_linear_model(base.model, linear)
        self._freeze(base.model, part)
        input_format = self._input_format(base, indices)
        cache = self._cache_for(base, input_format, settings)

        def examples_of(rows: Sequence[int], **how: int) -> ClassificationExamples:
            texts, labels = [self.texts[i] for i in rows], [self.labels[i] for i in rows]
            return input_format.examples(texts, labels, base.tokenizer, self.classes, **how)

        examples = examples_of(indices, ignore_index=settings.ignore_index)
        task = ClassificationTask(
            class_weights=self._class_weights(indices),
            label_smoothing=settings.label_smoothing,
            position=input_format.position,
            is_plain=not settings.activation_cache,
            token_noise=settings.token_noise,
        )
        train = self._loader(examples, cache, settings, shuffle=True)
        val = self._loader(examples_of(split.val.tolist()), cache, settings, shuffle=False)
        facts = facts_about(base, *(self._rows(part) for part in (indices, split.val.tolist())))
        if out not in (None, self.out) and resume:
            with ranks.main_first():
                if ranks.is_main and not has_origin(out, facts):
                    remove_folder(out)  # a run with other texts or another base starts over
        tuned = fine_tune(
            base,
            task,
            settings,
            train,
            val,
            out=out,
            saved_task={"kind": "classification", "classes": list(self.classes), **input_format.to_task()},
            facts=facts,
            noun="texts",
            callbacks=callbacks,
            resume=resume,
            notify=self.notify,
        )
        merge_lora(base.model)
        return TrainedClassifier(
            base=base, input_format=input_format, tuned=tuned, n_truncated=examples.n_truncated, cache=cache
        )

    def predict(
        self, trained: TrainedClassifier, indices: Indices, *, threshold: Threshold | None = None
    ) -> list[Prediction]:
        """A trained classifier's predictions for some of the texts."""
        return predict(
            [self.texts[i] for i in indices],
            trained.base.model,
            trained.base.tokenizer,
            self.classes,
            trained.input_format,
            threshold=threshold,
            cache=trained.cache,
        )

    def threshold(self, trained: TrainedClassifier, val: Indices) -> Threshold | None:
        """Find the best threshold on these validation texts; None without the setting `choose_threshold`."""
        if not self.settings.choose_threshold:
            return None
        return best_threshold(self.predict(trained, val), [self.labels[i] for i in val], self.classes)

    def save_threshold(self, out: Path, threshold: Threshold) -> None:
        """Save the threshold in the task of the checkpoint that a run folder refers to."""
        if not current_ranks().is_main:
            return
        folder = resolve_model(out)
        task = read_json_table(folder / "task.json", error=CheckpointError).values
        update_task(folder, {**task, "threshold": dataclasses.asdict(threshold)})

    def side_run(self, split: LabelSplit, *, seed: int | None = None, share: float | None = None) -> SideRun:
        """Train with another seed or on a share of the texts, and keep only the accuracy.

        A threshold, if configured, is chosen again on the validation texts. The result of an earlier,
        finished call with the same texts, base and settings is read from the run folder instead.
        """
        seed = self.settings.seed if seed is None else seed
        train = split.train
        if share is not None:
            train = share_of(self.labels, train, share, seed=self.settings.split_seed, keys=self.texts)
        key = side_run_key(
            dataclasses.replace(self.settings, seed=seed),
            texts=data_fingerprint(self._rows(range(len(self.texts)))),
            rows=[list(map(int, part)) for part in (train, split.val, split.test)],
            base=self.base,
            sha256=self._base_sha256,
        )
        if (earlier := find_side_run(self.out, key)) is not None:
            return earlier
        self.notify(f"additional training: seed {seed}, {len(train):,} texts")
        trained = self.train(dataclasses.replace(split, train=train), None, seed=seed)
        predictions = self.predict(trained, split.test, threshold=self.threshold(trained, split.val))
        n_right = sum(p.label == self.labels[i] for p, i in zip(predictions, split.test))
        run = SideRun(seed=seed, n_texts=len(train), accuracy=n_right / len(predictions))
        if current_ranks().is_main:
            record_side_run(self.out, key, run, step=trained.tuned.progress.step)
        return run

    def _fit_linear_model(self, indices: Sequence[int]) -> LinearModel | None:
        """The linear model that a random base starts from; None with start=random."""
        if self.settings.start == "random":
            return None
        if not self.base.startswith(RANDOM):
            raise ConfigError(f"start=linear is for a random base, got {self.base}; set start=random.")
        numbers, weights = [self.classes.index(label) for label in self.labels], self._class_weights(indices)
        used = [i for i in indices if numbers[i] != self.settings.ignore_index]
        linear = fit_linear_model(
            [self.texts[i] for i in used],
            torch.tensor([numbers[i] for i in used]),
            class_weights=torch.ones(len(self.classes)) if weights is None else weights,
        )
        case = "lower case" if linear.tokenizer.variant.normalizers else "upper and lower case"
        self.notify(f"starting as a linear model of {linear.tokenizer.vocab_size:,} tokens in {case}")
        return linear

    def _freeze(self, model: GPTModel, part: TrainPart) -> None:
        """Make only a part of the model trainable.

        With LoRA the new head gets a low-rank update, as in the book, or is trained fully if it is not a target.
        """
        if part != "lora":
            freeze_all_but(model, part)
        elif "out_head" not in self.settings.add_lora(model):
            model.out_head.requires_grad_(True)

    def _input_format(self, base: Base, indices: Sequence[int]) -> InputFormat:
        settings, lengths = self.settings, [1]
        if settings.pad == "longest":
            lengths = [len(base.tokenizer.encode(self.texts[i])) for i in indices]
        return InputFormat.from_settings(
            lengths,
            context_length=base.model.config.context_length,
            pad=settings.pad,
            position=settings.position,
            max_length=readable_length(base, settings.max_length, self.notify),
        )

    def _cache_for(
        self, base: Base, input_format: InputFormat, settings: ClassifySettings
    ) -> ActivationCache | None:
        """The activation cache; None without frozen blocks, or if dropout makes activations random."""
        n_blocks = n_frozen_blocks(base.model)
        if not settings.activation_cache or n_blocks == 0:
            return None
        if base.model.config.has_dropout or settings.token_noise > 0:
            self.notify(
                "with dropout or token noise the frozen blocks run in every epoch; with --drop-rate 0 they run once"
            )
            return None
        # Random weights depend on the seed, and on the vocabulary, which comes from the training texts.
        key = f"{base.sha256 or (settings.seed, base.tokenizer.fingerprint)} {input_format}"
        if self._cache is None or self._cache[0] != key:
            self.close()  # only one cache at a time, to stay within the budget
            with current_ranks().main_first():  # it removes the files of a process that was killed
                cache = ActivationCache(
                    base.model,
                    n_blocks,
                    position=input_format.position,
                    budget_bytes=settings.activation_cache_mb * 2**20,
                    folder=self.out,
                    removes_left_overs=current_ranks().is_main,
                )
            self._cache = key, cache
        return self._cache[1]

    def _loader(
        self,
        examples: ClassificationExamples,
        cache: ActivationCache | None,
        settings: ClassifySettings,
        *,
        shuffle: bool,
    ) -> BatchLoader:
        if cache is None:
            return make_loader(examples, settings, shuffle=shuffle)
        started_at_s, n_before = time.perf_counter(), len(cache)
        cached = CachedExamples(examples, cache)
        self.cache_s += time.perf_counter() - started_at_s
        self.n_cached += len(cache) - n_before
        return make_loader(cached, settings, shuffle=shuffle)

    def _balanced(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The training rows after the balance setting: some dropped, or some repeated."""
        if self.settings.balance == "subsample":
            return balance(self.labels, indices, seed=self.settings.split_seed, keys=self.texts)
        if self.settings.balance == "sampling":
            return repeat_to_balance(self.labels, indices)
        return indices

    def _class_weights(self, indices: Sequence[int]) -> Tensor | None:
        """Weights that give every class the same total weight, with a mean of 1 over the training texts."""
        if self.settings.balance != "weights":
            return None
        counts = class_counts(self.labels, list(indices))
        n = sum(counts.values())
        return torch.tensor([n / (len(counts) * counts[label]) for label in self.classes])

    def _rows(self, indices: Iterable[int]) -> list[list[str]]:
        return [[self.labels[i], self.texts[i]] for i in indices]
