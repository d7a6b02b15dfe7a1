"""Every figure that the page rests on, beside what it must be compared with and what it was measured on."""

from __future__ import annotations

from dataclasses import dataclass

from scratchlm.reports.checks import Data, check_share
from scratchlm.reports.formats import count, decimal, interval_text, is_number, percent


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One line of a comparison: a share of one, perhaps with the ends of its 95% interval."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    is_ours: bool = False
    role: str = ""  # whose colour it has, when runs are compared


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A figure of the report with what a careful reader must know to believe it."""

    name: str
    value: str
    over: str
    interval: str
    note: str


def classifier_bars(classify: Data) -> list[Bar]:
    """The classifier's accuracy beside what simpler methods reach."""
    return _bars(
        classify,
        ("test_accuracy", "This model", "on the leak-free split"),
        ("baseline_tfidf", "Word counts (TF-IDF) with logistic regression", "same test messages"),
        ("baseline_majority", "Always the commonest class", "same test messages"),
        ("test_accuracy_raw", "This model, book-style random split", "near-duplicates may leak"),
    )


def assistant_bars(instruct: Data) -> list[Bar]:
    """The assistant's exact match beside the same model before instruction tuning and before any training."""
    return _bars(
        instruct,
        ("exact_match", "This assistant", "after instruction tuning"),
        ("base_exact_match", "The pre-trained model", "before instruction tuning"),
        ("untrained_exact_match", "An untrained model", "random weights"),
    )


def preference_bars(prefer: Data) -> list[Bar]:
    """In how many pairs the chosen answer wins: measured from where the model began, and by itself."""
    return _bars(
        prefer,
        ("test_accuracy", "Gains more than the rejected one", "after preference tuning"),
        ("likelier", "Is likelier than the rejected one", "after preference tuning"),
        ("base_likelier", "Is likelier than the rejected one", "before preference tuning"),
    )


def claims(data: Data) -> list[Claim]:
    """Every figure the page rests on: over how many items, with which interval, and what to keep in mind."""
    return [
        *_pretrain_claims(data.get("pretrain") or {}),
        *_classify_claims(data.get("classify") or {}),
        *_instruct_claims(data.get("instruct") or {}),
        *_prefer_claims(data.get("prefer") or {}),
    ]


def _bars(stage: Data, *named: tuple[str, str, str]) -> list[Bar]:
    """Bars of the shares that were measured; the first is ours, and the stage's interval is its interval."""
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
    note = "Text the model never trained on."
    if seen:
        note += f" Of it, {' and '.join(seen)} also stand in the training text."
    named = (
        ("val_loss", "Validation loss", " nats per token", note),
        (
            "bits_per_byte",
            "Bits per byte",
            "",
            "The same loss per byte, so that other tokenizers can be compared.",
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
    """The loss's interval, in the units of the figure; nothing when the run did not record it."""
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
            "Near-identical messages stand on one side of the split only.",
        ),
        (
            "test_accuracy_raw",
            "Accuracy, book-style split",
            "its own test split",
            "A random split, as in the book: copies of test messages may have been trained on.",
        ),
    )


def _instruct_claims(stage: Data) -> list[Claim]:
    over = _over(stage, "test_n", "tasks")
    strict = "The whole answer must equal the reference; an answer in other words counts as wrong."
    shared = "How many words answer and reference share: kinder than exact match, and blind to their order."
    return _share_claims(
        stage, ("exact_match", "Exact match", over, strict), ("token_f1", "Token F1", over, shared)
    )


def _prefer_claims(stage: Data) -> list[Claim]:
    over = _over(stage, "test_n", "pairs")
    gain = "Tuning raised the chosen answer's likelihood more than the rejected one's; a tie counts half."
    alone = "The model itself finds the chosen answer likelier, whatever it thought before."
    return _share_claims(
        stage,
        ("test_accuracy", "Preference accuracy", over, gain),
        ("likelier", "Chosen answer likelier", over, alone),
    )


def _share_claims(stage: Data, *named: tuple[str, str, str, str]) -> list[Claim]:
    """Claims about shares of one; `low` and `high` of a stage belong to the first of them."""
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
