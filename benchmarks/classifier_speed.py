"""Fine-tune GPT-2 small on the SMS collection: the book's procedure, and ours with the frozen layers run once.

One process, one set of random 124M weights, the same batches and the same loop (`train_classifier_simple`) for all:

1. the book: rows padded to 120, every block in every step, attention and layers without fused kernels;
2. the same computation with an activation cache and the last block at one position: the weights must agree;
3. rows without padding, read at the last real token (row 16 of the book's table).

Example: python -m benchmarks.classifier_speed --data SMSSpamCollection --epochs 5
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from scratchlm import gpt2_tokenizer
from scratchlm.book import ch06
from scratchlm.data.classification_batches import ClassificationExamples
from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.label_split import book_split
from scratchlm.finetuning.activation_cache import ActivationCache, CachedExamples
from scratchlm.finetuning.classification_task import ClassificationTask
from scratchlm.finetuning.freeze import freeze_all_but
from scratchlm.finetuning.heads import Position, replace_head
from scratchlm.finetuning.input_format import InputFormat
from scratchlm.model.config import named_config
from scratchlm.model.gpt import GPTModel
from scratchlm.training.batch_memory import n_frozen_blocks

SEED, BATCH_ROWS, LEARNING_RATE, WEIGHT_DECAY = 123, 8, 5e-5, 0.1  # the book's
WIDTH = 120  # tokens: the longest training text of the book's split
EVAL_FREQ, EVAL_ITER = 50, 5
CLASSES = ("ham", "spam")


class CachedClassifier(nn.Module):
    """A classifier called with text numbers instead of token ids, so that the book's own loop can use a cache.

    Shapes: numbers (B, 1) -> (B, 1, C).
    """

    def __init__(self, model: GPTModel, examples: CachedExamples, position: Position) -> None:
        super().__init__()
        self.model, self.examples, self.task = model, examples, ClassificationTask(position=position)

    def forward(self, numbers: Tensor) -> Tensor:
        """Logits of the texts with these numbers."""
        return self.task.logits(self.model, self.examples.batch(numbers[:, 0].numpy()))[:, None]


def classifier(size: str, **changes: object) -> GPTModel:
    """Random weights, the same for every call, with a head of two classes and a trainable last block."""
    torch.manual_seed(SEED)
    model = GPTModel(named_config(size, qkv_bias=True, drop_rate=0.0, **changes))
    replace_head(model, len(CLASSES))
    freeze_all_but(model, "last-block")
    return model


def loaders(inputs: Tensor, labels: Tensor, parts: list[list[int]]) -> list[DataLoader[tuple[Tensor, ...]]]:
    """The book's three loaders: training shuffled and without a last smaller batch."""
    whole = TensorDataset(inputs, labels)
    torch.manual_seed(SEED)
    return [
        DataLoader(Subset(whole, part), batch_size=BATCH_ROWS, shuffle=i == 0, drop_last=i == 0)
        for i, part in enumerate(parts)
    ]


