"""Convert the result of each stage to plain values, for `figures/STAGE.json` and `--json`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from scratchlm.core.errors import MissingDependencyError
from scratchlm.data.classification_rows import LabelledText
from scratchlm.data.instruction_split import EntrySplit
from scratchlm.data.label_split import split_figures, split_fingerprint
from scratchlm.data.preference_rows import Preference
from scratchlm.evaluation.baselines import majority_accuracy, tfidf_scores
from scratchlm.evaluation.calibration import expected_calibration_error, reliability
from scratchlm.evaluation.confusion_matrix import ClassificationScores
from scratchlm.evaluation.intervals import mean_over_runs, wilson_interval
from scratchlm.evaluation.ranking import rank_classes
from scratchlm.finetuning.answers import Answer, AnswerScores
from scratchlm.finetuning.classification import ClassifyResult
from scratchlm.finetuning.instruction import InstructResult
from scratchlm.finetuning.preference import PreferResult, PreferSettings
from scratchlm.recipes.inputs import EntrySet
from scratchlm.tokenizers.word import loses_text
from scratchlm.training.pretraining import PretrainResult

MAX_SHOWN_MISTAKES = 12  # of a classifier, the most confident ones


def pretrain_figures(result: PretrainResult) -> dict[str, Any]:
    """The results of pre-training, and the amount of text."""
    val_loss_low, val_loss_high = result.final.interval or (None, None)
    return {
        **_named(result, "step used_step skipped_steps train_loss tokens tokens_per_s seconds resumed_from"),
        "val_loss": result.final.loss,
        "perplexity": result.final.perplexity,
        "val_loss_low": val_loss_low,
        "val_loss_high": val_loss_high,
        "bits_per_byte": None if loses_text(result.tokenizer) else result.final.bits_per_byte,
        "scored_tokens": result.final.n_tokens,
        "earlier_seconds": result.earlier_s,
        "parameters": result.n_parameters,
        "vocab_size": result.tokenizer.vocab_size,
        "train_tokens": result.data.n_train_tokens,
        "val_tokens": result.data.n_val_tokens,
        "documents": result.data.n_documents,
        "skipped_lines": result.data.skipped_lines,
        "bytes_per_token": sum(result.data.val_n_bytes) / max(1, result.data.n_val_tokens),
        "sources": _source_figures(result),
    }


def _source_figures(result: PretrainResult) -> list[dict[str, Any]]:
    """What each of several sources gave to the training, and the loss on its validation side; empty for one."""
    data = result.data
    if len(data.sources) == 1:
        return []
    losses = [None if data.held_out else part.loss for part in result.val_losses]
    rows = zip(data.names, data.shares, data.train, result.tokens_by_source, losses * len(data.sources))
    return [
        {"name": name, "share": share, "train_tokens": len(ids), "tokens": n_tokens, "val_loss": loss}
        for name, share, ids, n_tokens, loss in rows
    ]


def classify_figures(rows: Sequence[LabelledText], result: ClassifyResult) -> dict[str, Any]:
    """A classifier's scores, and those of simple baselines on the same split."""
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    train_texts, train_labels = ([column[i] for i in result.split.train] for column in (texts, labels))
    test_texts, test_labels = ([column[i] for i in result.split.test] for column in (texts, labels))
    try:
        tfidf: ClassificationScores | None = tfidf_scores(train_texts, train_labels, test_texts, test_labels)
    except MissingDependencyError:
        tfidf = None  # shown as "not run", with the command that installs it
    low, high = result.scores.interval
    wrong = [
        {"text": p.text, "label": label, "predicted": p.label, "probability": p.probability}
        for p, label in zip(result.predictions, test_labels)
        if p.label != label
    ]
    raw = result.scores_raw
    return {
        **_named(result, "rows groups"),
        "duplicates": result.rows - result.groups,
        "classes": list(result.classes),
        **split_figures(result.split),
        "test_accuracy": result.scores.accuracy,
        "test_balanced_accuracy": result.scores.balanced_accuracy,
        "low": low,
        "high": high,
        "macro_f1": result.scores.macro_f1,
        "test_accuracy_raw": None if raw is None else raw.accuracy,
        "raw_test_n": None if raw is None else raw.n,
        "baseline_majority": majority_accuracy(train_labels, test_labels),
        "baseline_tfidf": None if tfidf is None else tfidf.accuracy,
        "baseline_tfidf_balanced": None if tfidf is None else tfidf.balanced_accuracy,
        "per_class": [asdict(scores) for scores in result.scores.per_class],
        "confusion": [list(row) for row in result.scores.confusion],
        "mistakes": sorted(wrong, key=lambda m: -float(str(m["probability"])))[:MAX_SHOWN_MISTAKES],
        "n_mistakes": len(wrong),
        **_probability_figures(result, test_labels),
        "threshold": None if result.threshold is None else asdict(result.threshold),
        "by_seed": [asdict(run) for run in result.by_seed],
        "seeds": None if len(result.by_seed) < 2 else _over_seeds(result),
        "learning_curve": [asdict(run) for run in result.by_share],
        "split_fingerprint": split_fingerprint(texts, labels, result.split),
        "trunk_seconds": result.cache_s,  # of the activation cache; the earlier name of these two keys stays
        "trunk_texts": result.n_cached,
        "truncated_test": sum(prediction.is_truncated for prediction in result.predictions),
        **_training_figures(result),
    }


