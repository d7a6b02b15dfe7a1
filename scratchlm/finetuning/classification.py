"""A base model into a classifier of texts, with a test that near-copies cannot flatter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.batch import Batch
from scratchlm.core.errors import DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.core.seed import seed_everything
from scratchlm.data.classification import ClassificationExamples, LabelledText
from scratchlm.data.label_split import LabelSplit, balance, class_counts, split_by_group
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.near_duplicates import group_near_duplicates
from scratchlm.data.sms_spam import book_split
from scratchlm.evaluation.accuracy import ClassificationScores, score_classes
from scratchlm.finetuning.base import load_base
from scratchlm.finetuning.freeze import TrainPart, freeze_all_but
from scratchlm.finetuning.heads import class_logits, replace_head
from scratchlm.model.gpt import GPTModel
from scratchlm.model.modes import evaluation_mode
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import TrainingConfig
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.tensorboard import TensorBoard, next_step
from scratchlm.training.trainer import Trainer

Balance = Literal["weights", "subsample", "none"]


@dataclass(frozen=True, kw_only=True)
class ClassifySettings(TrainingConfig):
    """How to train a classifier: the training settings, and what only classifiers have."""

    train: TrainPart | None = None  # which part learns; None = all of a random base, else the last block
    balance: Balance = (
        "weights"  # weigh classes equally in the loss, drop rows of the larger ones, or neither
    )
    max_length: int | None = None  # tokens of a text that are read; None = as many as the model can
    drop_rate: float | None = None  # dropout while fine-tuning; None = the base's
    compare_raw_split: bool = True  # also train and test once on the book's split, for comparison
    split_seed: int = 123  # decides which groups of texts train, validate and test


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a classifier says about a text."""

    text: str
    label: str
    probability: float  # of that label
    is_truncated: bool = False  # was the text longer than the model reads?


@dataclass(frozen=True, kw_only=True)
class ClassifyResult:
    """What fine-tuning a classifier reached."""

    folder: Path
    classes: tuple[str, ...]
    rows: int
    groups: int  # near-identical texts share a group
    split: LabelSplit  # leak-free: whole groups; validation and test hold one text per group, balanced
    scores: ClassificationScores  # on the leak-free test texts
    scores_raw: ClassificationScores | None  # of a second model, trained and tested on the book's split
    predictions: list[Prediction]  # for split.test, in its order
    progress: Progress
    resumed_from: int | None
    earlier_s: float  # training time before this call, when it resumed a run
    n_trained: int  # trainable numbers
    n_truncated: int


