"""Recompute the figures of chapters 6 and 7 and appendix E: spam classifier, instruction batches, LoRA."""

import contextlib
import csv
import functools
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from scratchlm.assets.registry import asset_path
from scratchlm.book import appendix_e, ch05, ch06, ch07
from scratchlm.book.ledger.bonus_table import Setting, accuracies, prepared, settings
from scratchlm.book.ledger.chapters_2_to_4 import SEED, gpt2_bpe
from scratchlm.book.ledger.chapters_5_and_d import CPU, openai_model
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel

BATCH = 8


@functools.cache
def messages() -> Any:
    """The SMS collection as the chapter's table, with the columns Label and Text.

    Raises: MissingDependencyError without pandas.
    """
    # With quoting on, as in the book: two rows absorb their neighbours, so that 5,572 of 5,574 remain.
    path = asset_path("sms_spam_collection/SMSSpamCollection")
    return ch06.import_pandas().read_csv(path, sep="\t", header=None, names=["Label", "Text"])


def spam_datasets(length: int | None = None) -> tuple[Any, Any, Any]:
    """The chapter's training, validation and test sets, padded to a length or to the longest message."""
    table = ch06.create_balanced_dataset(messages())
    table["Label"] = table["Label"].map({"ham": 0, "spam": 1})
    parts = ch06.random_split(table, 0.7, 0.1)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.csv" for name in ("train", "validation", "test")]
        for path, part in zip(paths, parts):
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["Label", "Text"])
                writer.writerows(zip(part["Label"], part["Text"]))
        train = ch06.SpamDataset(paths[0], gpt2_bpe(), max_length=length)
        rest = [ch06.SpamDataset(path, gpt2_bpe(), max_length=train.max_length) for path in paths[1:]]
    return train, rest[0], rest[1]


def spam_loaders() -> list[Any]:
    """Loaders of the three sets, in batches of eight."""
    train, val, test = spam_datasets()
    torch.manual_seed(SEED)
    return [
        DataLoader(train, batch_size=BATCH, shuffle=True, drop_last=True),
        DataLoader(val, batch_size=BATCH),
        DataLoader(test, batch_size=BATCH),
    ]


def spam_accuracies() -> list[float]:
    """Accuracies in % after five epochs of fine-tuning OpenAI's small model."""
    train, val, test = spam_loaders()
    model = prepared(Setting(), openai_model("124M"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    torch.manual_seed(SEED)
    with contextlib.redirect_stdout(io.StringIO()):
        ch06.train_classifier_simple(
            model, train, val, optimizer, CPU, num_epochs=5, eval_freq=50, eval_iter=5
        )
    openai_model.cache_clear()  # the cached model has been trained
    return [round(100 * ch06.calc_accuracy_loader(loader, model, CPU), 2) for loader in (train, val, test)]


@functools.cache
def instruction_parts() -> tuple[list[Any], list[Any], list[Any]]:
    """The chapter's entries: training, test, validation."""
    data = json.loads(asset_path("instruction/instruction-data.json").read_text(encoding="utf-8"))
    n_train, n_test = int(len(data) * 0.85), int(len(data) * 0.1)
    return data[:n_train], data[n_train : n_train + n_test], data[n_train + n_test :]


def instruction_loaders() -> tuple[Any, Any]:
    """The chapter's training and validation loaders."""
    train, _, val = instruction_parts()
    collate = functools.partial(ch07.custom_collate_fn, device="cpu", allowed_max_length=1024)
    torch.manual_seed(SEED)
    return (
        DataLoader(
            ch07.InstructionDataset(train, gpt2_bpe()),
            batch_size=BATCH, collate_fn=collate, shuffle=True, drop_last=True,
        ),
        DataLoader(ch07.InstructionDataset(val, gpt2_bpe()), batch_size=BATCH, collate_fn=collate),
    )  # fmt: skip


def first_instruction_batches() -> list[list[int]]:
    """Shapes of the first three batches."""
    train, _ = instruction_loaders()
    batches = iter(train)
    return [list(next(batches)[0].shape) for _ in range(3)]


def instruction_losses() -> list[float]:
    """Losses of OpenAI's medium model on five batches of instructions, before fine-tuning."""
    loaders = instruction_loaders()
    torch.manual_seed(SEED)
    model = openai_model("355M")
    with torch.no_grad():
        return [round(float(ch05.calc_loss_loader(one, model, CPU, num_batches=5)), 4) for one in loaders]


def lora_parameters() -> list[int]:
    """Number of the classifier's trainable parameters: all, and with LoRA."""
    with torch.device("meta"):
        model = GPTModel(GPTConfig(qkv_bias=True, tie_embeddings=False))
        model.out_head = nn.Linear(model.config.emb_dim, 2)
        everything = sum(p.numel() for p in model.parameters())
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        appendix_e.replace_linear_with_lora(model, rank=16, alpha=16)
    return [everything, sum(p.numel() for p in model.parameters() if p.requires_grad)]


def bonus_row(number: int) -> list[float]:
    """Training, validation and test accuracy in % of a row of the table of additional experiments."""
    setting = settings()[number]
    return accuracies(setting, lambda: spam_datasets(1024 if setting.pad == "model" else None))


FIGURES: dict[str, Callable[[], Any]] = {
    **{f"ch06.bonus-{number:02d}": functools.partial(bonus_row, number) for number in range(1, 20)},
    "ch06.balanced-rows": lambda: len(ch06.create_balanced_dataset(messages())),
    "ch06.batches": lambda: [len(loader) for loader in spam_loaders()],
    "ch06.max-length": lambda: spam_datasets()[0].max_length,
    "ch06.gpt2-accuracy": spam_accuracies,
    "ch07.parts": lambda: [len(part) for part in instruction_parts()],
    "ch07.first-batches": first_instruction_batches,
    "ch07.gpt2-losses-before": instruction_losses,
    "appendix-e.parameters": lora_parameters,
}
