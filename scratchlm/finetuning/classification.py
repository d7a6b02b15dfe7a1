"""Fine-tune a base model as a text classifier and test it on texts without near-duplicates in the training set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scratchlm.core.errors import DataError
from scratchlm.data.classification_rows import LabelledText
from scratchlm.data.label_split import LabelSplit, book_split, describe_split, leak_free_split
from scratchlm.data.near_duplicates import group_near_duplicates
from scratchlm.evaluation.confusion_matrix import ClassificationScores
from scratchlm.finetuning.classification_task import (
    Prediction,
    Threshold,
    check_two_classes,
    score_predictions,
)
from scratchlm.finetuning.classifier_training import ClassifierTrainings, ClassifySettings
from scratchlm.finetuning.fine_tune import FineTuned
from scratchlm.finetuning.side_runs import SIDE_RUNS, SideRun
from scratchlm.training.callbacks import Callback
from scratchlm.training.distributed import current_ranks
from scratchlm.training.history import History

RAW_SPLIT = "raw-split"  # folder of the model for the book's split


@dataclass(frozen=True, kw_only=True)
class ClassifyResult(FineTuned):
    """The result of fine-tuning a classifier."""

    classes: tuple[str, ...]
    rows: int
    groups: int  # of near-identical texts
    split: LabelSplit  # leak-free: whole groups; validation and test have one text per group
    scores: ClassificationScores  # on the leak-free test texts
    scores_raw: ClassificationScores | None  # of a second model, trained and tested on the book's split
    predictions: list[Prediction]  # for split.test, in its order
    threshold: Threshold | None
    by_seed: tuple[SideRun, ...]  # the saved model first, then the other seeds
    by_share: tuple[SideRun, ...]  # the learning curve, from few texts to all
    cache_s: float  # time of filling the activation cache in this call
    n_truncated: int  # truncated training texts
    n_cached: int  # distinct texts in the activation cache; 0 without it


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
    """Train a classifier on labelled texts in the run folder `out` and test it.

    Texts are split in whole groups of near-duplicates; validation and test then keep one text per group.
    Seeds torch's global generator with `settings.seed`.
    Raises: the readers' and Trainer's errors.
    """
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least 2 classes, got {', '.join(classes) or 'no text'}; "
            "add texts with other labels."
        )
    if settings.choose_threshold:
        check_two_classes(classes)  # checked now and not after training
    groups = group_near_duplicates(texts)
    n_groups = len(set(groups))
    split = leak_free_split(
        texts, labels, groups, seed=settings.split_seed, is_balanced=settings.balanced_test
    )
    notify(
        f"{len(rows):,} rows in {n_groups:,} groups ({len(rows) - n_groups:,} near-duplicates): "
        f"{describe_split(split)}"
    )
    out.mkdir(parents=True, exist_ok=True)
    trainings = ClassifierTrainings(
        texts, labels, classes, settings, base=base, device=device, out=out, notify=notify
    )
    try:
        trained = trainings.train(split, out, callbacks, resume=resume)
        if not resume and current_ranks().is_main:
            History(out / SIDE_RUNS).truncate_after(-1)
        threshold = trainings.threshold(trained, split.val)
        if threshold is not None:
            trainings.save_threshold(out, threshold)
        predictions = trainings.predict(trained, split.test, threshold=threshold)
        scores = score_predictions(predictions, [labels[i] for i in split.test], classes)
        main = SideRun(seed=settings.seed, n_texts=len(split.train), accuracy=scores.accuracy)
        others = [trainings.side_run(split, seed=settings.seed + i) for i in range(1, settings.seeds)]
        shares = [trainings.side_run(split, share=share) for share in sorted(settings.learning_curve)]
        scores_raw, earlier_s = None, trained.tuned.earlier_s
        if settings.compare_raw_split:
            notify("training again on the book's split, which allows near-duplicates on both sides")
            raw_split = book_split(labels, seed=settings.split_seed)
            raw = trainings.train(raw_split, out / RAW_SPLIT, callbacks, resume=resume)
            earlier_s += raw.tuned.earlier_s
            raw_threshold = trainings.threshold(raw, raw_split.val)
            raw_predictions = trainings.predict(raw, raw_split.test, threshold=raw_threshold)
            scores_raw = score_predictions(raw_predictions, [labels[i] for i in raw_split.test], classes)
    finally:
        trainings.close()
    return ClassifyResult(
        **{**vars(trained.tuned), "earlier_s": earlier_s},
        classes=classes,
        rows=len(rows),
        groups=n_groups,
        split=split,
        scores=scores,
        scores_raw=scores_raw,
        predictions=predictions,
        threshold=threshold,
        by_seed=(main, *others),
        by_share=(*shares, main) if shares else (),
        cache_s=trainings.cache_s,
        n_truncated=trained.n_truncated,
        n_cached=trainings.n_cached,
    )
