"""Turn a language model into a classifier: a small output head, applied at one token."""

from typing import Literal

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.one_query_attention import gather_positions, run_blocks_at
from scratchlm.model.attention_context import attention_context
from scratchlm.model.gpt import GPTModel
from scratchlm.model.linear import build_linear
from scratchlm.model.loss import at_least_float32

Position = Literal["last", "last-real", "first", "mean"]


def replace_head(model: GPTModel, n_classes: int) -> None:
    """Give the model an output head with one score per class instead of one per token, in place.

    The head has a bias, as in the book, where the final norm is a LayerNorm. Beside an RMSNorm it has none, as in
    transformers, so that the classifier and its adapter can be exported.

    Shapes: out_head (E -> V) becomes (E -> C).
    Raises: ConfigError for fewer than two classes.
    Source: Radford et al. 2018 (GPT), section 3.2; the book's chapter 6.
    """
    if n_classes < 2:
        raise ConfigError(f"a classifier needs at least 2 classes, got {n_classes}; check the labels.")
    like = next(model.parameters())  # the embedding may be quantized
    has_bias = model.config.norm == "layer"
    model.out_head = build_linear(
        model.config.emb_dim, n_classes, bias=has_bias, device=like.device, dtype=like.dtype
    )
    if model.config.init == "gpt2":
        nn.init.normal_(model.out_head.weight, std=0.02)  # GPT-2 initialisation, as the rest of the model
        if has_bias:
            nn.init.zeros_(model.out_head.bias)


def class_logits(
    model: GPTModel, inputs: Tensor, attention_mask: Tensor | None = None, *, position: Position = "last-real"
) -> Tensor:
    """Score each class at one position of each text, usually one that attends to the whole text.

    `last-real` is the last token that is not padding, `last` the last column even where that is padding, `first` the
    first token, `mean` the average over all tokens that are not padding.

    Shapes: inputs (B, T), attention_mask (B, T) -> (B, C).
    """
    states = states_below(model, inputs, 0, attention_mask=attention_mask)  # (B, T, E)
    return logits_above(model, states, 0, attention_mask=attention_mask, position=position)


def states_below(
    model: GPTModel, inputs: Tensor, n_blocks: int, *, attention_mask: Tensor | None = None
) -> Tensor:
    """Run the first n_blocks; while they are frozen, their output for a text does not change.

    Shapes: inputs (B, T), attention_mask (B, T) -> (B, T, E).
    """
    x, context = model.embed(inputs, attention_mask=attention_mask)
    return model.run_blocks(x, context, last=n_blocks)


def logits_above(
    model: GPTModel,
    states: Tensor,
    n_blocks: int,
    *,
    attention_mask: Tensor | None = None,
    position: Position = "last-real",
    is_plain: bool = False,
) -> Tensor:
    """Score each class from the output of the first n_blocks.

    The last block computes only the position that the head reads, or with is_plain every position, with equal results.

    Shapes: states (B, T, E), attention_mask (B, T) -> (B, C).
    """
    context = attention_context(states, model.config, attention_mask=attention_mask)
    if position == "mean":
        x = model.final_norm(model.run_blocks(states, context, first=n_blocks))  # (B, T, E)
        pooled = _mean(x, attention_mask)  # (B, E)
    elif is_plain:
        x = model.final_norm(model.run_blocks(states, context, first=n_blocks))  # (B, T, E)
        pooled = gather_positions(x, read_positions(states, attention_mask, position)).squeeze(1)  # (B, E)
    else:
        query_positions = read_positions(states, attention_mask, position)  # (B,)
        x = run_blocks_at(model, states, query_positions, context, first=n_blocks)  # (B, 1, E)
        pooled = model.final_norm(x).squeeze(1)  # (B, E)
    logits: Tensor = model.out_head(pooled)  # (B, C)
    return logits


def read_positions(rows: Tensor, attention_mask: Tensor | None, position: Position) -> Tensor:
    """The position of each row that the head reads.

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
    return (columns * attention_mask).argmax(dim=1)  # also correct for padding on the left


def _mean(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return states.mean(dim=1)
    n_seen = attention_mask.sum(dim=1, keepdim=True)  # (B, 1); bfloat16 is exact only up to 256
    total = (at_least_float32(states) * attention_mask[:, :, None]).sum(dim=1)  # (B, E)
    return (total / n_seen).to(states.dtype)
