"""Evaluate a model's loss on a text: nats per token, perplexity, bits per byte and per character."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Task, Total
from scratchlm.evaluation.intervals import bootstrap_ratio_interval
from scratchlm.model.attention_mask import document_numbers
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import head_cross_entropy
from scratchlm.model.modes import evaluation_mode


def mean_loss(model: nn.Module, loader: Iterable[Batch], task: Task, *, total: Total = list) -> float:
    """Average loss over a loader; every target has the same weight, whatever the batch sizes.

    `total` adds up the sums of several processes, if each has a share of every batch.
    Units: nats per unmasked target.
    Raises: DataError when the loader has no such target.
    """
    device = next(model.parameters()).device
    loss_sum, n_targets = 0.0, 0.0
    with evaluation_mode(model):
        for batch in loader:
            loss_sum += task.loss_sum(model, batch.to(device)).item()
            n_targets += batch.n_targets
    loss_sum, n_targets = total([loss_sum, n_targets])
    if n_targets == 0:
        raise DataError(
            "mean_loss needs an unmasked target, and the loader has none; check masking and max_length."
        )
    return loss_sum / n_targets


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLoss:
    """A model's loss over a text, with every token counted exactly once."""

    loss_sum: float  # nats
    n_tokens: int
    n_bytes: int  # bytes of the text in UTF-8
    n_characters: int | None = None  # None: not counted
    window_sums: npt.NDArray[np.float64] = field(  # nats, per window
        default_factory=lambda: np.zeros(0), compare=False, repr=False
    )
    window_tokens: npt.NDArray[np.float64] = field(  # counted tokens per window
        default_factory=lambda: np.zeros(0), compare=False, repr=False
    )

    @property
    def loss(self) -> float:
        """Nats per token; depends on the tokenizer."""
        return self.loss_sum / self.n_tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): the model is as uncertain as a choice among this many equally likely tokens."""
        return perplexity_of(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits needed to encode one byte of the text with the model; comparable across tokenizers."""
        return self.loss_sum / math.log(2) / self.n_bytes

    @property
    def bits_per_character(self) -> float | None:
        """Bits per character, called bpc in papers on text8 and enwik8; None when characters were not counted."""
        return None if not self.n_characters else self.loss_sum / math.log(2) / self.n_characters

    @property
    def interval(self) -> tuple[float, float] | None:
        """The loss's 95 % interval over other text of the same kind; None for fewer than ten windows.

        A block bootstrap: whole windows are resampled, because the losses of neighbouring tokens are correlated and
        resampling single tokens would give too narrow an interval. Variation between training runs is not included.
        """
        return bootstrap_ratio_interval(self.window_sums, self.window_tokens)

    @classmethod
    def together(cls, parts: Sequence[TextLoss]) -> TextLoss:
        """Combine the results of several texts; every token has the same weight."""
        characters = [part.n_characters for part in parts]
        return cls(
            loss_sum=math.fsum(part.loss_sum for part in parts),
            n_tokens=sum(part.n_tokens for part in parts),
            n_bytes=sum(part.n_bytes for part in parts),
            n_characters=None if None in characters else sum(n for n in characters if n is not None),
            window_sums=np.concatenate([part.window_sums for part in parts]),
            window_tokens=np.concatenate([part.window_tokens for part in parts]),
        )


def perplexity_of(loss: float) -> float:
    """exp(loss), limited to a finite number.

    Units: loss in nats per token.
    """
    return math.exp(min(loss, 700.0))  # exp(710) is beyond a float


def format_perplexity(value: float) -> str:
    """Format a perplexity: without decimals above 1,000, in scientific notation above 10 million.

    Example:
        >>> format_perplexity(2.0826), format_perplexity(33_814.54), format_perplexity(6_886_768_999.11)
        ('2.08', '33,815', '6.9e+09')
    """
    if value >= 1e7:
        return f"{value:.1e}"
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def format_bits_per_byte(bits: float | None) -> str:
    """Format bits per byte; None means that the tokenizer drops part of the text, as word tokenizers do."""
    return "bits per byte not comparable" if bits is None else f"{bits:.4f} bits per byte"


