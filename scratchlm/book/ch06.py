"""Chapter 6, fine-tuning for classification: the table of SMS messages, and training of the spam classifier.

Loss and accuracy use the logits at the last position, even if it is padding, as in the book; the package's own
classifier (`scratchlm.finetuning.classification`) masks padding and reads the last real token.
"""

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from scratchlm.book.alpaca import END_OF_TEXT_ID, encode_plain
from scratchlm.book.downloads import download_and_unzip_spam_data
from scratchlm.book.loops import Loader, loader_functions, say
from scratchlm.book.plots import plot_values
from scratchlm.core.errors import ConfigError, DataError, optional_import
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.classification_rows import read_labelled
from scratchlm.model.loss import cross_entropy_sum

__all__ = [
    "SpamDataset",
    "calc_accuracy_loader",
    "calc_loss_batch",
    "calc_loss_loader",
    "classify_review",
    "create_balanced_dataset",
    "download_and_unzip_spam_data",
    "evaluate_model",
    "plot_values",
    "random_split",
    "train_classifier_simple",
]

SHUFFLE_SEED = 123  # of both random samples from the table


def import_pandas() -> Any:
    """The pandas module.

    Raises: MissingDependencyError when it is not installed.
    """
    with optional_import("chapter 6's tables need pandas", extra="book"):
        import pandas as pd
    return pd


def create_balanced_dataset(df: Any) -> Any:
    """All spam rows of a table after as many ham rows, which pandas samples with seed 123.

    Raises: MissingDependencyError without pandas; DataError without a column Label, or with less ham than spam.
    """
    pd = import_pandas()
    if "Label" not in df:
        raise DataError(
            f"the table must have a column Label, got {', '.join(map(str, df.columns)) or 'none'}; name its columns."
        )
    spam, ham = df[df["Label"] == "spam"], df[df["Label"] == "ham"]
    if len(ham) < len(spam):
        raise DataError(
            f"balancing needs at least as many ham rows as spam rows, got {len(ham)} ham and {len(spam)} spam; "
            "check the column Label."
        )
    return pd.concat([ham.sample(len(spam), random_state=SHUFFLE_SEED), spam])


def random_split(df: Any, train_frac: float, validation_frac: float) -> tuple[Any, Any, Any]:
    """Shuffle a table with seed 123 and split it into training, validation and test rows.

    Copies of one message may end up on both sides; `data.label_split.split_by_group` keeps them together.

    Raises: ConfigError for fractions below 0 or a sum above 1.
    """
    if min(train_frac, validation_frac) < 0 or train_frac + validation_frac > 1 + 1e-9:
        raise ConfigError(
            f"the fractions must be at least 0 and together at most 1, got {train_frac} and {validation_frac}; "
            "0.7 and 0.1 are the book's."
        )
    shuffled = df.sample(frac=1, random_state=SHUFFLE_SEED).reset_index(drop=True)
    train_end = int(len(shuffled) * train_frac)
    val_end = train_end + int(len(shuffled) * validation_frac)
    return shuffled[:train_end], shuffled[train_end:val_end], shuffled[val_end:]


class SpamDataset(Dataset[tuple[Tensor, Tensor]]):
    """Messages of a .csv file with the columns Text and Label (0 or 1), padded to one length.

    `max_length` None is the length of the longest message; longer messages than max_length are truncated. Only the
    attribute `data`, the messages as a table, needs pandas.

    Shapes: an item is ids (max_length,) and a scalar label.
    Raises: DataError for an invalid file; ConfigError for a max_length below 1.
    """

    def __init__(
        self,
        csv_file: str | Path,
        tokenizer: Tokenizer,
        max_length: int | None = None,
        pad_token_id: int = END_OF_TEXT_ID,
    ) -> None:
        _check_length(max_length)
        rows = read_labelled(csv_file)
        self._texts = [row.text for row in rows]
        self._labels = [_class_number(row.label, Path(csv_file)) for row in rows]
        encoded = [encode_plain(tokenizer, row.text) for row in rows]
        self.max_length = max(map(len, encoded)) if max_length is None else max_length
        n = self.max_length
        self.encoded_texts = [ids[:n] + [pad_token_id] * (n - len(ids)) for ids in encoded]

    @property
    def data(self) -> Any:
        """The messages as a pandas table with the columns Label and Text.

        Raises: MissingDependencyError without pandas.
        """
        return import_pandas().DataFrame({"Label": self._labels, "Text": self._texts})

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return (
            torch.tensor(self.encoded_texts[index], dtype=torch.long),
            torch.tensor(self._labels[index], dtype=torch.long),
        )