class ClassificationTask:
    """Say which class a text belongs to, from the last real token's state."""

    def __init__(self, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy added up over the texts, in nats, each text weighed by its class while training."""
        assert isinstance(model, GPTModel)
        logits = class_logits(model, batch.inputs, batch.attention_mask)  # (B, C)
        weights = self.class_weights if model.training else None
        smoothing = self.label_smoothing if model.training else 0.0
        weights = None if weights is None else weights.to(logits.device)
        return F.cross_entropy(
            logits, batch.targets, weight=weights, reduction="sum", label_smoothing=smoothing
        )

    def metrics(self, model: nn.Module, loader: Iterable[Batch]) -> dict[str, float]:
        """Mean loss and accuracy over a loader."""
        assert isinstance(model, GPTModel)
        device = next(model.parameters()).device
        loss_sum, n_right, n = 0.0, 0, 0
        with evaluation_mode(model):
            for batch in (batch.to(device) for batch in loader):
                logits = class_logits(model, batch.inputs, batch.attention_mask)  # (B, C)
                loss_sum += F.cross_entropy(logits, batch.targets, reduction="sum").item()
                n_right += int((logits.argmax(dim=1) == batch.targets).sum())
                n += batch.n_targets
        if n == 0:
            raise DataError("accuracy needs a labelled text, found none; check the split.")
        return {"loss": loss_sum / n, "accuracy": n_right / n}


def finetune_classifier(
    rows: Sequence[LabelledText],
    settings: ClassifySettings,
    out: Path,
    *,
    base: str,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    notify: Callable[[str], None] = lambda message: None,
) -> ClassifyResult:
    """Labelled texts and a base model to a tested classifier in the run folder `out`.

    Texts are split in whole groups of near-duplicates; validation and test then keep one text per group and as
    many of each class. Seeds torch's global generator with `settings.seed`.
    Raises: the readers' and Trainer's errors.
    """
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least 2 classes, found {', '.join(classes) or 'no text'}; add others."
        )
    groups = group_near_duplicates(texts)
    split = leak_free_split(texts, labels, groups, seed=settings.split_seed)
    notify(
        f"{len(rows):,} rows in {len(set(groups)):,} groups ({len(rows) - len(set(groups)):,} near-duplicates): "
        f"{len(split.train):,} train, {len(split.val):,} validate, {len(split.test):,} test"
    )
    train_one = _Run(texts, labels, classes, settings, base, device, notify)
    fitted = train_one(split, out, callbacks, resume=resume)
    predictions = predict(
        [texts[i] for i in split.test], fitted.model, fitted.tokenizer, classes, fitted.max_length
    )
    scores_raw, earlier_s = None, fitted.earlier_s
    if settings.compare_raw_split:
        notify("once more on the book's split, which lets near-duplicates stand on both sides")
        raw_split = book_split(labels, seed=settings.split_seed)
        raw = train_one(raw_split, out / "raw-split", callbacks, resume=resume)
        earlier_s += raw.earlier_s
        scores_raw = _score(
            raw, [texts[i] for i in raw_split.test], [labels[i] for i in raw_split.test], classes
        )
    return ClassifyResult(
        folder=out,
        classes=classes,
        rows=len(rows),
        groups=len(set(groups)),
        split=split,
        scores=score_predictions(predictions, [labels[i] for i in split.test], classes),
        scores_raw=scores_raw,
        predictions=predictions,
        progress=fitted.progress,
        resumed_from=fitted.resumed_from,
        earlier_s=earlier_s,
        n_trained=fitted.n_trained,
        n_truncated=fitted.n_truncated,
    )


def leak_free_split(
    texts: Sequence[str], labels: Sequence[str], groups: Sequence[str], *, seed: int
) -> LabelSplit:
    """Whole groups to each side; validation and test keep a group's first text only, and equal classes.

    So a test figure is over texts that differ from each other and from all that was trained on.
    Raises: DataError when a side lacks a class.
    """
    whole = split_by_group(groups, labels, seed=seed)

    def one_per_group(indices: Sequence[int]) -> list[int]:
        first: dict[str, int] = {}
        for i in sorted(
            indices, key=lambda i: (texts[i], labels[i])
        ):  # not by row order: rows may be reordered
            first.setdefault(groups[i], int(i))
        return sorted(first.values())

    val, test = (
        balance(labels, one_per_group(side.tolist()), seed=seed, keys=texts)
        for side in (whole.val, whole.test)
    )
    return LabelSplit(train=whole.train, val=val, test=test)


def predict(
    texts: Sequence[str],
    model: GPTModel,
    tokenizer: Tokenizer,
    classes: Sequence[str],
    max_length: int,
    *,
    batch_size: int = 64,
) -> list[Prediction]:
    """Label texts, in batches of similar length; the order stays that of the texts.

    Raises: DataError for an empty text.
    """
    if not texts:
        return []
    placeholder = [classes[0]] * len(texts)
    examples = ClassificationExamples.from_texts(
        texts, placeholder, tokenizer, max_length=max_length, classes=classes
    )
    whole_lengths = (
        [len(tokenizer.encode(text)) for text in texts] if examples.n_truncated else examples.lengths
    )
    loader = BatchLoader(examples, batch_size=batch_size, shuffle=False, bucket_by_length=True)
    device = next(model.parameters()).device
    predictions: dict[int, Prediction] = {}
    with evaluation_mode(model):
        for indices, batch in zip(loader.indices(0), loader):
            batch = batch.to(device)
            probs = class_logits(model, batch.inputs, batch.attention_mask).float().softmax(dim=1)  # (B, C)
            for i, row in zip(indices.tolist(), probs.tolist()):
                best = max(range(len(row)), key=row.__getitem__)
                predictions[i] = Prediction(
                    text=texts[i],
                    label=classes[best],
                    probability=row[best],
                    is_truncated=bool(whole_lengths[i] > max_length),
                )
    return [predictions[i] for i in range(len(texts))]


def score_predictions(
    predictions: Sequence[Prediction], labels: Sequence[str], classes: Sequence[str]
) -> ClassificationScores:
    """Compare predictions with the true labels."""
    number = {label: i for i, label in enumerate(classes)}
    guessed = [number[prediction.label] for prediction in predictions]
    return score_classes([number[label] for label in labels], guessed, classes=classes)


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    model: GPTModel
    tokenizer: Tokenizer
    max_length: int
    progress: Progress
    resumed_from: int | None
    earlier_s: float
    n_trained: int
    n_truncated: int


@dataclass(frozen=True)
class _Run:
    """The same texts, base and settings, to be trained on one split or another."""

    texts: Sequence[str]
    labels: Sequence[str]
    classes: tuple[str, ...]
    settings: ClassifySettings
    base: str
    device: torch.device
    notify: Callable[[str], None]

    def __call__(
        self, split: LabelSplit, out: Path, callbacks: Sequence[Callback], *, resume: bool
    ) -> _Fitted:
        settings = self.settings
        out.mkdir(parents=True, exist_ok=True)
        seed_everything(settings.seed)
        train_texts = [self.texts[i] for i in split.train]
        base = load_base(
            self.base, training_texts=train_texts, device=self.device, drop_rate=settings.drop_rate
        )
        replace_head(base.model, len(self.classes))
        n_trained = freeze_all_but(base.model, settings.train or ("all" if base.is_random else "last-block"))
        context = base.model.config.context_length
        max_length = context if settings.max_length is None else min(settings.max_length, context)
        train_indices = split.train
        if settings.balance == "subsample":
            train_indices = balance(self.labels, split.train, seed=settings.split_seed, keys=self.texts)

        def loader(indices: Sequence[int], *, shuffle: bool) -> BatchLoader:
            examples = ClassificationExamples.from_texts(
                [self.texts[i] for i in indices],
                [self.labels[i] for i in indices],
                base.tokenizer,
                max_length=max_length,
                classes=self.classes,
            )
            batch_size = min(settings.batch_size, len(examples))
            return BatchLoader(
                examples, batch_size=batch_size, seed=settings.seed, shuffle=shuffle, bucket_by_length=True
            )

        train = loader(train_indices.tolist(), shuffle=True)
        assert isinstance(train.examples, ClassificationExamples)
        self.notify(
            f"{n_trained:,} of {base.model.n_parameters():,} parameters learn from {len(train_indices):,} texts"
        )
        task = ClassificationTask(
            class_weights=self._class_weights(train_indices.tolist()),
            label_smoothing=settings.label_smoothing,
        )
        saved_task = {"kind": "classification", "classes": list(self.classes), "max_length": max_length}
        facts = {
            "data_fingerprint": self._fingerprint(train_indices.tolist()),
            "base": self.base,
            "base_sha256": base.sha256,
        }
        with TensorBoard(out / "tensorboard", purge_step=next_step(out)) as tensorboard:
            trainer = Trainer(
                base.model,
                task,
                settings,
                run=RunFolder(path=out, tokenizer=base.tokenizer, task=saved_task, facts=facts),
                callbacks=[tensorboard, *callbacks],
            )
            progress = trainer.fit(train, loader(split.val.tolist(), shuffle=False), resume=resume)
        return _Fitted(
            model=base.model,
            tokenizer=base.tokenizer,
            max_length=max_length,
            progress=progress,
            resumed_from=trainer.resumed_from,
            earlier_s=trainer.earlier_s,
            n_trained=n_trained,
            n_truncated=train.examples.n_truncated,
        )

    def _class_weights(self, indices: Sequence[int]) -> Tensor | None:
        """Weights that make every class count the same, with a mean of 1 over the training texts."""
        if self.settings.balance != "weights":
            return None
        counts = class_counts(self.labels, list(indices))
        n = sum(counts.values())
        return torch.tensor([n / (len(counts) * counts[label]) for label in self.classes])

    def _fingerprint(self, indices: Sequence[int]) -> str:
        """Which texts with which labels were trained on, in any order."""
        rows = sorted(f"{self.labels[i]}\t{self.texts[i]}" for i in indices)
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


def _score(
    fitted: _Fitted, texts: Sequence[str], labels: Sequence[str], classes: Sequence[str]
) -> ClassificationScores:
    predictions = predict(texts, fitted.model, fitted.tokenizer, classes, fitted.max_length)
    return score_predictions(predictions, labels, classes)
