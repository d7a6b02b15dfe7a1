"""Speculative decoding: guess several tokens cheaply, then let the model check all of them in one pass.

The model's own choice is made at every position, exactly as without a guess; a guess that equals it saves a pass, and
the first one that differs is dropped with those after it. So the text is that of decoding without guesses, greedy or
sampled with the same seed, whatever is guessed.
"""

from collections.abc import Sequence
from typing import Protocol

from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.forward import build_forward
from scratchlm.generation.work import Work
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache

DRAFT_TOKENS = 4  # guessed at a time, by default


class Drafter(Protocol):
    """Guesses the next tokens of a text."""

    def guess(self, slot: int, ids: Sequence[int], n: int) -> list[int]:
        """At most n tokens that may follow `ids`, the text in this slot."""


class PromptLookup:
    """Guess what followed when the text's last tokens occurred before.

    It costs nothing and helps where a text repeats parts of itself, as a summary or a corrected program does.

    Units: longest is the number of last tokens that must agree; fewer are tried when they have not occurred.
    Source: Saxena 2023, "Prompt Lookup Decoding".
    Example:
        >>> PromptLookup(2).guess(0, [5, 6, 7, 8, 5, 6], 2)
        [7, 8]
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def guess(self, slot: int, ids: Sequence[int], n: int) -> list[int]:
        """What followed the last occurrence."""
        text = list(ids)
        for length in range(min(self._longest, len(text) - 1), 0, -1):
            ending = text[-length:]
            for start in range(len(text) - length - 1, -1, -1):
                if text[start : start + length] == ending:
                    return text[start + length : start + length + n]
        return []


class DraftModel:
    """Guess with a smaller model of the same tokenizer, always its most likely token.

    Raises: ConfigError when its vocabulary is smaller than that of the model, or another tokenizer's.
    Source: Leviathan et al. 2023; Chen et al. 2023.
    """

    def __init__(self, model: GPTModel, *, of: GPTModel, n_slots: int, capacity: int) -> None:
        if model.config.vocab_size != of.config.vocab_size:
            raise ConfigError(
                f"a draft model must have the vocabulary of the model, got {model.config.vocab_size:,} and "
                f"{of.config.vocab_size:,} ids; use a smaller model trained with the same tokenizer."
            )
        self._cache = KVCache(model.config, n_slots, capacity=min(capacity, model.config.context_length))
        self._forward = build_forward(model, self._cache)
        self._held: list[list[int]] = [[] for _ in range(n_slots)]

    def guess(self, slot: int, ids: Sequence[int], n: int) -> list[int]:
        """The n most likely tokens one after the other; none when the text exceeds the draft model's context."""
        n = min(n, self._cache.capacity - len(ids))
        if n < 1:
            return []
        held = self._held[slot]
        n_kept = min(n_common(held, ids), len(ids) - 1)
        self._cache.lengths[slot], self._held[slot] = n_kept, held[:n_kept]
        new, guessed = list(ids[n_kept:]), list[int]()
        while len(guessed) < n:
            [scores] = self._forward([Work(slot, new, 1)])
            assert scores is not None
            best = int(scores.logits[-1].argmax()) if scores.best is None else scores.best[0]
            guessed.append(best)
            new = [best]
        self._held[slot] = [*ids, *guessed[:-1]]
        return guessed

    def close(self) -> None:
        """Free the cache and the threads."""
        self._forward.close()
        self._cache.keys = self._cache.values = None


def check_same_tokenizer(draft: Tokenizer, own: Tokenizer) -> None:
    """Check that a draft model guesses in the model's tokens.

    Raises: ConfigError.
    """
    if draft.fingerprint != own.fingerprint:
        raise ConfigError(
            "a draft model must have the tokenizer of the model, got another one; use a smaller model trained with the "
            "same tokenizer."
        )


def n_common(ids: Sequence[int], others: Sequence[int]) -> int:
    """Length of the common beginning of two lists of ids."""
    n = min(len(ids), len(others))
    if ids[:n] == others[:n]:
        return n
    return next(i for i in range(n) if ids[i] != others[i])