def calc_loss_batch(
    input_batch: Tensor, target_batch: Tensor, model: nn.Module, device: torch.device | str
) -> Tensor:
    """The batch's mean loss at its last position, with its gradient.

    Shapes: input_batch (B, T), target_batch (B,) -> a scalar.
    Units: nats per message.
    """
    logits = model(input_batch.to(device))[:, -1, :]  # (B, C)
    loss_sum, n_targets = cross_entropy_sum(logits, target_batch.to(device))
    return loss_sum / n_targets


calc_loss_loader, evaluate_model = loader_functions(calc_loss_batch)


def calc_accuracy_loader(
    data_loader: Loader, model: nn.Module, device: torch.device | str, num_batches: int | None = None
) -> float:
    """The share of messages classified correctly; the model is in evaluation mode afterwards.

    Nan for an empty loader, where the book's function divides by zero.
    """
    n_batches = len(data_loader) if num_batches is None else min(num_batches, len(data_loader))
    n_correct, n_seen = 0, 0
    model.eval()
    with torch.no_grad():
        for inputs, targets in itertools.islice(data_loader, max(n_batches, 0)):
            predicted = model(inputs.to(device))[:, -1, :].argmax(dim=-1)  # (B,)
            n_correct += int((predicted == targets.to(device)).sum())
            n_seen += len(targets)
    return n_correct / n_seen if n_seen else float("nan")


def train_classifier_simple(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
) -> tuple[list[float], list[float], list[float], list[float], int]:
    """Train, print the losses every `eval_freq` steps and the accuracies after each epoch.

    Step 0 is printed after the first update. Losses and accuracies are over `eval_iter` batches. Returns training and
    validation losses, training and validation accuracies, and the number of messages seen. As in chapter 5 the book's
    order of random draws is why this is not a Trainer.
    """
    train_losses: list[float] = []
    val_losses: list[float] = []
    train_accs: list[float] = []
    val_accs: list[float] = []
    n_examples, step = 0, -1
    for epoch in range(1, num_epochs + 1):
        model.train()
        for inputs, targets in train_loader:
            step += 1
            optimizer.zero_grad()
            calc_loss_batch(inputs, targets, model, device).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            n_examples += len(inputs)
            if step % eval_freq == 0:
                train_loss, val_loss = evaluate_model(model, train_loader, val_loader, device, eval_iter)
                train_losses.append(train_loss)
                val_losses.append(val_loss)
                say(f"Ep {epoch} (Step {step:06d}): Train loss {train_loss:.3f}, Val loss {val_loss:.3f}")
        train_accs.append(calc_accuracy_loader(train_loader, model, device, num_batches=eval_iter))
        val_accs.append(calc_accuracy_loader(val_loader, model, device, num_batches=eval_iter))
        say(
            f"Training accuracy: {train_accs[-1] * 100:.2f}% | Validation accuracy: {val_accs[-1] * 100:.2f}%"
        )
    return train_losses, val_losses, train_accs, val_accs, n_examples


def classify_review(
    text: str,
    model: nn.Module,
    tokenizer: Tokenizer,
    device: torch.device | str,
    max_length: int | None = None,
    pad_token_id: int = END_OF_TEXT_ID,
) -> str:
    """Classify a text as `spam` or `not spam`; the model is in evaluation mode afterwards.

    `max_length` None adds no padding. Text beyond the model's context is truncated, and a larger `max_length` pads only
    up to the context. The book's function fails in these cases.

    Raises: DataError for a text without tokens and without padding; ConfigError for a max_length below 1.
    """
    _check_length(max_length)
    config = getattr(model, "config", None)  # a reader's own GPTModel has none
    n_context = config.context_length if config else int(model.get_parameter("pos_emb.weight").shape[0])
    length = n_context if max_length is None else min(max_length, n_context)
    ids = encode_plain(tokenizer, text)[:length]
    if max_length is not None:
        ids = ids + [pad_token_id] * (length - len(ids))
    if not ids:
        raise DataError(f"the text to classify has no tokens: {text!r}; give some text.")
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=device))[:, -1, :]  # (1, C)
    return "spam" if logits.argmax(dim=-1).item() == 1 else "not spam"


def _check_length(max_length: int | None) -> None:
    if max_length is not None and max_length < 1:
        raise ConfigError(f"max_length must be at least 1, got {max_length}; None sets no length.")


def _class_number(label: str, path: Path) -> int:
    if label not in ("0", "1"):
        raise DataError(
            f"{path} must have the labels 0 and 1, got {label!r}; map the column first, "
            'e.g. `df["Label"].map({"ham": 0, "spam": 1})`.'
        )
    return int(label)
