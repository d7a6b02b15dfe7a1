"""A classifier out of a language model: a small output head, read at one token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError
from scratchlm.model.gpt import GPTModel


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


def class_logits(model: GPTModel, inputs: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The scores of each class, read where the model has seen the whole text: at the last real token.

    Shapes: inputs (B, T), attention_mask (B, T) -> (B, C).
    """
    states = model.hidden_states(inputs, attention_mask=attention_mask)  # (B, T, E)
    rows = torch.arange(len(inputs), device=inputs.device)
    if attention_mask is None:
        last = torch.full_like(rows, inputs.shape[1] - 1)
    else:
        positions = torch.arange(inputs.shape[1], device=inputs.device)  # (T,)
        last = (positions * attention_mask).argmax(dim=1)  # (B,), also right when padding stands on the left
    logits: Tensor = model.out_head(states[rows, last])  # (B, C)
    return logits
