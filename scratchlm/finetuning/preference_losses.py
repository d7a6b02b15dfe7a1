"""The losses of preference tuning (DPO, cDPO, IPO, ORPO, SimPO), computed from log-probabilities of answers.

They need no reward model and no reinforcement learning. DPO compares the trained model, the policy, with a frozen copy
of the base, the reference: the loss falls when the policy makes the chosen answer more likely, or the rejected one
less likely, than the reference does; beta sets the penalty for deviating from the reference. IPO and cDPO
limit the effect of noisy or easy pairs; ORPO and SimPO need no reference.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model.loss import head_cross_entropy

LossKind = Literal["dpo", "cdpo", "ipo", "orpo", "simpo"]
NEEDS_REFERENCE: frozenset[LossKind] = frozenset({"dpo", "cdpo", "ipo"})
USUAL_BETA: dict[LossKind, float] = {"dpo": 0.1, "cdpo": 0.1, "ipo": 0.1, "orpo": 0.1, "simpo": 2.0}
MAX_MEAN = -1e-6  # nats; the odds of a certain answer would be infinite


class PreferenceLosses(NamedTuple):
    """The loss and log-ratios of each pair of a batch, (B,) each.

    A log-ratio is an answer's log-probability under the policy minus that under the reference; times beta it is the
    paper's implicit reward. The losses have a gradient, the log-ratios have none.
    """

    losses: Tensor
    chosen_log_ratios: Tensor
    rejected_log_ratios: Tensor


def response_log_probs(
    logits: Tensor, ids: Tensor, mask: Tensor | None = None, *, per_token: bool = False
) -> Tensor:
    """The log-probability of each row's answer: the sum over its ids.

    The mask selects the ids of the answer; None selects all. The first id is never predicted. `per_token=True`
    gives the mean instead, so that long and short answers weigh the same, as in the book's DPO but not the paper's.

    Shapes: logits (B, T, V), ids (B, T), mask (B, T), True at the answer -> (B,), with gradient.
    Units: nats, negative.
    Raises: DataError for shapes that do not match, and with `per_token` for a row without an id of an answer.
    """
    if logits.shape[:-1] != ids.shape or (mask is not None and mask.shape != ids.shape):
        raise DataError(
            f"logits, ids and mask must be (B, T, V), (B, T) and (B, T), got {tuple(logits.shape)}, "
            f"{tuple(ids.shape)} and {None if mask is None else tuple(mask.shape)}; give them the same length."
        )
    targets = ids if mask is None else ids.masked_fill(~mask.bool(), IGNORE_INDEX)
    targets = targets[:, 1:]  # (B, T-1)
    log_probs = -head_cross_entropy(logits[:, :-1], nn.Identity(), targets, reduction="none")
    return answer_log_probs(log_probs, targets, per_token=per_token)


def answer_log_probs(log_probs: Tensor, targets: Tensor, *, per_token: bool) -> Tensor:
    """The sum of an answer's log-probabilities over its targets, or with `per_token` their mean.

    Shapes: log_probs and targets (B, T) -> (B,).
    Raises: DataError with `per_token` for a row without a target.
    """
    sums = log_probs.sum(dim=-1)  # (B,)
    if not per_token:
        return sums
    counts = (targets != IGNORE_INDEX).sum(dim=-1)  # (B,)
    if not bool((counts > 0).all()):
        raise DataError(
            "a row has no token of its answer after the cut; raise allowed_max_length, or leave out entries with "
            "long prompts."
        )
    return sums / counts


def dpo_losses(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> PreferenceLosses:
    """Compute DPO's loss of each pair from the log-probabilities of its answers.

    `label_smoothing` is the assumed share of pairs with swapped labels: conservative DPO.

    Shapes: all (B,).
    Units: nats; log 2 for a policy equal to the reference.
    Raises: ConfigError for a beta that is not above 0, or a label_smoothing outside [0, 0.5).
    Source: Rafailov et al. 2023, "Direct Preference Optimization", equation 7; conservative DPO from Mitchell
        2023, "A note on DPO with noisy preferences & relationship to IPO", equation 3.
    """
    _check(beta, label_smoothing)
    chosen = policy_chosen - reference_chosen  # (B,)
    rejected = policy_rejected - reference_rejected  # (B,)
    rewards = beta * (chosen - rejected)
    losses = -F.logsigmoid(rewards)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-rewards)
    return PreferenceLosses(losses, chosen.detach(), rejected.detach())


def ipo_losses(chosen: Tensor, rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    """Compute IPO's loss of each pair from the log-ratios of its answers, whose target difference is 1 / (2 beta).

    DPO rewards an ever larger margin, which is unbounded for pairs on which all annotators agree.

    Shapes: (B,) each -> (B,).
    Units: nats squared; 1 / (4 beta^2) for a policy equal to the reference.
    Raises: ConfigError for a beta that is not above 0.
    Source: Azar et al. 2023, "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        equation 17, whose tau is our beta.
    """
    _check(beta)
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def orpo_losses(chosen: Tensor, rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    """Compute ORPO's loss of each pair from its answers' mean log-probabilities.

    The first term is the loss of ordinary fine-tuning on the chosen answer; the second, weighted by beta, falls as the
    odds of the chosen answer grow over those of the rejected one.

    Shapes: (B,) each -> (B,).
    Units: nats.
    Raises: ConfigError for a beta that is not above 0.
    Source: Hong et al. 2024, "ORPO: Monolithic Preference Optimization without Reference Model", equations 3
        to 7, whose lambda is our beta.
    """
    _check(beta)
    return -chosen - beta * F.logsigmoid(log_odds(chosen) - log_odds(rejected))


def log_odds(log_probs: Tensor) -> Tensor:
    """Compute log(p / (1 - p)) for p = exp(log_probs), accurately also near p = 1."""
    log_probs = log_probs.clamp(max=MAX_MEAN)
    is_likely = log_probs > -math.log(2)
    rare, likely = log_probs.clamp(max=-math.log(2)), log_probs.clamp(min=-math.log(2))
    log_rest = torch.where(is_likely, torch.log(-torch.expm1(likely)), torch.log1p(-torch.exp(rare)))
    return log_probs - log_rest


def simpo_losses(chosen: Tensor, rejected: Tensor, *, beta: float = 2.0, margin: float = 1.0) -> Tensor:
    """Compute SimPO's loss of each pair from its answers' mean log-probabilities, with a target margin.

    It uses means so that the length of an answer gives no advantage.

    Shapes: (B,) each -> (B,).
    Units: nats.
    Raises: ConfigError for a beta that is not above 0 or a negative margin.
    Source: Meng et al. 2024, "SimPO: Simple Preference Optimization with a Reference-Free Reward", equation 6,
        whose gamma is our margin.
    """
    _check(beta)
    if not margin >= 0:
        raise ConfigError(f"SimPO's margin must be at least 0, got {margin}; half of beta is usual.")
    return -F.logsigmoid(beta * (chosen - rejected) - margin)


def _check(beta: float, label_smoothing: float = 0.0) -> None:
    if not beta > 0:
        raise ConfigError(f"beta must be above 0, got {beta}; 0.1 to 0.5 are usual.")
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(
            f"label_smoothing must be at least 0 and below 0.5, got {label_smoothing}: at 0.5 both answers would be "
            "equally good; 0.1 is usual."
        )
