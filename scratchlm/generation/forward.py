"""The forward pass of an engine: new tokens of some slots in, scores of the next tokens out; in PyTorch or in C."""

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError
from scratchlm.generation.native.compile import KERNELS, NoKernelError, chosen_kernel
from scratchlm.generation.native.kernel import NativeForward
from scratchlm.generation.work import Scores, Work
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache
from scratchlm.model.modes import evaluation_mode

logger = logging.getLogger(__name__)

CHUNK = 256  # tokens of a long prompt that are read in one step


class Forward(Protocol):
    """Runs the model on new tokens of some slots, which its cache then holds too."""

    is_exact: bool  # whether a text's scores are bit for bit the same, whatever else is in the call

    def __call__(self, works: Sequence[Work], /) -> list[Scores | None]:
        """The scores after the last tokens of each work; None where none are wanted."""

    def close(self) -> None:
        """Free what the cache does not own."""


class TorchForward:
    """The forward pass by calling the model itself, on any device.

    Single new tokens of several slots share one call; a prompt is read alone, so that it needs no padding.
    """

    is_exact = False  # matrix products round differently for other numbers of rows

    def __init__(self, model: GPTModel, cache: KVCache) -> None:
        self._model = model
        self._cache = cache
        self._device = next(model.parameters()).device

    def __call__(self, works: Sequence[Work], /) -> list[Scores | None]:
        """Run the model: one call for all single tokens, and one for each prompt."""
        single = [i for i, work in enumerate(works) if len(work.ids) == 1 and work.n_last == 1]
        scores: list[Scores | None] = [None] * len(works)
        # Both modes end before control returns, so that a caller that pauses does not train with dropout off.
        with evaluation_mode(self._model), torch.inference_mode():
            if single:
                for i, logits in zip(single, self._read_single([works[i] for i in single])):
                    scores[i] = Scores(logits)
            for i in set(range(len(works))) - {*single}:
                work = works[i]
                ids = torch.tensor([work.ids], device=self._device)  # (1, T)
                states = self._model.hidden_states(ids, cache=self._cache.rows([work.slot]))  # (1, T, E)
                if work.n_last:
                    scores[i] = Scores(self._logits(states[0, -work.n_last :]))
        return scores

    def close(self) -> None:
        """Nothing to free."""

    def _read_single(self, works: Sequence[Work]) -> Tensor:
        """Read one token of each slot. Shapes: B works -> (B, 1, V).

        Gaps between the slots are filled with the slots there, whose results are dropped, if that is cheaper than
        copying the cache of the others: their next position is written, which is free, and their length is kept.
        """
        cache = self._cache
        slots = [work.slot for work in works]
        span = range(min(slots), max(slots) + 1)
        if len(span) <= 2 * len(slots) and all(cache.lengths[slot] < cache.capacity for slot in span):
            rows = span
        else:
            rows = sorted(slots)  # type: ignore[assignment]
        ids = dict(zip(slots, (work.ids[0] for work in works)))
        before = list(cache.lengths)
        tokens = torch.tensor([[ids.get(slot, 0)] for slot in rows], device=self._device)  # (rows, 1)
        states = self._model.hidden_states(tokens, cache=cache.rows(rows))[:, -1]  # (rows, E)
        for slot in rows:
            if slot not in ids:
                cache.lengths[slot] = before[slot]
        places = {slot: place for place, slot in enumerate(rows)}
        return self._logits(states[[places[slot] for slot in slots]])[:, None]

    def _logits(self, states: Tensor) -> Tensor:
        """Shapes: (..., E) -> (..., V), float32 on the CPU, where tokens are chosen."""
        logits: Tensor = self._model.out_head(states)
        return logits.float().cpu()


def build_forward(
    model: GPTModel, cache: KVCache, *, kernel: str | None = None, n_threads: int | None = None
) -> Forward:
    """The fastest forward pass that can run this model here.

    kernel: "native" is the C kernel, "torch" PyTorch, "auto" the kernel where it can be used; None asks
        `$SCRATCHLM_KERNEL`, whose default is auto.
    n_threads: of the C kernel; None for as many as PyTorch has.
    Raises: ConfigError for "native" where the kernel cannot be used, with the reason, and for another name.
    """
    name = chosen_kernel() if kernel is None else kernel
    if name not in KERNELS:
        raise ConfigError(f"kernel must be auto, native or torch, got {name!r}; choose one of them.")
    if name == "torch":
        return TorchForward(model, cache)
    try:
        return NativeForward(model, cache, n_threads=n_threads)
    except NoKernelError as reason:
        if name == "native":
            raise ConfigError(
                f"the C kernel cannot run this model here: {reason}; use kernel torch."
            ) from reason
        logger.debug("decoding with PyTorch: %s", reason)
        return TorchForward(model, cache)