def train(
    model: nn.Module,
    three: list[DataLoader[tuple[Tensor, ...]]],
    n_epochs: int,
    after_epoch: Callable[[int], None],
    *,
    is_book: bool,
) -> list[float]:
    """The book's loop, one epoch per call, then the accuracies on all three parts, as in the book.

    The optimizer is the book's, or AdamW as `scratchlm finetune` has it: the same steps, fused.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=not is_book)
    torch.manual_seed(SEED)
    for epoch in range(1, n_epochs + 1):
        with redirect_stdout(io.StringIO()):
            ch06.train_classifier_simple(
                model, three[0], three[1], optimizer, "cpu", 1, eval_freq=EVAL_FREQ, eval_iter=EVAL_ITER
            )
        after_epoch(epoch)
    return [ch06.calc_accuracy_loader(loader, model, "cpu") for loader in three]


@dataclass(frozen=True)
class Outcome:
    """The seconds for filling the cache, the epochs and the final tests, and the accuracies."""

    filled_s: float
    epochs_s: float
    tested_s: float
    accuracies: list[float]
    early: dict[str, Tensor]  # the learning weights after the epoch that is compared


def run(
    examples: ClassificationExamples,
    labels: Tensor,
    parts: list[list[int]],
    *,
    size: str,
    n_epochs: int,
    compared_epoch: int,
    position: Position | None,
) -> Outcome:
    """Train as the book does (position None), or on cached activations, read at a position."""
    is_book = position is None
    model = classifier(size, attention="manual", kernels="manual") if is_book else classifier(size)
    early: dict[str, Tensor] = {}
    trained_at_s = [0.0]

    def after_epoch(epoch: int) -> None:
        trained_at_s.append(time.perf_counter())
        if epoch == compared_epoch:
            early.update({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})

    started_at_s = filled_at_s = time.perf_counter()
    if position is None:
        inputs = torch.stack([torch.from_numpy(examples.row(i)) for i in range(len(examples))])  # (N, 120)
        accuracies = train(model, loaders(inputs, labels, parts), n_epochs, after_epoch, is_book=True)
    else:
        cached = CachedExamples(examples, ActivationCache(model, n_frozen_blocks(model), position=position))
        filled_at_s = time.perf_counter()
        numbers = torch.arange(len(examples))[:, None]
        wrapped = CachedClassifier(model, cached, position)
        accuracies = train(wrapped, loaders(numbers, labels, parts), n_epochs, after_epoch, is_book=False)
    tested_s = time.perf_counter() - trained_at_s[-1]
    return Outcome(filled_at_s - started_at_s, trained_at_s[-1] - filled_at_s, tested_s, accuracies, early)


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[float, float]:
    """The largest differences between two sets of weights: all but the keys' bias, and the keys' bias.

    A key's bias adds the same to all scores of a softmax, so its gradient is rounding noise around zero, which
    Adam makes large: it moves at random and changes nothing.
    """
    differences = {name: (p - other[name]).abs().max().item() for name, p in one.items()}
    of_keys = max(d for name, d in differences.items() if name.endswith("W_key.bias"))
    return max(d for name, d in differences.items() if not name.endswith("W_key.bias")), of_keys


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the file SMSSpamCollection")
    parser.add_argument("--size", default="gpt2-small")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--book-epochs", type=int, help="fewer for the book's procedure, whose time is then multiplied"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the messages, to try it out")
    arguments = parser.parse_args()
    rows = read_labelled(arguments.data)
    split = book_split([row.label for row in rows])
    parts, chosen = [], []
    for part in (split.train, split.val, split.test):
        part = part[: round(arguments.share * len(part))]
        parts.append(list(range(len(chosen), len(chosen) + len(part))))
        chosen += [rows[i] for i in part]
    texts, names = [row.text for row in chosen], [row.label for row in chosen]
    labels = torch.tensor([CLASSES.index(name) for name in names])
    tokenizer = gpt2_tokenizer()
    padded = InputFormat(max_length=WIDTH, width=WIDTH, position="last").examples(
        texts, names, tokenizer, CLASSES
    )
    real = InputFormat(max_length=WIDTH).examples(texts, names, tokenizer, CLASSES)
    sizes = " / ".join(str(len(part)) for part in parts)
    print(f"{sizes} messages, {WIDTH} wide, {real.lengths.mean():.1f} real tokens on average", flush=True)

    n_book = arguments.book_epochs or arguments.epochs
    common = {"size": arguments.size, "compared_epoch": n_book}
    book = run(padded, labels, parts, n_epochs=n_book, position=None, **common)
    book_s = book.epochs_s * arguments.epochs / n_book + book.tested_s
    told = "" if n_book == arguments.epochs else f", {n_book} of {arguments.epochs} epochs measured"
    print(
        f"the book's procedure: {book_s:.0f} s{told}, of which {book.tested_s:.0f} s are the accuracies at the end; "
        f"{shown(book.accuracies)}",
        flush=True,
    )
    ways: tuple[tuple[str, ClassificationExamples, Position], ...] = (
        ("padded", padded, "last"),
        ("real lengths, last real token", real, "last-real"),
    )
    for name, examples, position in ways:
        ours = run(examples, labels, parts, n_epochs=arguments.epochs, position=position, **common)
        ours_s = ours.filled_s + ours.epochs_s + ours.tested_s
        print(
            f"activation cache, {name}: {ours_s:.1f} s, of which {ours.filled_s:.1f} s fill the cache; "
            f"{book_s / ours_s:.1f} times as fast; {shown(ours.accuracies)}",
            flush=True,
        )
        if position == "last":
            difference, of_keys = largest_difference(ours.early, book.early)
            print(
                f"  after {n_book} epochs its weights differ by {difference:.1e} at most "
                f"(keys' bias, without effect: {of_keys:.1e})",
                flush=True,
            )


def shown(accuracies: list[float]) -> str:
    """Training, validation and test accuracy."""
    return " / ".join(f"{accuracy:.2%}" for accuracy in accuracies)


if __name__ == "__main__":
    main()
