"""The bonus chapter on preference tuning: pairs of answers, the DPO loss, and its training loop.

As in the book, an answer's log-probability is the mean over its tokens, where the paper takes the sum, and the rewards
are the log-ratios, which the paper multiplies by beta.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from scratchlm.book.alpaca import END_OF_TEXT_ID, encode_plain, format_input, text_of
from scratchlm.book.ch05 import generate_and_print_sample
from scratchlm.book.loops import say
from scratchlm.core.errors import DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.packing import pad_right
from scratchlm.data.prompt_templates import TEMPLATES
from scratchlm.finetuning.preference_losses import dpo_losses, response_log_probs
from scratchlm.model.modes import evaluation_mode

__all__ = [
    "PreferenceDataset",
    "compute_dpo_loss",
    "compute_dpo_loss_batch",
    "compute_dpo_loss_loader",
    "compute_logprobs",
    "custom_collate_fn",
    "evaluate_dpo_loss_loader",
    "train_model_dpo_simple",
]

Loader = DataLoader[dict[str, Any]]
N_LINE_ENDS = 2  # ids between the request and `### Response:` in GPT-2's vocabulary


class PreferenceDataset(Dataset[dict[str, list[int]]]):
    """Entries with a chosen and a rejected answer as ids: the request alone, and with each answer.

    Raises: DataError for an entry without one of the answers, or with values other than text.
    """

    def __init__(self, data: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> None:
        self.data = data
        lead = TEMPLATES["alpaca"].before_answer
        self.encoded_texts = [
            {
                "prompt": encode_plain(tokenizer, format_input(entry)),
                "chosen": encode_plain(tokenizer, format_input(entry) + lead + _answer(entry, "chosen")),
                "rejected": encode_plain(tokenizer, format_input(entry) + lead + _answer(entry, "rejected")),
            }
            for entry in data
        ]

    def __len__(self) -> int:
        return len(self.encoded_texts)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.encoded_texts[index]


def _answer(entry: Mapping[str, str], key: str) -> str:
    if key not in entry:
        raise DataError(
            f"an entry must have a chosen and a rejected answer, got the keys {', '.join(entry) or 'none'}; add {key}."
        )
    return text_of(entry, key)


def custom_collate_fn(
    batch: Sequence[Mapping[str, Sequence[int]]],
    pad_token_id: int = END_OF_TEXT_ID,
    allowed_max_length: int | None = None,
    mask_prompt_tokens: bool = True,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Pad both answers of a batch to one width, and mask the positions without loss.

    The loss includes everything after the request and its two line ends, so also the `### Response:` line, as in the
    book. `mask_prompt_tokens=False` includes the request as well.

    Shapes: chosen, rejected, chosen_mask, rejected_mask (B, T); prompt is a list of B rows of their own length.
    """
    width = max(len(item[key]) for item in batch for key in ("chosen", "rejected")) + 1
    collated: dict[str, Any] = {"prompt": [torch.tensor(item["prompt"], device=device) for item in batch]}
    for key in ("chosen", "rejected"):
        rows = [np.asarray(item[key], dtype=np.int64) for item in batch]
        ids, mask = pad_right(rows, value=pad_token_id, width=width)  # (B, T)
        if mask_prompt_tokens:
            for row, item in zip(mask, batch):
                row[: len(item["prompt"]) + N_LINE_ENDS] = False
        collated[key] = ids[:, :allowed_max_length].to(device)
        collated[f"{key}_mask"] = mask[:, :allowed_max_length].to(device)
    return collated


