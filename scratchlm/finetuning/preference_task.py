"""The Trainer's task for preference tuning, and the reference's log-probabilities, computed once before training."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Total
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.preference_batches import PreferenceBatch, PreferenceExamples
from scratchlm.finetuning.preference_losses import (
    NEEDS_REFERENCE,
    USUAL_BETA,
    LossKind,
    answer_log_probs,
    dpo_losses,
    ipo_losses,
    orpo_losses,
    simpo_losses,
)
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import head_cross_entropy
from scratchlm.model.modes import evaluation_mode


class PreferenceTask:
    """Make chosen answers more likely than rejected ones; a target is a pair.

    beta: strength of the penalty for deviating from the reference; None = the loss's usual value. per_token:
    use an answer's mean log-probability instead of the sum, as the book's DPO does; ORPO and SimPO always do.
    margin: SimPO's.
    Raises: ConfigError for a setting that the loss does not have.
    """

    def __init__(
        self,
        kind: LossKind = "dpo",
        *,
        beta: float | None = None,
        label_smoothing: float = 0.0,
        per_token: bool = False,
        margin: float = 1.0,
    ) -> None:
        if (label_smoothing > 0) != (kind == "cdpo"):
            raise ConfigError(
                f"the loss cdpo, and no other, needs a label_smoothing, got {label_smoothing} with {kind}; choose cdpo "
                "with a label_smoothing such as 0.1, or another loss with 0."
            )
        self.kind = kind
        self.beta = USUAL_BETA[kind] if beta is None else beta
        self.label_smoothing = label_smoothing
        self.margin = margin
        self.needs_reference = kind in NEEDS_REFERENCE
        self.per_token = per_token or not self.needs_reference
        self.losses(*[torch.zeros(1)] * 4)  # raises for invalid settings

    def losses(
        self, chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
    ) -> Tensor:
        """The loss of each pair from its answers' log-probabilities; the reference's are 0 for losses without one.

        Shapes: (B,) each -> (B,).
        """
        ratios = chosen - reference_chosen, rejected - reference_rejected  # (B,) each
        if self.kind == "ipo":
            return ipo_losses(*ratios, beta=self.beta)
        if self.kind == "orpo":
            return orpo_losses(*ratios, beta=self.beta)
        if self.kind == "simpo":
            return simpo_losses(*ratios, beta=self.beta, margin=self.margin)
        found = dpo_losses(
            chosen,
            rejected,
            reference_chosen,
            reference_rejected,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
        )
        return found.losses

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sum of the losses of the batch's pairs, with a gradient."""
        pairs = self._pairs(batch)
        log_probs = batch_log_probs(model, pairs)
        if pairs.is_filler:
            return log_probs.sum()  # 0, with a gradient of 0
        own, reference = self._answers(log_probs, pairs)
        return self.losses(*own, *reference).sum()

    def metrics(self, model: nn.Module, loader: Iterable[Batch], *, total: Total = list) -> dict[str, float]:
        """Metrics over all pairs of a loader.

        `loss` per pair; `chosen_reward`, `rejected_reward` and their difference `reward_margin`, where a reward is
        beta times an answer's log-ratio (its mean log-probability if there is no reference); `accuracy`, the
        share of pairs whose chosen answer has the larger reward, with ties as one half; `likelier`, the share
        whose chosen answer is more likely than the rejected one under the model alone.
        With a reference also `kl`, the distance of the model from it on these answers.

        Units: kl in nats per token. It is the mean of r - 1 - log r over the answers' tokens, where r is the
            model's probability over the reference's: never negative, 0 for the reference itself, and an estimate of
            the KL divergence if the answers were sampled from the model.
        Source: Schulman 2020, "Approximating KL Divergence", the estimator k3.
        Raises: DataError for a loader without a pair.
        """
        device = next(model.parameters()).device
        sums = dict.fromkeys(("loss", "chosen_reward", "rejected_reward", "accuracy", "likelier", "kl"), 0.0)
        n_pairs = n_tokens = 0.0
        with evaluation_mode(model):
            for batch in loader:
                pairs = self._pairs(batch).to(device)
                log_probs = batch_log_probs(model, pairs)
                if pairs.is_filler:
                    continue
                own, reference = self._answers(log_probs, pairs)
                rewards = [self.beta * (mine - theirs) for mine, theirs in zip(own, reference)]
                sums["loss"] += self.losses(*own, *reference).sum().item()
                sums["chosen_reward"] += rewards[0].sum().item()
                sums["rejected_reward"] += rewards[1].sum().item()
                sums["accuracy"] += _wins(*rewards)
                sums["likelier"] += _wins(*own)
                if pairs.reference is not None:
                    log_ratio = (log_probs - pairs.reference)[pairs.targets != IGNORE_INDEX]
                    log_ratio = log_ratio.cpu().double()  # Apple's GPU has no float64
                    sums["kl"] += (log_ratio.expm1() - log_ratio).sum().item()
                n_pairs += pairs.n_targets
                n_tokens += int((pairs.targets != IGNORE_INDEX).sum())
        *values, n_pairs, n_tokens = total([*sums.values(), n_pairs, n_tokens])
        sums = dict(zip(sums, values))
        if n_pairs == 0:
            raise DataError("there is no pair to evaluate; check masking and max_length.")
        found = {name: value / n_pairs for name, value in sums.items() if name != "kl"}
        found["reward_margin"] = found["chosen_reward"] - found["rejected_reward"]
        return {**found, "kl": sums["kl"] / n_tokens} if self.needs_reference else found

    def _pairs(self, batch: Batch) -> PreferenceBatch:
        assert isinstance(batch, PreferenceBatch), "preference tuning takes PreferenceExamples"
        if self.needs_reference and batch.reference is None:
            raise DataError(
                f"the loss {self.kind} needs the reference's log-probabilities; call add_reference_log_probs first."
            )
        return batch

    def _answers(
        self, log_probs: Tensor, batch: PreferenceBatch
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Log-probabilities of (chosen, rejected) under the model and under the reference, (P,) each."""
        theirs = batch.reference if self.needs_reference else None
        reference = torch.zeros_like(log_probs) if theirs is None else theirs.to(log_probs.dtype)
        own, other = (
            answer_log_probs(of, batch.targets, per_token=self.per_token).chunk(2)
            for of in (log_probs, reference)
        )
        return own, other


def batch_log_probs(model: nn.Module, batch: Batch) -> Tensor:
    """The log-probability of every target of a batch, 0 elsewhere; the output head runs at targets only.

    Shapes: -> (B, T), with gradient.
    Units: nats.
    """
    assert isinstance(model, GPTModel)
    states = model(batch.inputs, attention_mask=batch.attention_mask, apply_head=False)  # (B, T, E)
    return -head_cross_entropy(states, model.out_head, batch.targets, reduction="none")  # (B, T)


def add_reference_log_probs(examples: PreferenceExamples, model: nn.Module, *, batch_size: int) -> None:
    """Compute the log-probabilities of every answer's tokens under the reference model and store them in the examples.

    This is done once before training, without gradients or dropout, in batches of similar length. The reference then
    needs neither time nor memory during training.
    """
    device = next(model.parameters()).device
    loader = BatchLoader(examples, batch_size=batch_size, shuffle=False, bucket_by_length=True)
    found: dict[int, tuple[NDArray[np.float32], ...]] = {}
    with evaluation_mode(model):
        for indices in loader.indices(0):
            batch = examples.batch(indices)
            log_probs = batch_log_probs(model, batch.to(device)).float().cpu().numpy()  # (2 P, T)
            assert batch.attention_mask is not None
            lengths = batch.attention_mask.sum(dim=1).tolist()
            rows = [row[:length].copy() for row, length in zip(log_probs, lengths)]
            found |= {
                int(i): (chosen, rejected)
                for i, chosen, rejected in zip(indices, rows[: len(indices)], rows[len(indices) :])
            }
    examples.set_reference([found[i] for i in range(len(examples))])


def _wins(one: Tensor, other: Tensor) -> float:
    """The number of rows in which `one` is larger, with ties as one half."""
    return float((one > other).sum() + 0.5 * (one == other).sum())
