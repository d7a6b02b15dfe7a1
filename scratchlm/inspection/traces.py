"""Token probabilities: the probability of every token of a text under the model, and its alternatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import DataError
from scratchlm.model.gpt import GPTModel
from scratchlm.model.modes import evaluation_mode


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenProbability:
    """One token of a text with the model's prediction for it."""

    id: int
    prob: float  # probability given all tokens before it
    loss: float  # its negative logarithm, in nats; finite also where the probability rounds to 0
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
    check_at_least(1, n_prompt=n_prompt, n_alternatives=n_alternatives)
    if len(ids) <= n_prompt:
        raise DataError(f"there must be ids beyond the first {n_prompt}, got {len(ids)} in total; add some.")
    tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)  # (1, T)
    with evaluation_mode(model):
        states = model.hidden_states(tokens[:, :-1])[0, n_prompt - 1 :]  # (T - n_prompt, E)
        logits = model.out_head(states)  # (T - n_prompt, V)
    return score_tokens(logits, tokens[0, n_prompt:], n_alternatives=n_alternatives)


def score_tokens(logits: Tensor, targets: Tensor, *, n_alternatives: int) -> list[TokenProbability]:
    """Probability, loss, rank and alternatives of each target.

    Shapes: logits (N, V), targets (N,) -> N entries.
    """
    log_probs = logits.float().log_softmax(dim=-1)  # (N, V)
    of_target = log_probs.gather(1, targets[:, None])  # (N, 1)
    ranks = (log_probs > of_target).sum(dim=-1)  # (N,)
    best = log_probs.topk(min(n_alternatives, log_probs.shape[1]), dim=-1)
    return [
        TokenProbability(
            id=int(targets[i]),
            prob=of_target[i].exp().item(),
            loss=-of_target[i].item(),
            rank=int(ranks[i]),
            alternatives=tuple(zip(best.indices[i].tolist(), best.values[i].exp().tolist(), strict=True)),
        )
        for i in range(len(targets))
    ]
