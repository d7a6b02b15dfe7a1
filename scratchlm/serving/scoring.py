"""What the worker computes in one pass over given tokens: log probabilities and embeddings."""

from collections.abc import Sequence

import torch

from scratchlm.model.modes import evaluation_mode
from scratchlm.serving.answers import TokenScore, finite
from scratchlm.serving.language_model import LanguageModel

POSITIONS_AT_ONCE = 256  # of which the scores of all tokens are in memory


def score_prompt(lm: LanguageModel, ids: Sequence[int], *, n_top: int) -> list[TokenScore | None]:
    """The log probability of each token after those before it, with the most likely alternatives.

    Shapes: T ids -> T entries; the first is None, since no token comes before it. Units: nats.
    """
    found: list[TokenScore | None] = [None]
    if len(ids) < 2:
        return found[: len(ids)]
    tokens = torch.tensor([list(ids)], device=next(lm.model.parameters()).device)  # (1, T)
    with evaluation_mode(lm.model), torch.inference_mode():
        states = lm.model.hidden_states(tokens[:, :-1])[0]  # (T-1, E)
        for first in range(0, len(states), POSITIONS_AT_ONCE):
            chunk = states[first : first + POSITIONS_AT_ONCE]
            log_probs = lm.model.out_head(chunk).float().log_softmax(dim=-1)  # (N, V)
            targets = tokens[0, first + 1 : first + 1 + len(chunk), None]  # (N, 1)
            best = log_probs.topk(min(max(n_top, 1), log_probs.shape[1]), dim=-1)
            rows = zip(
                targets[:, 0].tolist(), log_probs.gather(1, targets)[:, 0].tolist(), best.indices, best.values
            )
            found += [
                TokenScore(
                    token_id,
                    finite(value),
                    tuple(zip(top_ids.tolist()[:n_top], map(finite, top_values.tolist()))),
                )
                for token_id, value, top_ids, top_values in rows
            ]
    return found


def mean_state(lm: LanguageModel, ids: Sequence[int]) -> list[float]:
    """The embedding of a text: the mean of its tokens' states after the last block and its normalisation.

    Shapes: T ids -> E numbers.
    """
    tokens = torch.tensor([list(ids)], device=next(lm.model.parameters()).device)  # (1, T)
    with evaluation_mode(lm.model), torch.inference_mode():
        mean: list[float] = lm.model.hidden_states(tokens)[0].float().mean(dim=0).tolist()
    return mean
