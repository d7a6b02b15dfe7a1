"""How surprised a model is: loss, perplexity, bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Task
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import cross_entropy_sum
from scratchlm.model.modes import evaluation_mode


def mean_loss(model: nn.Module, loader: Iterable[Batch], task: Task) -> float:
    """Average loss over a loader: every target weighs the same, whatever batch it is in.

    Units: nats per unmasked target.
    Raises: DataError when the loader holds no such target.
    """
    device = next(model.parameters()).device
    loss_sum, n_targets = 0.0, 0
    with evaluation_mode(model):
        for batch in loader:
            loss_sum += task.loss_sum(model, batch.to(device)).item()
            n_targets += batch.n_targets
    if n_targets == 0:
        raise DataError("mean_loss needs an unmasked target, found none; check masking and max_length.")
    return loss_sum / n_targets


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLoss:
    """A model's surprise over a text, every token counted exactly once."""

    loss_sum: float  # nats
    n_tokens: int
    n_bytes: int  # of the text as UTF-8

    @property
    def loss(self) -> float:
        """Nats per token: depends on the tokenizer."""
        return self.loss_sum / self.n_tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): the model hesitates as if between so many equally likely tokens."""
        return math.exp(min(self.loss, 700.0))  # exp(710) is beyond a float

    @property
    def bits_per_byte(self) -> float:
        """Bits to write down one byte of the text with the model's help: comparable across tokenizers."""
        return self.loss_sum / math.log(2) / self.n_bytes


def say_bits_per_byte(bits: float | None) -> str:
    """The figure in words; None belongs to a tokenizer that loses part of the text, such as one of words."""
    return "bits per byte not comparable" if bits is None else f"{bits:.4f} bits per byte"


def text_loss(
    model: GPTModel,
    ids: npt.NDArray[np.integer] | list[int],
    *,
    n_bytes: int,
    start_id: int | None,
    stride: int | None = None,
    batch_size: int = 16,
) -> TextLoss:
    """Loss over a whole text with a sliding window.

    Windows of the context's length start every `stride` tokens (default: half the context). In each only the
    tokens that no earlier window predicted are counted, so all but the first window's tokens have at least
    context - stride tokens before them. `start_id` (end-of-text) stands before the first token, so that it is
    predicted too; without it the first token is not counted.
    Source: the strided evaluation of Hugging Face's perplexity guide, with every token counted once.
    Raises: DataError for a text without a token to predict; ConfigError for a stride outside the context.
    """
    context = model.config.context_length
    stride = max(1, context // 2) if stride is None else stride
    if not 1 <= stride <= context:
        raise ConfigError(f"stride must lie between 1 and the context length {context}, got {stride}.")
    array = np.asarray(ids)
    if start_id is not None:
        array = np.concatenate([[start_id], array])
    n_predicted = len(array) - 1
    if n_predicted < 1 or n_bytes < 1:
        raise DataError(f"text_loss needs a token to predict, found {len(array)} tokens; use a longer text.")
    loss_sum = 0.0
    device = next(model.parameters()).device
    with evaluation_mode(model):
        for inputs, targets in _strided_windows(array, context=context, stride=stride, batch_size=batch_size):
            batch_sum, _ = cross_entropy_sum(model(inputs.to(device)), targets.to(device))
            loss_sum += batch_sum.item()
    return TextLoss(loss_sum=loss_sum, n_tokens=n_predicted, n_bytes=n_bytes)


def _strided_windows(
    array: npt.NDArray[np.integer], *, context: int, stride: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of windows; targets that an earlier window predicted are IGNORE_INDEX, and so is padding."""
    n_predicted = len(array) - 1
    n_windows = 1 + max(0, math.ceil((n_predicted - context) / stride))
    for first in range(0, n_windows, batch_size):
        n_rows = min(batch_size, n_windows - first)
        inputs = np.zeros((n_rows, min(context, n_predicted)), dtype=np.int64)
        targets = np.full_like(inputs, IGNORE_INDEX)
        for row in range(n_rows):
            begin = (first + row) * stride
            end = min(begin + context, n_predicted)
            fresh = 0 if begin == 0 else context - stride  # the first position not predicted before
            inputs[row, : end - begin] = array[begin:end]
            targets[row, fresh : end - begin] = array[begin + 1 + fresh : end + 1]
        yield torch.from_numpy(inputs), torch.from_numpy(targets)
