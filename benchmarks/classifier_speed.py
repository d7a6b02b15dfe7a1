"""Fine-tune GPT-2's small model on the SMS collection as the book does, and with the frozen trunk run once.

One process, one set of random 124M weights, the same batches and the same loop (`train_classifier_simple`) for all:

1. the book: 120-wide padded rows, every block at every step, attention and layers written out;
2. the same maths with the trunk cached and the last block read at one position: the weights must agree;
3. rows as long as they are, read at the last real token (row 16 of the book's table).

Example: python -m benchmarks.classifier_speed --data SMSSpamCollection --epochs 5
"""

from __future__ import annotations

import argparse
import io
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from scratchlm import gpt2_tokenizer
from scratchlm.book import ch06
from scratchlm.data.classification import ClassificationExamples, read_labelled
from scratchlm.data.sms_spam import book_split
from scratchlm.finetuning.classification_task import ClassificationTask
from scratchlm.finetuning.freeze import freeze_all_but
from scratchlm.finetuning.heads import Position, replace_head
from scratchlm.finetuning.reading import TextReading
from scratchlm.finetuning.trunk_cache import TrunkCache, TrunkExamples, n_frozen_blocks
from scratchlm.model.config import named_config
from scratchlm.model.gpt import GPTModel

SEED, BATCH_ROWS, LEARNING_RATE, WEIGHT_DECAY = 123, 8, 5e-5, 0.1  # the book's
EVAL_FREQ, EVAL_ITER = 50, 5
CLASSES = ("ham", "spam")


class CachedClassifier(nn.Module):
    """A classifier that is given numbers of texts instead of their ids, for the book's own loop.

    Shapes: numbers (B, 1) -> (B, 1, C).
    """

    def __init__(self, model: GPTModel, examples: TrunkExamples, position: Position) -> None:
        super().__init__()
        self.model, self.examples, self.task = model, examples, ClassificationTask(position=position)

    def forward(self, numbers: Tensor) -> Tensor:
        """Scores of the texts with these numbers."""
        return self.task.logits(self.model, self.examples.batch(numbers[:, 0].numpy()))[:, None]


def classifier(size: str, **changes: object) -> GPTModel:
    """Random weights, the same for every call, with a head of two classes and the last block free to learn."""
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


def train(model: nn.Module, three: list[DataLoader[tuple[Tensor, ...]]], n_epochs: int) -> list[float]:
    """The book's loop, and the accuracies on all of the three parts afterwards."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    torch.manual_seed(SEED)
    with redirect_stdout(io.StringIO()):
        ch06.train_classifier_simple(
            model, three[0], three[1], optimizer, "cpu", n_epochs, eval_freq=EVAL_FREQ, eval_iter=EVAL_ITER
        )
    return [ch06.calc_accuracy_loader(loader, model, "cpu") for loader in three]


def run_book(
    examples: ClassificationExamples, labels: Tensor, parts: list[list[int]], size: str, n_epochs: int
):
    """The book's procedure; seconds, accuracies, and the trained weights."""
    model = classifier(size, attention="manual", kernels="manual")
    inputs = torch.stack([torch.from_numpy(examples.row(i)) for i in range(len(examples))])  # (N, 120)
    started_at_s = time.perf_counter()
    accuracies = train(model, loaders(inputs, labels, parts), n_epochs)
    return time.perf_counter() - started_at_s, accuracies, model


def run_cached(
    examples: ClassificationExamples,
    labels: Tensor,
    parts: list[list[int]],
    size: str,
    n_epochs: int,
    position: Position,
):
    """The same loop above a cached trunk; seconds of the cache and in all, accuracies, and the trained weights."""
    model = classifier(size)
    numbers = torch.arange(len(examples))[:, None]
    started_at_s = time.perf_counter()
    cache = TrunkCache(model, n_frozen_blocks(model), position=position)
    cached = TrunkExamples(examples, cache)
    filled_s = time.perf_counter() - started_at_s
    accuracies = train(CachedClassifier(model, cached, position), loaders(numbers, labels, parts), n_epochs)
    return filled_s, time.perf_counter() - started_at_s, accuracies, model


def largest_difference(one: GPTModel, other: GPTModel) -> tuple[float, float]:
    """Between two models' learning weights: all but the keys' bias, and the keys' bias.

    A key's bias adds the same to all scores of a softmax, so its gradient is rounding noise around zero, which
    Adam makes large: it moves at random and changes nothing.
    """
    theirs = dict(other.named_parameters())
    differences = {
        name: (p - theirs[name]).abs().max().item() for name, p in one.named_parameters() if p.requires_grad
    }
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
    parser.add_argument("--rows", type=int, help="only so many messages, to try it out")
    arguments = parser.parse_args()
    rows = read_labelled(arguments.data)
    split = book_split([row.label for row in rows])
    parts, chosen = [], []
    for part in (split.train, split.val, split.test):
        part = part[: arguments.rows] if arguments.rows else part
        parts.append(list(range(len(chosen), len(chosen) + len(part))))
        chosen += [rows[i] for i in part]
    texts, names = [row.text for row in chosen], [row.label for row in chosen]
    labels = torch.tensor([CLASSES.index(name) for name in names])
    tokenizer = gpt2_tokenizer()
    width = max(len(tokenizer.encode(texts[i])) for i in parts[0])
    padded = TextReading(max_length=width, width=width, position="last").examples(
        texts, names, tokenizer, CLASSES
    )
    real = TextReading(max_length=width).examples(texts, names, tokenizer, CLASSES)
    sizes = " / ".join(str(len(part)) for part in parts)
    print(f"{sizes} messages, {width} wide, {real.lengths.mean():.1f} real tokens on average")

    n_book = arguments.book_epochs or arguments.epochs
    measured_s, accuracies, book = run_book(padded, labels, parts, arguments.size, n_book)
    book_s = measured_s * arguments.epochs / n_book
    told = (
        ""
        if n_book == arguments.epochs
        else f" ({measured_s:.0f} s for {n_book} of {arguments.epochs} epochs)"
    )
    print(f"the book's procedure: {book_s:.0f} s{told}, accuracies {shown(accuracies)}", flush=True)
    _, _, _, ours = run_cached(padded, labels, parts, arguments.size, n_book, "last")
    difference, of_keys = largest_difference(ours, book)
    print(
        f"after {n_book} epochs weights differ by {difference:.1e} at most (keys' bias, without effect: {of_keys:.1e})"
    )
    for name, examples, position in (("padded", padded, "last"), ("real lengths", real, "last-real")):
        filled_s, all_s, accuracies, _ = run_cached(
            examples, labels, parts, arguments.size, arguments.epochs, position
        )
        print(
            f"cached trunk, {name}: {all_s:.0f} s, of which {filled_s:.0f} s fill the cache; "
            f"{book_s / all_s:.1f} times as fast; accuracies {shown(accuracies)}",
            flush=True,
        )


def shown(accuracies: list[float]) -> str:
    """Training, validation and test accuracy."""
    return " / ".join(f"{accuracy:.2%}" for accuracy in accuracies)


if __name__ == "__main__":
    main()
