"""Sampling filters (temperature, top-k, top-p, min-p, repetition penalty) and the choice of the next token.

Each filter takes logits and returns new ones, so they compose in any order. An excluded token has the score -inf.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.config import GenerationConfig

N_HEAD = (
    1024  # tokens among which a nucleus is looked for first: sorting a whole vocabulary takes milliseconds
)
ROUNDING = 1e-5  # difference between two sums of the same float32 probabilities


def check_scores(logits: Tensor) -> None:
    """Check that every row has a token that can be chosen.

    Shapes: logits (..., V).
    Raises: DataError for NaN or +inf in a row, and for a row in which every token is excluded.
    """
    best = logits.amax(dim=-1)  # (B,), NaN where the row contains NaN
    is_wrong = ~best.isfinite()
    if is_wrong.any():
        found = best[is_wrong][0].item()
        what = "NaN" if math.isnan(found) else "+inf" if found > 0 else "-inf for every token"
        raise DataError(
            f"next-token scores must be finite numbers, got {what}; the weights are damaged or overflowed."
        )


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharpen the distribution (below 1) or flatten it (above 1).

    Shapes: logits (B, V) -> (B, V).
    Raises: ConfigError when the temperature is not above 0; for 0, call `sample_next` without generators.
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
    nucleus = logits.gather(-1, ids).masked_fill(
        before >= p, -math.inf
    )  # the first has 0 before it: it stays
    return torch.full_like(logits, -math.inf).scatter(-1, ids, nucleus)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as likely as the most likely one; the rest become -inf.

    Shapes: logits (B, V) -> (B, V). At least one is kept.
    Source: Nguyen et al. 2024, section 3.
    """
    if not 0 < p <= 1:
        raise ConfigError(f"p must be above 0 and at most 1, got {p}; 0.05 is usual.")
    check_scores(logits)
    best = logits.max(dim=-1, keepdim=True).values  # (B, 1)
    return logits.masked_fill(logits < best + math.log(p), -math.inf)


def penalize_repetition(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Make tokens that a row already contains less likely: divide positive scores, multiply negative ones.

    Shapes: logits (B, V), seen: B sequences of ids -> (B, V).
    Source: Keskar et al. 2019, section 4.1, as Hugging Face applies it.
    """
    if len(seen) != logits.shape[0]:
        raise DataError(
            f"seen needs one sequence per row, got {len(seen)} for {logits.shape[0]} rows; add them."
        )
    penalized = logits.clone()
    for row, ids in enumerate(seen):
        present = torch.tensor(sorted(set(ids)), dtype=torch.long, device=logits.device)
        scores = logits[row, present]
        penalized[row, present] = torch.where(scores > 0, scores / penalty, scores * penalty)
    return penalized


def filter_logits(logits: Tensor, config: GenerationConfig, seen: Sequence[Sequence[int]]) -> Tensor:
    """Apply the filters that the config sets, in its order.

    Shapes: logits (B, V), seen: B sequences of ids -> (B, V).
    """
    if config.repetition_penalty is not None:
        logits = penalize_repetition(logits, seen, config.repetition_penalty)
    if not config.is_greedy:
        logits = apply_temperature(logits, config.temperature)
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    if config.min_p is not None:
        logits = keep_min_p(logits, config.min_p)
    return logits


def sample_next(logits: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    """Sample one token per row from the softmax of its scores; without generators, take the most likely one.

    Each row draws from its own generator, so that its choice does not depend on the other rows.

    Shapes: logits (B, V), B generators -> ids (B,).
    Raises: DataError as `check_scores` does, and when rows and generators differ in number.
    """
    check_scores(logits)
    if generators is None:
        return logits.argmax(dim=-1)
    if len(generators) != logits.shape[0]:
        raise DataError(
            f"every row needs a generator, got {len(generators)} for {logits.shape[0]} rows; "
            "repeat one to share it."
        )
    probs = logits.softmax(dim=-1)  # (B, V)
    drawn = [torch.multinomial(row, 1, generator=g) for row, g in zip(probs, generators, strict=True)]
    return torch.cat(drawn)


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
