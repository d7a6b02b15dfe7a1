"""A base model into a classifier of texts, with a test that near-copies cannot flatter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scratchlm.core.errors import DataError
from scratchlm.data.classification_rows import LabelledText
from scratchlm.data.label_split import LabelSplit, book_split, describe_split, leak_free_split
from scratchlm.data.near_duplicates import group_near_duplicates
from scratchlm.evaluation.accuracy import ClassificationScores
from scratchlm.finetuning.classification_task import (
    Prediction,
    Threshold,
    check_two_classes,
    score_predictions,
)
from scratchlm.finetuning.classifier_training import RAW_SPLIT, ClassifierTrainings, ClassifySettings
from scratchlm.finetuning.side_runs import SIDE_RUNS, SideRun
from scratchlm.training.callbacks import Callback
from scratchlm.training.history import History
from scratchlm.training.progress import Progress


@dataclass(frozen=True, kw_only=True)
class ClassifyResult:
    """What fine-tuning a classifier reached."""

    folder: Path
    classes: tuple[str, ...]
    rows: int
    groups: int  # near-identical texts share a group
    split: LabelSplit  # leak-free: whole groups; validation and test hold one text per group
    scores: ClassificationScores  # on the leak-free test texts
    scores_raw: ClassificationScores | None  # of a second model, trained and tested on the book's split
    predictions: list[Prediction]  # for split.test, in its order
    threshold: Threshold | None
    by_seed: tuple[SideRun, ...]  # the kept model first, then the other seeds
    by_share: tuple[SideRun, ...]  # the learning curve, from few texts to all
    progress: Progress
    used_step: int  # of the model that was tested: see the setting `use`
    resumed_from: int | None
    earlier_s: float  # training time before this call, when it resumed a run
    trunk_s: float  # of running frozen blocks once, in this call
    n_trained: int  # trainable numbers
    n_truncated: int
    n_cached: int  # different texts that the frozen blocks ran on, once each; 0 without the cache


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

    Texts are split in whole groups of near-duplicates; validation and test then keep one text per group.
    Seeds torch's global generator with `settings.seed`.
    Raises: the readers' and Trainer's errors.
    """
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least 2 classes, found {', '.join(classes) or 'no text'}; add others."
        )
    if settings.choose_threshold:
        check_two_classes(classes)  # now, not after the training
    groups = group_near_duplicates(texts)
    split = leak_free_split(
        texts, labels, groups, seed=settings.split_seed, is_balanced=settings.balanced_test
    )
    notify(
        f"{len(rows):,} rows in {len(set(groups)):,} groups ({len(rows) - len(set(groups)):,} near-duplicates): "
        f"{describe_split(split)}"
    )
    out.mkdir(parents=True, exist_ok=True)
    trainings = ClassifierTrainings(
        texts, labels, classes, settings, base=base, device=device, out=out, notify=notify
    )
    try:
        fitted = trainings.train(split, out, callbacks, resume=resume)
        if not resume:
            History(out / SIDE_RUNS).truncate_after(-1)
        threshold = trainings.threshold(fitted, split.val)
        if threshold is not None:
            trainings.keep_threshold(out, threshold)
        predictions = trainings.predict(fitted, split.test, threshold=threshold)
        scores = score_predictions(predictions, [labels[i] for i in split.test], classes)
        main = SideRun(seed=settings.seed, n_texts=len(split.train), accuracy=scores.accuracy)
        by_seed = (
            main,
            *(trainings.on_the_side(split, seed=settings.seed + i) for i in range(1, settings.seeds)),
        )
        shares = sorted(settings.learning_curve)
        by_share = (*(trainings.on_the_side(split, share=share) for share in shares), main) if shares else ()
        scores_raw, earlier_s = None, fitted.earlier_s
        if settings.compare_raw_split:
            notify("once more on the book's split, which lets near-duplicates stand on both sides")
            raw_split = book_split(labels, seed=settings.split_seed)
            raw = trainings.train(raw_split, out / RAW_SPLIT, callbacks, resume=resume)
            earlier_s += raw.earlier_s
            raw_labels = [labels[i] for i in raw_split.test]
            raw_threshold = trainings.threshold(raw, raw_split.val)
            said = trainings.predict(raw, raw_split.test, threshold=raw_threshold)
            scores_raw = score_predictions(said, raw_labels, classes)
    finally:
        trainings.close()
    return ClassifyResult(
        folder=out,
        classes=classes,
        rows=len(rows),
        groups=len(set(groups)),
        split=split,
        scores=scores,
        scores_raw=scores_raw,
        predictions=predictions,
        threshold=threshold,
        by_seed=by_seed,
        by_share=by_share,
        progress=fitted.progress,
        used_step=fitted.used_step,
        resumed_from=fitted.resumed_from,
        earlier_s=earlier_s,
        trunk_s=trainings.trunk_s,
        n_trained=fitted.n_trained,
        n_truncated=fitted.n_truncated,
        n_cached=trainings.n_cached,
    )
