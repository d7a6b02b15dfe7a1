"""Direct preference optimization: learn from pairs of answers which one people like better.

No reward model and no reinforcement learning: the policy, which learns, is compared with a frozen copy of
itself, the reference. The loss falls when the policy makes the chosen answer likelier, or the rejected one less
likely, than the reference does; beta says how dearly a change is paid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from scratchlm.core.errors import ConfigError, DataError


class PreferenceLosses(NamedTuple):
    """What came out for each pair of a batch, (B,) each.

    The log-ratios say how much likelier the policy makes an answer than the reference does; times beta they
    are the paper's implicit rewards. They carry no gradient, the losses do.
    """

    losses: Tensor
    chosen_log_ratios: Tensor
    rejected_log_ratios: Tensor


def response_log_probs(
    logits: Tensor, ids: Tensor, mask: Tensor | None = None, *, per_token: bool = False
) -> Tensor:
    """How likely a model finds each row's answer: the sum of its ids' log-probabilities.

    The mask says which ids are the answer's; None takes all. The first id is never predicted. `per_token=True`
    gives the mean instead, so that long and short answers weigh alike: that is the book's DPO, not the paper's.

    Shapes: logits (B, T, V), ids (B, T), mask (B, T), True at the answer -> (B,), with gradient.
    Units: nats, negative.
    Raises: DataError when the shapes do not fit, or when a mean is asked for and a row has no id of an answer.
    """
    if logits.shape[:-1] != ids.shape or (mask is not None and mask.shape != ids.shape):
        raise DataError(
            f"logits, ids and mask must be (B, T, V), (B, T) and (B, T), got {tuple(logits.shape)}, "
            f"{tuple(ids.shape)} and {None if mask is None else tuple(mask.shape)}; cut them alike."
        )
    log_probs = F.log_softmax(logits[:, :-1], dim=-1)  # (B, T-1, V)
    taken = log_probs.gather(dim=-1, index=ids[:, 1:, None]).squeeze(-1)  # (B, T-1)
    is_answer = taken.new_ones(taken.shape) if mask is None else mask[:, 1:].to(taken.dtype)
    sums = (taken * is_answer).sum(dim=-1)  # (B,)
    if not per_token:
        return sums
    counts = is_answer.sum(dim=-1)  # (B,)
    if not bool((counts > 0).all()):
        raise DataError(
            "every row must have an id of its answer, found one without; raise allowed_max_length, or leave "
            "out entries whose prompt fills it."
        )
    return sums / counts


def dpo_losses(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
) -> PreferenceLosses:
    """The loss of each pair, from the four log-probabilities of its answers.

    Shapes: all (B,).
    Units: nats; log 2 for a policy that is still the reference.
    Raises: ConfigError for a beta that is not above 0.
    Source: Rafailov et al. 2023, "Direct Preference Optimization", equation 7.
    """
    if not beta > 0:
        raise ConfigError(f"beta must be above 0, got {beta}; 0.1 to 0.5 are usual.")
    chosen = policy_chosen - reference_chosen  # (B,)
    rejected = policy_rejected - reference_rejected  # (B,)
    losses = -F.logsigmoid(beta * (chosen - rejected))
    return PreferenceLosses(losses, chosen.detach(), rejected.detach())
