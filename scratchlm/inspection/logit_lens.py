"""Logit lens: what the model would predict if it stopped after an earlier block."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scratchlm.inspection.hooks import layer_names
from scratchlm.inspection.traces import TokenProbability, score_tokens
from scratchlm.model.gpt import GPTModel


def residual_names(model: GPTModel) -> list[str]:
    """The hook points of the residual stream: after the embedding, then after each block."""
    return ["blocks.0.hook_resid_pre", *layer_names(model, "hook_resid_post")]


def logit_lens(
    model: GPTModel,
    residuals: Sequence[Tensor],
    targets: Tensor,
    *,
    n_alternatives: int = 3,
    pool: Callable[[Tensor], Tensor] | None = None,
) -> list[list[TokenProbability]]:
    """Apply the final normalisation and the output head to the residual stream of each layer.

    The last entry is what the model predicts. `pool` selects or averages the states that a classifier's head reads.

    Shapes: residuals, each (T, E), pooled to (N, E), and targets (N,), the id or class to look for at each of them
        -> one list of N entries for each layer.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    found = []
    with torch.no_grad():
        for residual in residuals:
            states = model.final_norm(residual)  # (T, E)
            logits = model.out_head(states if pool is None else pool(states))  # (N, V)
            found.append(score_tokens(logits, targets, n_alternatives=n_alternatives))
    return found