def stride_for(model: GPTModel, stride: int | None) -> int:
    """The distance between the starts of two windows: the given one, or half the context.

    Raises: ConfigError for a stride outside the context.
    """
    context = model.config.context_length
    chosen = max(1, context // 2) if stride is None else stride
    if not 1 <= chosen <= context:
        raise ConfigError(
            f"stride must lie between 1 and the context length {context}, got {stride}; "
            "leave it out for half the context."
        )
    return chosen


def text_loss(
    model: GPTModel,
    ids: npt.NDArray[np.integer] | list[int],
    *,
    n_bytes: int,
    start_id: int | None,
    stride: int | None = None,
    batch_size: int = 16,
    n_characters: int | None = None,
    within_documents: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> TextLoss:
    """Loss over a whole text with a sliding window.

    Windows of the context's length start every `stride` tokens (default: half the context). Each window counts only
    the tokens that no earlier window predicted, so all tokens after the first window have at least context - stride
    tokens of context. `start_id` (end-of-text) is prepended, so that the first token is predicted too;
    without it the first token is not counted. `ids` may be memory-mapped: only the current batch is copied,
    and each window is summed separately, so the batch size affects only the speed. within_documents: tokens attend only
    to their own document, which begins with `start_id`.

    Units: progress(done, total) counts tokens.
    Source: the strided evaluation of Hugging Face's perplexity guide, with every token counted once.
    Raises: DataError for a text without a token to predict; ConfigError for a stride outside the context or a
        batch size below 1, and for within_documents without `start_id`.
    """
    stride = stride_for(model, stride)
    check_at_least(1, batch_size=batch_size)
    n_tokens = len(ids) + (start_id is not None)
    n_predicted = n_tokens - 1
    if n_predicted < 1 or n_bytes < 1:
        raise DataError(
            f"text_loss needs a token to predict, and the text has {n_tokens} tokens; use a longer text."
        )
    document_start = start_id if within_documents else None
    if within_documents and start_id is None:
        raise ConfigError(
            "attention within documents needs the id of the token between them, got none; give start_id."
        )
    sums, counts = array("d"), array("d")
    n_done = 0
    device = next(model.parameters()).device
    with evaluation_mode(model):
        context = model.config.context_length
        windows = _strided_windows(
            np.asarray(ids), start_id=start_id, context=context, stride=stride, batch_size=batch_size
        )
        for inputs, targets in windows:
            mask = None if document_start is None else document_numbers(inputs, document_start).to(device)
            states = model.hidden_states(inputs.to(device), attention_mask=mask)  # (B, T, E)
            # (B, T)
            losses = head_cross_entropy(states, model.out_head, targets.to(device), reduction="none")
            sums.extend(losses.cpu().double().sum(dim=1).tolist())
            fresh = (targets != IGNORE_INDEX).sum(dim=1)  # (B,)
            counts.extend(fresh.tolist())
            n_done += int(fresh.sum())
            if progress is not None:
                progress(n_done, n_predicted)
    return TextLoss(
        loss_sum=math.fsum(sums),
        n_tokens=n_predicted,
        n_bytes=n_bytes,
        n_characters=n_characters,
        window_sums=np.asarray(sums),
        window_tokens=np.asarray(counts),
    )


def _strided_windows(
    ids: npt.NDArray[np.integer], *, start_id: int | None, context: int, stride: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of windows; targets that an earlier window predicted, and padding, are IGNORE_INDEX."""
    n_before = int(start_id is not None)  # the text is start_id followed by ids; the array is not copied
    n_predicted = len(ids) + n_before - 1
    n_windows = 1 + max(0, math.ceil((n_predicted - context) / stride))
    for first in range(0, n_windows, batch_size):
        n_rows = min(batch_size, n_windows - first)
        inputs = np.zeros((n_rows, min(context, n_predicted)), dtype=np.int64)
        targets = np.full_like(inputs, IGNORE_INDEX)
        for row in range(n_rows):
            begin = (first + row) * stride
            end = min(begin + context, n_predicted)
            fresh = 0 if begin == 0 else context - stride  # the first position not predicted before
            n_start = n_before if begin == 0 else 0  # start_id is in the first window only
            inputs[row, :n_start] = 0 if start_id is None else start_id
            inputs[row, n_start : end - begin] = ids[begin + n_start - n_before : end - n_before]
            targets[row, fresh : end - begin] = ids[begin + 1 + fresh - n_before : end + 1 - n_before]
        yield torch.from_numpy(inputs), torch.from_numpy(targets)
