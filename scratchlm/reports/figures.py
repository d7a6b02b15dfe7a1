"""The report's main figures: value, interval, what it was measured on, and baselines to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from scratchlm.core.errors import DataError
from scratchlm.reports.formats import count, decimal, interval_text, is_number, percent


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of a bar chart: a share from 0 to 1, optionally with its 95% interval."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    is_ours: bool = False
    role: str = ""  # the run's colour, when runs are compared


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A figure with its interval, the number of items it was measured on, and a note."""

    name: str
    value: str
    over: str
    interval: str
    note: str


def classifier_bars(classify: Data) -> list[Bar]:
    """The classifier's accuracy and that of simpler methods."""
    return _bars(
        classify,
        ("test_accuracy", "This model", "on the leak-free split"),
        ("baseline_tfidf", "Word counts (TF-IDF) with logistic regression", "same test messages"),
        ("baseline_majority", "Always the most frequent class", "same test messages"),
        ("test_accuracy_raw", "This model, book-style random split", "near-duplicates may leak"),
    )


def assistant_bars(instruct: Data) -> list[Bar]:
    """The assistant's exact match, and that of the same model before instruction tuning and before any training."""
    return _bars(
        instruct,
        ("exact_match", "This assistant", "after instruction tuning"),
        ("base_exact_match", "The pre-trained model", "before instruction tuning"),
        ("untrained_exact_match", "An untrained model", "random weights"),
    )


def preference_bars(prefer: Data) -> list[Bar]:
    """The share of pairs in which the chosen answer wins, relative to the starting model and in absolute terms."""
    return _bars(
        prefer,
        ("test_accuracy", "Gains more likelihood than the rejected one", "after preference tuning"),
        ("likelier", "Is likelier than the rejected one", "after preference tuning"),
        ("base_likelier", "Is likelier than the rejected one", "before preference tuning"),
    )


def claims(data: Data) -> list[Claim]:
    """All main figures of a run, with their number of items, interval and note."""
    return [
        *_pretrain_claims(data.get("pretrain") or {}),
        *_classify_claims(data.get("classify") or {}),
        *_instruct_claims(data.get("instruct") or {}),
        *_prefer_claims(data.get("prefer") or {}),
    ]


def _bars(stage: Data, *named: tuple[str, str, str]) -> list[Bar]:
    """Bars of the measured shares; the first is our model's, and the stage's interval belongs to it."""
    low, high = stage.get("low"), stage.get("high")
    bars = []
    for i, (key, label, note) in enumerate(named):
        value = stage.get(key)
        if not is_number(value):
            continue
        check_share(value, key)
        ends = (low, high) if i == 0 and is_number(low) and is_number(high) else (None, None)
        bars.append(Bar(label=label, value=value, low=ends[0], high=ends[1], note=note, is_ours=i == 0))
    return bars


def _pretrain_claims(stage: Data) -> list[Claim]:
    over = _over(stage, "val_tokens", "tokens")
    if is_number(stage.get("val_documents")):
        over += f" of {count(stage['val_documents'])} documents"
    overlap = stage.get("overlap")
    overlap = overlap if isinstance(overlap, dict) else {}
    seen = [
        f"{percent(overlap[key])} of the {words}"
        for key, words in (("sentences", "sentences"), ("five_grams", "five-word sequences"))
        if is_number(overlap.get(key))
    ]
    note = "On text that the model was not trained on."
    if seen:
        note += f" {' and '.join(seen)} of it also occur in the training text."
    named = (
        ("val_loss", "Validation loss", " nats per token", note),
        (
            "bits_per_byte",
            "Bits per byte",
            "",
            "The same loss per byte, which is comparable across tokenizers.",
        ),
    )
    return [
        Claim(
            name=name,
            value=f"{decimal(stage[key], 3)}{unit}",
            over=over,
            interval=_loss_interval(stage, key),
            note=note,
        )
        for key, name, unit, note in named
        if is_number(stage.get(key))
    ]


def _loss_interval(stage: Data, key: str) -> str:
    """The loss's interval in the units of the figure; empty when the run did not record it."""
    low, high, loss = stage.get("val_loss_low"), stage.get("val_loss_high"), stage.get("val_loss")
    if not (is_number(low) and is_number(high) and is_number(loss) and loss > 0):
        return ""
    scale = stage[key] / loss
    return f"{decimal(low * scale, 3)}–{decimal(high * scale, 3)}"


def _classify_claims(stage: Data) -> list[Claim]:
    return _share_claims(
        stage,
        (
            "test_accuracy",
            "Classifier accuracy",
            _over(stage, "test_n", "messages"),
            "Near-identical messages are on one side of the split only.",
        ),
        (
            "test_accuracy_raw",
            "Accuracy, book-style split",
            "its own test split",
            "A random split, as in the book: the training data may contain copies of test messages.",
        ),
    )


def _instruct_claims(stage: Data) -> list[Claim]:
    over = _over(stage, "test_n", "tasks")
    strict = "The whole answer must equal the reference; an answer in other words counts as wrong."
    shared = "The overlap of words between answer and reference, without regard to their order."
    return _share_claims(
        stage, ("exact_match", "Exact match", over, strict), ("token_f1", "Token F1", over, shared)
    )


def _prefer_claims(stage: Data) -> list[Claim]:
    over = _over(stage, "test_n", "pairs")
    gain = "Tuning raised the chosen answer's likelihood more than the rejected one's; a tie counts half."
    alone = "The model gives the chosen answer the higher likelihood."
    return _share_claims(
        stage,
        ("test_accuracy", "Preference accuracy", over, gain),
        ("likelier", "Chosen answer likelier", over, alone),
    )


def _share_claims(stage: Data, *named: tuple[str, str, str, str]) -> list[Claim]:
    """Figures that are shares; `low` and `high` of a stage belong to the first of them."""
    ends = [("low", "high"), *((f"{key}_low", f"{key}_high") for key, *_ in named[1:])]
    return [
        Claim(
            name=name,
            value=percent(stage[key]),
            over=over,
            note=note,
            interval=interval_text(stage.get(ends[i][0]), stage.get(ends[i][1])),
        )
        for i, (key, name, over, note) in enumerate(named)
        if is_number(stage.get(key))
    ]


def _over(stage: Data, key: str, items: str) -> str:
    return f"{count(stage[key])} {items}" if is_number(stage.get(key)) else "not recorded"


Data: TypeAlias = Mapping[str, Any]  # the data of a run, or of one of its stages


def check_share(value: Any, name: str) -> None:
    """Check that a value is a share.

    Raises: DataError when it is not a number from 0 to 1.
    """
    if not is_number(value) or not 0 <= value <= 1 + 1e-6:  # float32 sums end a little past one
        raise DataError(
            f"{name} must be a share from 0 to 1 in the report's data, got {value!r}; divide a percentage by 100."
        )


def check_square(matrix: Sequence[Sequence[Any]], side: int, *, name: str, advice: str) -> None:
    """Check that a matrix fits its labels.

    Raises: DataError when it does not have `side` rows of `side` numbers.
    """
    widths = {len(row) for row in matrix}
    if len(matrix) != side or widths - {side}:
        raise DataError(
            f"the report needs {name} with {side} rows and columns, one per label, got {len(matrix)} rows of "
            f"{sorted(widths)} numbers; {advice}."
        )
