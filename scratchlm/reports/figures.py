"""The report's main metrics: value, interval, number of items, and baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from scratchlm.core.errors import DataError
from scratchlm.reports.formats import count, decimal, interval_text, is_number, percent

Data: TypeAlias = Mapping[str, Any]  # the data of a run, or of one of its stages

BARS = {  # stage: key, label and note of each bar; the first is our model's
    "classify": (
        ("test_accuracy", "This model", "on the leak-free split"),
        ("baseline_tfidf", "Word counts (TF-IDF) with logistic regression", "same test messages"),
        ("baseline_majority", "Always the most frequent class", "same test messages"),
        ("test_accuracy_raw", "This model, book-style random split", "near-duplicates may leak"),
    ),
    "instruct": (
        ("exact_match", "This assistant", "after instruction tuning"),
        ("base_exact_match", "The pre-trained model", "before instruction tuning"),
        ("untrained_exact_match", "An untrained model", "random weights"),
    ),
    "prefer": (
        ("test_accuracy", "Gains more likelihood than the rejected one", "after preference tuning"),
        ("likelier", "Is likelier than the rejected one", "after preference tuning"),
        ("base_likelier", "Is likelier than the rejected one", "before preference tuning"),
    ),
}
OWN_SPLIT = "its own test split"
SHARES = (  # stage, key, name, test items, note
    ("classify", "test_accuracy", "Classifier accuracy", "messages",
     "Near-identical messages are on one side of the split only."),
    ("classify", "test_accuracy_raw", "Accuracy, book-style split", OWN_SPLIT,
     "A random split, as in the book: the training data may contain copies of test messages."),
    ("instruct", "exact_match", "Exact match", "tasks",
     "The whole answer must equal the reference; an answer in other words counts as wrong."),
    ("instruct", "token_f1", "Token F1", "tasks",
     "The overlap of words between answer and reference, without regard to their order."),
    ("prefer", "test_accuracy", "Preference accuracy", "pairs",
     "Tuning raised the chosen answer's likelihood more than the rejected one's; a tie counts half."),
    ("prefer", "likelier", "Chosen answer likelier", "pairs",
     "The model gives the chosen answer the higher likelihood."),
)  # fmt: skip
MAIN_SHARE = {"classify": "test_accuracy", "instruct": "exact_match", "prefer": "test_accuracy"}


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
    """A metric with its interval, the number of items it was measured on, and a note."""

    name: str
    value: str
    over: str
    interval: str
    note: str


def baseline_bars(name: str, stage: Data) -> list[Bar]:
    """A stage's result beside those of baselines, or of the model before this stage, where measured.

    Raises: DataError for a value that is not a share.
    """
    bars = []
    for i, (key, label, note) in enumerate(BARS[name]):
        value = stage.get(key)
        if not is_number(value):
            continue
        check_share(value, key)
        low, high = ends_of(stage) if i == 0 else (None, None)
        bars.append(Bar(label=label, value=value, low=low, high=high, note=note, is_ours=i == 0))
    return bars


def ends_of(stage: Data) -> tuple[float, float] | tuple[None, None]:
    """The interval of a stage's main metric; None twice where it was not recorded."""
    low, high = stage.get("low"), stage.get("high")
    return (low, high) if is_number(low) and is_number(high) else (None, None)


def claims(data: Data) -> list[Claim]:
    """All main metrics of a run, with number of items, interval and note."""
    found = _pretrain_claims(data.get("pretrain") or {})
    for name, key, title, items, note in SHARES:
        stage = data.get(name) or {}
        if not is_number(stage.get(key)):
            continue
        prefix = "" if MAIN_SHARE[name] == key else f"{key}_"
        interval = interval_text(stage.get(f"{prefix}low"), stage.get(f"{prefix}high"))
        over = items if items == OWN_SPLIT else _over(stage, "test_n", items)
        found.append(Claim(name=title, value=percent(stage[key]), over=over, interval=interval, note=note))
    return found


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
    per_byte = "The same loss per byte, which is comparable across tokenizers."
    found = []
    for key, name, unit, words in (
        ("val_loss", "Validation loss", " nats per token", note),
        ("bits_per_byte", "Bits per byte", "", per_byte),
    ):
        if is_number(stage.get(key)):
            value, interval = f"{decimal(stage[key], 3)}{unit}", _loss_interval(stage, key)
            found.append(Claim(name=name, value=value, over=over, interval=interval, note=words))
    return found


def _loss_interval(stage: Data, key: str) -> str:
    """The interval of the loss in the metric's unit; empty when the run did not record it."""
    low, high, loss = stage.get("val_loss_low"), stage.get("val_loss_high"), stage.get("val_loss")
    if not (is_number(low) and is_number(high) and is_number(loss) and loss > 0):
        return ""
    scale = stage[key] / loss
    return f"{decimal(low * scale, 3)}–{decimal(high * scale, 3)}"


def _over(stage: Data, key: str, items: str) -> str:
    return f"{count(stage[key])} {items}" if is_number(stage.get(key)) else "not recorded"


def check_share(value: Any, name: str) -> None:
    """Raise DataError unless a value is a number from 0 to 1."""
    if not is_number(value) or not 0 <= value <= 1 + 1e-6:  # float32 sums can slightly exceed one
        raise DataError(
            f"{name} must be a share from 0 to 1 in the report's data, got {value!r}; divide a percentage by 100."
        )


def check_square(matrix: Sequence[Sequence[Any]], side: int, *, name: str, advice: str) -> None:
    """Raise DataError unless a matrix has `side` rows of `side` numbers, as many as labels."""
    widths = {len(row) for row in matrix}
    if len(matrix) != side or widths - {side}:
        raise DataError(
            f"the report needs {name} with {side} rows and columns, one per label, got {len(matrix)} rows of "
            f"{sorted(widths)} numbers; {advice}."
        )
