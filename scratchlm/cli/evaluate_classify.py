"""`scratchlm evaluate classify`: score a classifier on labelled texts."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.row_files import RowSettings
from scratchlm.finetuning.classification_task import score_predictions
from scratchlm.serving.language_model import load
from scratchlm.training.settings import resolve_data


@dataclass(frozen=True, kw_only=True)
class EvaluateClassify(Common):
    """Accuracy with its 95 % interval, precision, recall and F1 of a classifier on labelled texts.

    Example: scratchlm evaluate classify --model runs/spam --data new_messages.csv
    """

    model: Path | None = None  # a classifier's model folder or run folder
    data: tuple[str, ...] = ()  # files, folders or globs of labelled texts, or a known name
    rows: Annotated[RowSettings, tyro.conf.arg(name="")] = field(default_factory=RowSettings)


@command_line(EvaluateClassify)
def main(command: EvaluateClassify, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Evaluate the classifier and print its scores; returns the `--json` keys."""
    needs = "evaluate classify needs a classifier and labelled texts"
    model, data = required(command, needs, "model", "data")
    lm = load(model, device=command.device)
    if lm.kind != "classification":
        raise ConfigError(
            f"evaluate classify needs a classifier, and {lm.folder} holds a {lm.kind}; "
            f"name {lm.stage_beside('classify') or 'the folder of a classifier'}."
        )
    rows = read_labelled(resolve_data(data, kind="sms_spam_collection"), command.rows)
    classes = [str(name) for name in lm.class_names]
    unseen = sorted({row.label for row in rows} - set(classes))
    if unseen:
        raise DataError(
            f"labels must be among the classifier's ({', '.join(classes)}), got {unseen[0]!r}; correct the file."
        )
    predictions = lm.classify([row.text for row in rows])
    scores = score_predictions(predictions, [row.label for row in rows], classes)
    low, high = scores.interval
    print(
        f"{scores.accuracy:.2%} of {scores.n:,} correct (95 % interval {low:.1%} to {high:.1%}); "
        f"balanced accuracy {scores.balanced_accuracy:.2%}"
    )
    for row in scores.per_class:
        figures = f"precision {row.precision:.3f}, recall {row.recall:.3f}, F1 {row.f1:.3f}"
        print(f"  {row.label}: {figures}, {row.support:,} texts")
    print(f"  confusion matrix (rows: actual, columns: predicted): {scores.confusion}")
    return {
        "accuracy": scores.accuracy,
        "balanced_accuracy": scores.balanced_accuracy,
        "low": low,
        "high": high,
        "n": scores.n,
        "macro_f1": scores.macro_f1,
        "per_class": [asdict(row) for row in scores.per_class],
        "confusion": scores.confusion,
        "truncated": sum(int(prediction.is_truncated) for prediction in predictions),
    }
