"""Train the spam classifier by any row of chapter 6's table of additional experiments (bonus_table.toml)."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from scratchlm.assets.known_weights import gpt2_size
from scratchlm.book.alpaca import END_OF_TEXT_ID as PAD_ID
from scratchlm.book.ledger.chapters_2_to_4 import SEED
from scratchlm.book.ledger.chapters_5_and_d import openai_model
from scratchlm.book.ledger.table import bonus_rows
from scratchlm.checkpoints.store import build_model
from scratchlm.core.config import from_dict
from scratchlm.finetuning.heads import class_logits
from scratchlm.finetuning.lora import replace_linear_with_lora
from scratchlm.model.config import named_config
from scratchlm.model.gpt import GPTModel

N_CLASSES = 2
BATCH_ROWS = 8
LEARNING_RATE, WEIGHT_DECAY = 5e-5, 0.1
N_EPOCHS = 5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How one row of the table trains; the defaults are row 1."""

    size: str = "124M"
    is_pretrained: bool = True
    train: Literal["head", "last-block", "last-two-blocks", "all", "lora"] = "last-block"
    position: Literal["last", "last-real", "first", "mean"] = "last"
    pad: Literal["longest", "model", "none"] = "longest"
    n_accumulated: int = 1  # batches per update; with pad="none" each is one message
    is_causal: bool = True
    lora_alpha: int = 16  # scaled by alpha alone, as in the table's runs; rank 16


@functools.cache
def settings() -> dict[int, Setting]:
    """The settings of each row, by its number."""
    others, found = ("number", "name", "accuracies"), {}
    for row in bonus_rows():
        values = {name: value for name, value in row.items() if name not in others}
        found[row["number"]] = from_dict(Setting, values, where="bonus_table.toml")
    return found


def accuracies(setting: Setting, datasets: Callable[[], tuple[Any, Any, Any]]) -> list[float]:
    """Training, validation and test accuracy in % after the table's five epochs."""
    model = prepared(setting, _model(setting))
    train, *others = datasets()
    train_classifier(model, train, setting)
    openai_model.cache_clear()  # the cached model has been trained
    return [round(100 * accuracy(model, part, setting), 2) for part in (train, *others)]


def prepared(setting: Setting, model: GPTModel) -> GPTModel:
    """Give the model a head of two classes, and make only the row's parameters trainable."""
    for parameter in model.parameters():
        parameter.requires_grad_(setting.train == "all")
    torch.manual_seed(SEED)
    model.out_head = nn.Linear(model.config.emb_dim, N_CLASSES)
    n_blocks = {"last-block": 1, "last-two-blocks": 2}.get(setting.train, 0)
    if n_blocks:
        for part in [*list(model.trf_blocks)[-n_blocks:], model.final_norm]:
            part.requires_grad_(True)
    if setting.train == "lora":
        for parameter in model.out_head.parameters():
            parameter.requires_grad_(False)
        replace_linear_with_lora(model, 16, setting.lora_alpha, scaling="alpha")
    return model


def train_classifier(model: GPTModel, dataset: Any, setting: Setting, *, n_epochs: int = N_EPOCHS) -> None:
    """Train with AdamW, with the random draws in the table's order."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    torch.manual_seed(SEED)
    model.train()
    for _ in range(n_epochs):
        for group in _groups(list_batches(dataset, setting, shuffle=True), setting.n_accumulated):
            optimizer.zero_grad()
            for inputs, labels in group:
                loss = nn.functional.cross_entropy(logits_of(model, inputs, setting), labels) / len(group)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


@torch.no_grad()
def accuracy(model: GPTModel, dataset: Any, setting: Setting) -> float:
    """Share of messages classified correctly."""
    model.eval()
    n_right = 0
    for inputs, labels in list_batches(dataset, setting, shuffle=False):
        n_right += int((logits_of(model, inputs, setting).argmax(dim=-1) == labels).sum())
    return n_right / len(dataset)


def list_batches(dataset: Any, setting: Setting, *, shuffle: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of eight padded rows, or single messages without padding."""
    n_rows = 1 if setting.pad == "none" else BATCH_ROWS
    for inputs, labels in DataLoader(dataset, batch_size=n_rows, shuffle=shuffle, drop_last=shuffle):
        n_real = int((inputs != PAD_ID).sum(dim=1).max())
        yield inputs[:, : max(1, n_real)] if setting.pad == "none" else inputs, labels


def logits_of(model: GPTModel, inputs: Tensor, setting: Setting) -> Tensor:
    """Logits of the two classes (B, 2), at the position that the row reads."""
    if setting.position == "last-real":
        states = model.hidden_states(inputs)  # padding is not masked, only the position differs
        last = (inputs != PAD_ID).sum(dim=1).clamp(min=1) - 1
        return torch.as_tensor(model.out_head(states[torch.arange(len(inputs)), last]))
    if setting.position == "last":
        return class_logits(model, inputs, None)
    scores = model(inputs)  # (B, T, 2)
    return torch.as_tensor(scores[:, 0] if setting.position == "first" else scores.mean(dim=1))


def _groups(batches: Iterator[Any], n: int) -> Iterator[list[Any]]:
    """The batches of each optimizer update."""
    while group := list(itertools.islice(batches, n)):
        yield group


def _model(setting: Setting) -> GPTModel:
    if setting.is_pretrained:
        model = openai_model(setting.size)
        if setting.is_causal:
            return model
        config = dataclasses.replace(model.config, is_causal=False)
        return build_model(config, model.state_dict(), where=Path(setting.size))
    torch.manual_seed(SEED)
    name = gpt2_size(setting.size).name
    return GPTModel(named_config(name, qkv_bias=True, drop_rate=0.0, is_causal=setting.is_causal))
