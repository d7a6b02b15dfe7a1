"""A classifier out of a language model: a small output head, read at one token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError
from scratchlm.model.attention import take_positions
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import at_least_float32

Position = Literal["last", "last-real", "first", "mean"]


def replace_head(model: GPTModel, n_classes: int) -> None:
    """Give the model an output head with one score per class instead of one per token, in place.

    Shapes: out_head (E -> V) becomes (E -> C).
    Raises: ConfigError for fewer than two classes.
    Source: Radford et al. 2018 (GPT), section 3.2; the book's chapter 6.
    """
    if n_classes < 2:
        raise ConfigError(f"a classifier needs at least 2 classes, got {n_classes}; check the labels.")
    weight = model.tok_emb.weight
    model.out_head = nn.Linear(model.config.emb_dim, n_classes, device=weight.device, dtype=weight.dtype)
    if model.config.init == "gpt2":
        nn.init.normal_(model.out_head.weight, std=0.02)  # GPT-2 initialisation, as the rest of the model
        nn.init.zeros_(model.out_head.bias)


def class_logits(
    model: GPTModel, inputs: Tensor, attention_mask: Tensor | None = None, *, position: Position = "last-real"
) -> Tensor:
    """The scores of each class, read at one position of each text: usually where the model has seen all of it.

    `last-real` is the last token that is not padding, `last` the last column even where that is padding, `first` the
    first token, `mean` the average over all that is not hidden by the mask.

    Shapes: inputs (B, T), attention_mask (B, T) -> (B, C).
    """
    trunk = model.trunk_states(inputs, 0, attention_mask=attention_mask)  # (B, T, E)
    return logits_above(model, trunk, 0, attention_mask=attention_mask, position=position)


def logits_above(
    model: GPTModel,
    trunk: Tensor,
    n_blocks: int,
    *,
    attention_mask: Tensor | None = None,
    position: Position = "last-real",
    is_plain: bool = False,
) -> Tensor:
    """The same from what the first n_blocks made; is_plain computes every position of the last block.

    Shapes: trunk (B, T, E), attention_mask (B, T) -> (B, C).
    """
    if position == "mean":
        states = model.states_above(trunk, n_blocks, attention_mask=attention_mask)  # (B, T, E)
        pooled = _mean(states, attention_mask)
    else:
        read_at = read_positions(trunk, attention_mask, position)
        if is_plain:
            states = model.states_above(trunk, n_blocks, attention_mask=attention_mask)
            pooled = take_positions(states, read_at).squeeze(1)
        else:
            states = model.states_above(trunk, n_blocks, attention_mask=attention_mask, read_at=read_at)
            pooled = states.squeeze(1)
    logits: Tensor = model.out_head(pooled)  # (B, C)
    return logits


def read_positions(rows: Tensor, attention_mask: Tensor | None, position: Position) -> Tensor:
    """Where each row is read.

    Shapes: rows (B, T, ...), attention_mask (B, T) -> (B,).
    """
    last_column = torch.full((len(rows),), rows.shape[1] - 1, device=rows.device)
    if position == "last" or (attention_mask is None and position != "first"):
        return last_column
    if attention_mask is None:
        return torch.zeros_like(last_column)
    if position == "first":
        return attention_mask.int().argmax(dim=1)
    columns = torch.arange(rows.shape[1], device=rows.device)  # (T,)
    return (columns * attention_mask).argmax(dim=1)  # also right when padding stands on the left


def _mean(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return states.mean(dim=1)
    n_seen = attention_mask.sum(dim=1, keepdim=True)  # (B, 1); bfloat16 could not count beyond 256
    total = (at_least_float32(states) * attention_mask[:, :, None]).sum(dim=1)  # (B, E)
    return (total / n_seen).to(states.dtype)
