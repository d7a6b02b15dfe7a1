"""Token probabilities: the probability of every token of a text under the model, and its alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model.gpt import GPTModel
from scratchlm.model.modes import evaluation_mode


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenProbability:
    """One token of a text with the model's prediction for it."""

    position: int  # index in the ids
    id: int
    prob: float  # probability given all tokens before it
    rank: int  # 0 when it was the most likely token
    alternatives: tuple[tuple[int, float], ...]  # the most likely ids and their probabilities, best first


def token_probabilities(
    model: GPTModel, ids: Sequence[int], *, n_prompt: int = 1, n_alternatives: int = 5
) -> list[TokenProbability]:
    """Compute the probability of each token after the first n_prompt, given the actual tokens before it.

    For a generated text, pass prompt and new ids together, and the prompt's length as n_prompt.

    Shapes: T ids -> T - n_prompt entries. The first token has none, because no token comes before it.
    Raises: DataError when there are more ids than the model reads at once, or none beyond the prompt;
        ConfigError when n_prompt or n_alternatives is below 1.
    """
    if n_prompt < 1 or n_alternatives < 1:
        raise ConfigError(
            f"n_prompt and n_alternatives must be at least 1, got {n_prompt} and {n_alternatives}; "
            "change them."
        )
    if len(ids) <= n_prompt:
        raise DataError(f"there must be ids beyond the first {n_prompt}, got {len(ids)} in total; add some.")
    tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)  # (1, T)
    with evaluation_mode(model):
        states = model.hidden_states(tokens[:, :-1])[0, n_prompt - 1 :]  # (T - n_prompt, E)
        probs = model.out_head(states).float().softmax(dim=-1)  # (T - n_prompt, V)
    targets = tokens[0, n_prompt:, None]  # (T - n_prompt, 1)
    of_target = probs.gather(1, targets)  # (T - n_prompt, 1)
    ranks = (probs > of_target).sum(dim=-1)  # (T - n_prompt,)
    best = probs.topk(min(n_alternatives, probs.shape[1]), dim=-1)
    return [
        TokenProbability(
            position=n_prompt + i,
            id=int(targets[i]),
            prob=of_target[i].item(),
            rank=int(ranks[i]),
            alternatives=tuple(zip(best.indices[i].tolist(), best.values[i].tolist(), strict=True)),
        )
        for i in range(len(targets))
    ]
