"""Run rows of the book's table of additional experiments (chapter 6), over several seeds.

Each row is given by flags of `scratchlm finetune classify`; batches, learning rate and split are the book's. Without
OpenAI's weights choose another model with --base; the differences between rows are still visible.

Example: scratchlm bench finetune-table --data SMSSpamCollection --rows 1 3 16 19 --base runs/gutenberg --seeds 3
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.label_split import book_split
from scratchlm.evaluation.confusion_matrix import ClassificationScores
from scratchlm.evaluation.intervals import mean_over_runs, student_t_975
from scratchlm.finetuning.classification_task import score_predictions
from scratchlm.finetuning.classifier_training import ClassifierTrainings, ClassifySettings

BOOK = ClassifySettings(  # of every row
    epochs=5, batch_size=8, learning_rate=5e-5, schedule="constant", warmup_steps=0, beta2=0.999, max_grad_norm=0.0,
    eval_every_steps=0, checkpoint_every_steps=0, balance="none", train="last-block", position="last",
    pad="longest", drop_rate=0.0, compare_raw_split=False,
)  # fmt: skip
LORA = {"train": "lora", "lora_rank": 16, "lora_scaling": "alpha"}
ROWS: dict[int, tuple[str, str, dict[str, Any]]] = {  # number: (what, base, settings that differ)
    1: ("last block, last token", "gpt2-small", {}),
    2: ("first token", "gpt2-small", {"position": "first"}),
    3: ("last layer", "gpt2-small", {"train": "last-layer"}),
    4: ("last two blocks", "gpt2-small", {"train": "last-two-blocks"}),
    5: ("all layers", "gpt2-small", {"train": "all"}),
    6: ("355M", "gpt2-medium", {}),
    7: ("774M", "gpt2-large", {}),
    8: ("1558M", "gpt2-xl", {}),
    9: ("1558M, all layers", "gpt2-xl", {"train": "all"}),
    10: ("random weights, all layers", "random:gpt2-small", {"train": "all"}),
    11: ("LoRA", "gpt2-small", {**LORA, "lora_alpha": 16.0}),
    12: ("1558M, LoRA", "gpt2-xl", {**LORA, "lora_alpha": 8.0}),
    13: ("padded to the context", "gpt2-small", {"pad": "model"}),
    14: ("no padding, batches of one", "gpt2-small", {"pad": "none", "batch_size": 1}),
    15: ("no padding, eight accumulated", "gpt2-small", {"pad": "none", "batch_size": 1, "accumulate": 8}),
    16: ("last real token", "gpt2-small", {"position": "last-real"}),
    17: ("no causal mask", "gpt2-small", {"causal_mask": False}),
    18: ("padding ignored as a target", "gpt2-small", {"ignore_index": 50256}),
    19: ("mean of all tokens", "gpt2-small", {"position": "mean"}),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowResult:
    """The test accuracies of one row, one per seed, and the seconds they took."""

    number: int
    accuracies: tuple[float, ...]
    n_test: int
    seconds: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean over seeds, or of the accuracy of a single run."""
        if len(self.accuracies) < 2:
            return _scores(self.accuracies[0], self.n_test).interval
        runs = mean_over_runs(self.accuracies)
        return max(0.0, runs.low), min(1.0, runs.high)


def run_row(
    number: int,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    base: str | None,
    n_seeds: int,
    changes: dict[str, Any],
) -> RowResult:
    """Train a row with each seed on the book's split."""
    _, usual_base, settings = ROWS[number]
    chosen = dataclasses.replace(BOOK, **{**settings, **changes})
    split = book_split(labels)
    started_at_s = time.perf_counter()
    accuracies = []
    with tempfile.TemporaryDirectory(prefix="finetune-table-") as folder:
        trainings = ClassifierTrainings(
            texts, labels, tuple(sorted(set(labels))), chosen,
            base=usual_base if base is None or usual_base.startswith("random:") else base,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"), out=Path(folder),
        )  # fmt: skip
        try:
            for seed in range(n_seeds):
                fitted = trainings.train(split, None, seed=seed)
                said = trainings.predict(fitted, split.test)
                scores = score_predictions(said, [labels[i] for i in split.test], trainings.classes)
                accuracies.append(scores.accuracy)
        finally:
            trainings.close()
    seconds = time.perf_counter() - started_at_s
    return RowResult(number=number, accuracies=tuple(accuracies), n_test=len(split.test), seconds=seconds)