def instruct_figures(
    entries: EntrySet, result: InstructResult, others: Mapping[str, AnswerScores]
) -> dict[str, Any]:
    """An assistant's scores on the test entries; `others` are those of the models before fine-tuning, by name."""
    low, high = result.scores.interval
    return {
        "rows": sum(map(len, (entries.split.train, entries.split.val, entries.split.test))),
        "test_n": result.scores.n,
        "low": low,
        "high": high,
        **_named(result, "val_loss padding_share tokens_per_s"),
        **_named(result.scores, "exact_match token_f1"),
        "token_f1_low": result.scores.f1_interval[0],
        "token_f1_high": result.scores.f1_interval[1],
        "empty": result.scores.n_empty,
        **{f"{name}_exact_match": scores.exact_match for name, scores in others.items()},
        "by_skill": _exact_match_by("skill", [a.entry.skill for a in result.answers], result.answers),
        "by_kind": _exact_match_by("kind", entries.kinds, result.answers),
        "answers": [
            {
                **_named(answer.entry, "instruction input skill"),
                "reference": answer.entry.output,
                "answer": answer.text,
                "correct": answer.is_exact,
            }
            for answer in result.answers
        ],
        "left_out": result.n_left_out,
        "dropped": entries.n_dropped,
        "notes": list(entries.notes),
        **_training_figures(result),
    }


def prefer_figures(
    split: EntrySplit[Preference], n_equal: int, settings: PreferSettings, result: PreferResult
) -> dict[str, Any]:
    """The effect of preference tuning on the test pairs; `kl` is None for a loss without a reference."""
    before, after, test_n = result.before, result.after, result.test_n
    low, high = wilson_interval(round(after["accuracy"] * test_n), test_n)
    return {
        "rows": len(split.train) + len(split.val) + len(split.test) + n_equal,
        "equal": n_equal,
        "train_n": len(split.train),
        "loss": settings.loss,
        **_named(result, "test_n beta template val_loss"),
        "test_loss": after["loss"],
        "test_accuracy": after["accuracy"],
        "low": low,
        "high": high,
        **{key: after[key] for key in ("likelier", "chosen_reward", "rejected_reward", "reward_margin")},
        **{f"base_{key}": before[key] for key in ("likelier", "reward_margin")},
        "kl": after.get("kl"),
        "answers": [
            {**_named(pair, "instruction input chosen rejected"), "answer": answer.text}
            for pair, answer in zip(split.test, result.answers, strict=True)
        ],
        "adapter": None if result.adapter is None else str(result.adapter),
        "left_out": result.n_left_out,
        **_training_figures(result),
    }


def _named(result: object, names: str) -> dict[str, Any]:
    """The attributes with these names, which are separated by spaces."""
    return {name: getattr(result, name) for name in names.split()}


def _training_figures(result: ClassifyResult | InstructResult | PreferResult) -> dict[str, Any]:
    """Steps and times, which every fine-tuning has."""
    return {
        "step": result.progress.step,
        "used_step": result.used_step,
        "skipped_steps": result.progress.skipped_steps,
        "seconds": result.progress.elapsed_s,
        "earlier_seconds": result.earlier_s,
        "resumed_from": result.resumed_from,
        "trained_parameters": result.n_trained,
        "truncated": result.n_truncated,
    }


def _probability_figures(result: ClassifyResult, test_labels: Sequence[str]) -> dict[str, Any]:
    """Calibration and ranking quality of the probabilities."""
    number = {label: i for i, label in enumerate(result.classes)}
    bins = reliability(
        [p.probability for p in result.predictions],
        [p.label == label for p, label in zip(result.predictions, test_labels)],
    )
    ranking = rank_classes(
        [number[label] for label in test_labels],
        [prediction.probabilities for prediction in result.predictions],
        classes=result.classes,
    )
    return {
        "calibration_error": expected_calibration_error(bins),
        "reliability": [asdict(one) for one in bins],
        "roc_auc": ranking.roc_auc,
        "average_precision": ranking.average_precision,
        "curves": [asdict(curve) for curve in ranking.curves],
    }


def _over_seeds(result: ClassifyResult) -> dict[str, Any]:
    """Mean, standard deviation and interval of the accuracy over the seeds."""
    runs = mean_over_runs([run.accuracy for run in result.by_seed])
    return asdict(runs) | {"low": max(0.0, runs.low), "high": min(1.0, runs.high)}  # of a share


def _exact_match_by(key: str, names: Iterable[str], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    groups: dict[str, list[bool]] = {}
    for name, answer in zip(names, answers):
        groups.setdefault(name, []).append(answer.is_exact)
    return [
        {key: name, "n": len(group), "exact_match": sum(group) / len(group)}
        for name, group in sorted(groups.items())
        if name
    ]