def compute_dpo_loss(
    model_chosen_logprobs: Tensor,
    model_rejected_logprobs: Tensor,
    reference_chosen_logprobs: Tensor,
    reference_rejected_logprobs: Tensor,
    beta: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:
    """The batch's mean loss with its gradient, and the mean rewards of the chosen and the rejected answers.

    Shapes: four times (B,) -> three scalars.
    """
    losses, chosen, rejected = dpo_losses(
        model_chosen_logprobs,
        model_rejected_logprobs,
        reference_chosen_logprobs,
        reference_rejected_logprobs,
        beta=beta,
    )
    return losses.mean(), chosen.mean(), rejected.mean()


def compute_logprobs(logits: Tensor, labels: Tensor, selection_mask: Tensor | None = None) -> Tensor:
    """The mean log-probability of each row's labels, or of those that the mask selects.

    Shapes: logits (B, T, V), labels (B, T), selection_mask (B, T) -> (B,).
    Raises: DataError for a row without a selected label, where the book's gives nan.
    """
    return response_log_probs(logits, labels, selection_mask, per_token=True)


def compute_dpo_loss_batch(
    batch: Mapping[str, Any], policy_model: nn.Module, reference_model: nn.Module, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and rewards of a batch of `custom_collate_fn`; the reference model computes no gradients."""

    def log_probs(model: nn.Module, key: str) -> Tensor:
        return compute_logprobs(model(batch[key]), batch[key], batch[f"{key}_mask"])

    chosen, rejected = log_probs(policy_model, "chosen"), log_probs(policy_model, "rejected")
    with torch.no_grad():
        reference = log_probs(reference_model, "chosen"), log_probs(reference_model, "rejected")
    return compute_dpo_loss(chosen, rejected, *reference, beta=beta)


def compute_dpo_loss_loader(
    data_loader: Loader,
    policy_model: nn.Module,
    reference_model: nn.Module,
    beta: float,
    num_batches: int | None = None,
) -> tuple[float, float, float]:
    """Loss and rewards over the first `num_batches` batches or all: means of batch means, as in chapter 5.

    Three times nan for an empty loader, where the book's function returns one.
    """
    n_batches = len(data_loader) if num_batches is None else min(num_batches, len(data_loader))
    if n_batches == 0:
        return float("nan"), float("nan"), float("nan")
    sums = [0.0, 0.0, 0.0]
    for batch in itertools.islice(data_loader, n_batches):
        found = compute_dpo_loss_batch(batch, policy_model, reference_model, beta)
        sums = [total + value.item() for total, value in zip(sums, found)]
    loss, chosen, rejected = (total / n_batches for total in sums)
    return loss, chosen, rejected


def evaluate_dpo_loss_loader(
    policy_model: nn.Module,
    reference_model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    beta: float,
    eval_iter: int,
) -> dict[str, float]:
    """Losses and rewards over `eval_iter` batches of both loaders; the policy is in training mode afterwards."""
    found: dict[str, float] = {}
    with evaluation_mode(policy_model):
        for part, loader in (("train", train_loader), ("val", val_loader)):
            means = compute_dpo_loss_loader(loader, policy_model, reference_model, beta, eval_iter)
            names = ("loss", "chosen_reward", "rejected_reward")
            found |= {f"{part}_{name}": value for name, value in zip(names, means)}
    policy_model.train()
    return found


def train_model_dpo_simple(
    policy_model: nn.Module,
    reference_model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    num_epochs: int,
    beta: float,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Tokenizer,
) -> dict[str, list[float]]:
    """Train the policy, print losses and reward margins every `eval_freq` steps and a sample after each epoch.

    Set the reference model to evaluation mode before: its mode is not changed. The sample comes from the policy; the
    book's function samples from the notebook's global `model`. Returns seven lists, named like the results of
    `evaluate_dpo_loss_loader` in the plural, and `tokens_seen`, the number of ids of the chosen answers.
    """
    tracking: dict[str, list[float]] = {
        f"{part}_{name}": []
        for part in ("train", "val")
        for name in ("losses", "chosen_rewards", "rejected_rewards")
    }
    tracking["tokens_seen"] = []
    n_tokens, step, device = 0, -1, next(policy_model.parameters()).device
    for epoch in range(1, num_epochs + 1):
        policy_model.train()
        for batch in train_loader:
            step += 1
            optimizer.zero_grad()
            loss, _, _ = compute_dpo_loss_batch(batch, policy_model, reference_model, beta)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            n_tokens += batch["chosen"].numel()
            if step % eval_freq == 0:
                found = evaluate_dpo_loss_loader(
                    policy_model, reference_model, train_loader, val_loader, beta, eval_iter
                )
                for name, value in found.items():
                    tracking[name.replace("loss", "losses").replace("reward", "rewards")].append(value)
                tracking["tokens_seen"].append(n_tokens)
                say(f"Ep {epoch} (Step {step:06d}): {_losses_and_margins(found)}")
        generate_and_print_sample(policy_model, tokenizer, device, start_context)
    return tracking


def _losses_and_margins(found: Mapping[str, float]) -> str:
    parts = ("train", "val")
    margins = {part: found[f"{part}_chosen_reward"] - found[f"{part}_rejected_reward"] for part in parts}
    return (
        f"Train loss {found['train_loss']:.3f}, Val loss {found['val_loss']:.3f}, "
        f"Train reward margins {margins['train']:.3f}, Val reward margins {margins['val']:.3f}"
    )