def can_be_told_apart(one: RowResult, other: RowResult) -> bool:
    """Whether the 95 % interval of the difference excludes zero.

    Over seeds: Welch's, with its degrees of freedom rounded down. Of single runs: that of two shares.
    """
    pair = []
    for row in (one, other):
        n, mean = len(row.accuracies), sum(row.accuracies) / len(row.accuracies)
        of_texts = mean * (1 - mean) / row.n_test
        spread = sum((a - mean) ** 2 for a in row.accuracies) / (n - 1) / n if n > 1 else of_texts
        pair.append((mean, spread, n))
    (mean, spread, n), (other_mean, other_spread, other_n) = pair
    both = spread + other_spread
    if both == 0:
        return mean != other_mean
    half = 1.96
    if n > 1 and other_n > 1:
        parts = spread**2 / (n - 1) + other_spread**2 / (other_n - 1)
        half = student_t_975(max(1, math.floor(both**2 / parts)))
    return abs(mean - other_mean) > half * math.sqrt(both)


def main() -> None:
    """Run the rows and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", required=True, nargs="+", help="the file SMSSpamCollection, or others like it"
    )
    usual = [1, 2, 3, 4, 16, 17, 19]
    parser.add_argument(
        "--rows", type=int, nargs="+", default=usual, choices=sorted(ROWS), metavar="ROW",
        help="numbers of the book's rows, 1 to 19; default: " + " ".join(map(str, usual)),
    )  # fmt: skip
    parser.add_argument(
        "--base", help="the model of all rows but those with random weights; default: the table's"
    )
    parser.add_argument("--random-base", help="of the rows with random weights, e.g. random:small")
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="trainings of each row, with seed 0, 1, ... (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=float, default=BOOK.epochs, help="passes over the texts (default: %(default)s)"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=BOOK.learning_rate, help="the peak (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {arguments.seeds}; 3 is usual")
    rows = read_labelled(arguments.data)
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    changes = {"epochs": arguments.epochs, "learning_rate": arguments.learning_rate}
    if arguments.random_base:
        ROWS[10] = (ROWS[10][0], arguments.random_base, ROWS[10][2])
    results = []
    if arguments.base:
        print(f"Rows that the book starts from OpenAI's weights start from {arguments.base} here.\n")
    print("| row | what | test accuracy | 95 % interval | seconds a run |\n|---|---|---|---|---|")
    for number in arguments.rows:
        result = run_row(number, texts, labels, base=arguments.base, n_seeds=arguments.seeds, changes=changes)
        results.append(result)
        runs = len(result.accuracies)
        mean = sum(result.accuracies) / runs
        spread = f" +- {mean_over_runs(result.accuracies).deviation:.2%}" if runs > 1 else ""
        low, high = result.interval
        print(
            f"| {number} | {ROWS[number][0]} | {mean:.2%}{spread} | {low:.1%} to {high:.1%} | "
            f"{result.seconds / runs:.1f} |",
            flush=True,
        )
    n_test = results[0].n_test
    seeds = "1 seed" if arguments.seeds == 1 else f"{arguments.seeds} seeds"
    print(f"\n{n_test} test messages: one of them is {1 / n_test:.2%}. Over {seeds}, can be told apart:")
    apart = [
        f"{one.number} and {other.number}"
        for i, one in enumerate(results)
        for other in results[i + 1 :]
        if can_be_told_apart(one, other)
    ]
    print(", ".join(apart) or "none of the rows")


def _scores(accuracy: float, n: int) -> ClassificationScores:
    right = round(accuracy * n)
    return ClassificationScores(classes=("right", "wrong"), confusion=((right, n - right), (0, 0)))


if __name__ == "__main__":
    main()
