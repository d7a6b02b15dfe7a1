"""Attention maps: the attention weights of one forward pass, for every layer and head, and what each head does."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scratchlm.inspection.hooks import layer_names, recorded
from scratchlm.model.gpt import GPTModel
from scratchlm.model.modes import evaluation_mode

PATTERN = "attn.hook_pattern"  # of every layer: its attention weights


def attention_maps(model: GPTModel, ids: Tensor, *, attention_mask: Tensor | None = None) -> Tensor:
    """Compute attention weights: `maps[layer, row, head, i, j]` is the weight of token j for token i.

    Shapes: ids (B, T), attention_mask (B, T) -> (L, B, H, T, T) for L layers; the last dimension sums to 1.
    Raises: DataError as the model does.
    """
    names = layer_names(model, PATTERN)
    with evaluation_mode(model), recorded(model, names) as values:
        model.hidden_states(ids, attention_mask=attention_mask)
    return torch.stack([values[name] for name in names])


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSummary:
    """Where one head attends to on average: mean attention weights over all tokens but the first.

    Source: Olsson et al. 2022, "In-context Learning and Induction Heads", for the last one.
    """

    previous: float  # to the token before
    first: float  # to the first token; many heads attend to it when nothing else is relevant
    itself: float  # to the token itself
    induction: float | None  # from a repeated token to the token that followed its earlier occurrences


def summarize_heads(maps: Tensor, ids: Sequence[int]) -> list[list[HeadSummary]]:
    """Summarize the attention of every head; one text of a single token gives zeros.

    Shapes: maps (L, H, T, T), T ids -> L lists of H summaries.
    """
    if len(ids) < 2:
        nothing = HeadSummary(previous=0.0, first=0.0, itself=0.0, induction=None)
        return [[nothing] * maps.shape[1] for _ in maps]
    previous = maps.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=-1)  # (L, H)
    first = maps[..., 1:, 0].mean(dim=-1)  # (L, H)
    itself = maps.diagonal(dim1=-2, dim2=-1)[..., 1:].mean(dim=-1)  # (L, H)
    numbers = torch.tensor(ids, device=maps.device)
    is_earlier = (numbers[:, None] == numbers).tril(-2)  # (T, T), True at earlier occurrences
    follows = F.pad(is_earlier[:, :-1], (1, 0))  # (T, T), True at the tokens after them
    is_repeated = follows.any(dim=-1)  # (T,)
    induction = (maps * follows).sum(dim=-1)[..., is_repeated].mean(dim=-1)  # (L, H), NaN without repetition
    has_repeats = bool(is_repeated.any())
    columns = (scores.tolist() for scores in (previous, first, itself, induction))
    return [
        [
            HeadSummary(previous=p, first=f, itself=i, induction=n if has_repeats else None)
            for p, f, i, n in zip(*layer)
        ]
        for layer in zip(*columns)
    ]
