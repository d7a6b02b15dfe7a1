"""The input of an engine's forward pass (new tokens), and its output (scores)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from scratchlm.model.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class Work:
    """New tokens of one slot, at the positions after those that its cache holds."""

    slot: int
    ids: Sequence[int]
    n_last: int  # after how many of the last tokens the next token's scores are wanted


@dataclass(frozen=True, slots=True)
class Scores:
    """The next token's scores after some tokens of one slot.

    Shapes: logits (n_last, V), float32 on the CPU.
    """

    logits: Tensor
    best: tuple[int, float] | None = None  # the best id after the last token and its probability, if known


def work_on(cache: KVCache, slot: int, ids: Sequence[int], *, use_cache: bool = True) -> Work:
    """The tokens of a text that its slot does not hold yet, to score the next one.

    A text longer than the context is its last context_length tokens. Each further token moves this window and with it
    every position, so nothing that is stored can be used again.
    """
    context_length = cache.config.context_length
    if not use_cache or (len(ids) > context_length and cache.lengths[slot] == context_length):
        cache.lengths[slot] = 0
    return Work(slot, ids[-context_length:][cache.lengths[slot] :], 1)
