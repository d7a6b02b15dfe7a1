"""Sampling filters (temperature, top-k, top-p, min-p and others) and the choice of the next token.

Each filter takes logits and returns new ones, so they compose in any order. An excluded token has the score -inf.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.config import GenerationConfig

# Tokens among which a nucleus is looked for first: sorting a whole vocabulary takes milliseconds.
N_HEAD = 1024
ROUNDING = 1e-5  # difference between two sums of the same float32 probabilities
# Scores (..., V) -> scores (..., V), a new tensor; an excluded token has -inf.
Step = Callable[[Tensor], Tensor]


def check_scores(logits: Tensor, *, cause: str = "the weights are damaged or overflowed") -> None:
    """Check that every row has a token that can be chosen; `cause` is what is wrong otherwise.

    Shapes: logits (..., V).
    Raises: DataError for NaN or +inf in a row, and for a row in which every token is excluded.
    """
    best = logits.amax(dim=-1)  # (...), NaN where the row contains NaN
    if best.ndim == 0 and math.isfinite(best):  # one row, as at every token of a text: no further tensors
        return
    is_wrong = ~best.isfinite()
    if is_wrong.any():
        found = best[is_wrong][0].item()
        what = "NaN" if math.isnan(found) else "+inf" if found > 0 else "-inf for every token"
        raise DataError(f"next-token scores must be finite numbers, got {what}; {cause}.")


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharpen the distribution (below 1) or flatten it (above 1).

    Shapes: logits (..., V) -> (..., V).
    Raises: ConfigError when the temperature is not above 0; for 0, take the argmax.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature must be above 0 here, got {temperature}; take the argmax for 0.")
    check_scores(logits)
    # The best score becomes 0 first: a tiny temperature then sends the others to -inf and nothing to NaN.
    from_best = logits - logits.max(dim=-1, keepdim=True).values  # (B, V)
    return from_best / max(temperature, torch.finfo(logits.dtype).tiny)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep each row's k most likely tokens; the rest become -inf.

    Shapes: logits (..., V) -> (..., V). Exactly k are kept; among equal scores, the smaller ids.
    Source: Fan et al. 2018, section 5.
    Example:
        >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 2).tolist()
        [[-inf, 3.0, 2.0, -inf]]
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}; leave the filter out to keep every token.")
    check_scores(logits)
    if k >= logits.shape[-1]:
        return logits.clone()
    ids = best_ids(logits, k)  # (..., k)
    return torch.full_like(logits, -math.inf).scatter(-1, ids, logits.gather(-1, ids))


def best_ids(logits: Tensor, k: int) -> Tensor:
    """The ids of each row's k highest scores, best first; among equal scores, the smaller ids first.

    Shapes: logits (..., V) -> (..., k). The order of ids with the score -inf is undefined.
    """
    if k >= logits.shape[-1]:
        return logits.sort(dim=-1, descending=True, stable=True).indices
    # Finding the k-th best is linear in V; sorting all of it is not.
    values, ids = logits.topk(k + 1, dim=-1)  # (..., k + 1), equal scores in no particular order
    threshold, ids = values[..., k - 1 : k], ids[..., :k]  # (..., 1), (..., k)
    if ((threshold == values[..., k:]) & ~threshold.isneginf()).any():  # equal scores at the border
        is_above, is_tied = logits > threshold, logits == threshold  # (..., V)
        n_tied_kept = k - is_above.sum(dim=-1, keepdim=True)  # (..., 1)
        keep = is_above | (is_tied & (is_tied.cumsum(dim=-1) <= n_tied_kept))
        ids = keep.nonzero()[:, -1].view(ids.shape)
    ids = ids.sort(dim=-1).values
    return ids.gather(-1, logits.gather(-1, ids).sort(dim=-1, descending=True, stable=True).indices)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of tokens with total probability p (the "nucleus"); the rest become -inf.

    Shapes: logits (..., V) -> (..., V). At least one is kept; among equal scores, the smaller ids.
    Source: Holtzman et al. 2020, section 3.1.
    """
    if not 0 < p <= 1:
        raise ConfigError(f"p must be above 0 and at most 1, got {p}; 0.9 is usual.")
    if p == 1:  # rounding in the sum below could drop the least likely tokens
        return logits.clone()
    check_scores(logits)
    probs = logits.softmax(dim=-1)  # (..., V)
    ids = best_ids(logits, N_HEAD)  # (..., N)
    if (probs.gather(-1, ids).sum(dim=-1) < p + ROUNDING).any():
        ids = best_ids(logits, logits.shape[-1])  # (..., V): a flat distribution needs all of the order
    best_first = probs.gather(-1, ids)
    before = best_first.cumsum(dim=-1) - best_first  # total of the more likely tokens
    # The most likely token stays, as the total before it is 0.
    # A p that float32 rounds to 0 must not exclude it.
    limit = max(p, torch.finfo(logits.dtype).tiny)
    nucleus = logits.gather(-1, ids).masked_fill(before >= limit, -math.inf)
    return torch.full_like(logits, -math.inf).scatter(-1, ids, nucleus)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as likely as the most likely one; the rest become -inf.

    Shapes: logits (..., V) -> (..., V). At least one is kept.
    Source: Nguyen et al. 2024, section 3.
    """
    if not 0 < p <= 1:
        raise ConfigError(f"p must be above 0 and at most 1, got {p}; 0.05 is usual.")
    check_scores(logits)
    best = logits.max(dim=-1, keepdim=True).values  # (B, 1)
    return logits.masked_fill(logits < best + math.log(p), -math.inf)


def keep_top_n_sigma(logits: Tensor, n: float) -> Tensor:
    """Keep scores at most n standard deviations below the best one; the rest become -inf.

    The standard deviation is that of the row's finite scores. The temperature does not change the set.
    Shapes: logits (..., V) -> (..., V). At least one is kept.
    Source: Tang et al. 2024, algorithm 1.
    """
    check_scores(logits)
    is_finite = logits.isfinite()
    finite = logits.where(is_finite, 0.0)
    count = is_finite.sum(dim=-1, keepdim=True)  # (..., 1)
    mean = finite.sum(dim=-1, keepdim=True) / count
    variance = ((finite - mean) ** 2).where(is_finite, 0.0).sum(dim=-1, keepdim=True) / count
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) - n * variance.sqrt(), -math.inf)


def keep_typical(logits: Tensor, mass: float) -> Tensor:
    """Keep the tokens whose surprise is nearest to the entropy, up to a total probability; the rest become -inf.

    The most likely token may be excluded. Among equal distances at the border all are kept.
    Shapes: logits (..., V) -> (..., V). At least one is kept.
    Source: Meister et al. 2023, section 3, as transformers' TypicalLogitsWarper.
    """
    check_scores(logits)
    if mass == 1:
        return logits.clone()
    log_probs = logits.log_softmax(dim=-1)  # (..., V)
    probs = log_probs.exp()
    entropy = torch.special.entr(probs).sum(dim=-1, keepdim=True)  # (..., 1)
    distances = (-log_probs - entropy).abs()  # (..., V)
    ids = best_ids(-distances, N_HEAD)  # (..., N), the most typical first
    if (probs.gather(-1, ids).sum(dim=-1) < mass + ROUNDING).any():
        ids = best_ids(-distances, logits.shape[-1])
    n_below = (probs.gather(-1, ids).cumsum(dim=-1) < mass).sum(dim=-1, keepdim=True)  # (..., 1)
    last = ids.gather(-1, n_below.clamp(max=ids.shape[-1] - 1))
    return logits.masked_fill(distances > distances.gather(-1, last), -math.inf)


def keep_epsilon(logits: Tensor, epsilon: float) -> Tensor:
    """Keep tokens with at least this probability, and the most likely ones; the rest become -inf.

    Shapes: logits (..., V) -> (..., V).
    Source: Hewitt et al. 2022, section 4.1.
    """
    check_scores(logits)
    is_best = logits == logits.amax(dim=-1, keepdim=True)
    return logits.masked_fill((logits.softmax(dim=-1) < epsilon) & ~is_best, -math.inf)


def keep_eta(logits: Tensor, epsilon: float) -> Tensor:
    """Keep tokens with at least the probability min(epsilon, sqrt(epsilon) * exp(-entropy)), and the most likely ones.

    Where many tokens are possible, the limit falls.
    Shapes: logits (..., V) -> (..., V).
    Source: Hewitt et al. 2022, section 4.2.
    """
    check_scores(logits)
    probs = logits.softmax(dim=-1)
    entropy = torch.special.entr(probs).sum(dim=-1, keepdim=True)  # (..., 1)
    eta = (math.sqrt(epsilon) * (-entropy).exp()).clamp(max=epsilon)
    is_best = logits == logits.amax(dim=-1, keepdim=True)
    return logits.masked_fill((probs < eta) & ~is_best, -math.inf)


def keep_below_surprise(logits: Tensor, bits: float) -> Tensor:
    """Keep tokens whose surprise, -log2 of the probability, is at most this; the rest become -inf.

    Shapes: logits (V,) -> (V,). The most likely tokens are always kept.
    Source: Basu et al. 2021 (Mirostat), version 2 as in llama.cpp.
    """
    check_scores(logits)
    is_best = logits == logits.amax(dim=-1, keepdim=True)
    surprise = -logits.log_softmax(dim=-1) / math.log(2)
    return logits.masked_fill((surprise > bits) & ~is_best, -math.inf)


def sampling_steps(config: GenerationConfig) -> list[tuple[str, Step]]:
    """The steps that the config sets for drawing a token, by name and in their order; none for greedy decoding."""
    if config.is_greedy:
        return []
    steps: dict[str, Callable[[Tensor, Any], Tensor]] = {
        "temperature": apply_temperature,
        "top_n_sigma": keep_top_n_sigma,
        "top_k": keep_top_k,
        "top_p": keep_top_p,
        "min_p": keep_min_p,
        "typical_p": keep_typical,
        "epsilon_cutoff": keep_epsilon,
        "eta_cutoff": keep_eta,
    }
    set_ones = {name: getattr(config, name) for name in steps if getattr(config, name) is not None}
    return [(name, partial(_apply, steps[name], value)) for name, value in set_ones.items()]


def _apply(step: Callable[[Tensor, Any], Tensor], value: float, logits: Tensor) -> Tensor:
    return step(logits, value)


def draw(scores: Tensor, generator: torch.Generator | None) -> int:
    """Draw a token from the softmax of one row's scores, with one random number.

    `torch.multinomial` draws a number for every token of the vocabulary, which takes ten times as long.
    Shapes: scores (V,).
    """
    cumulative = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)  # (V,)
    share = torch.rand((), dtype=torch.float64, generator=generator).clamp_(max=1 - 1e-12)  # stays below 1
    return int(torch.searchsorted(cumulative, share * cumulative[-1], right=True))  # rounded, too


def draw_as_torch(scores: Tensor, generator: torch.Generator | None) -> int:
    """Draw a token with `torch.multinomial`: slower, but the same token as in a loop of your own.

    Shapes: scores (V,).
    """
    return int(torch.multinomial(scores.softmax(dim=-1), 1, generator=generator))
