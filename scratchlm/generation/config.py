"""Settings for text generation: the choice of each next token, and the end of a text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scratchlm.core.errors import ConfigError

# name, smallest value
WHOLE_NUMBERS = (("max_new_tokens", 0), ("top_k", 1), ("start_id", 0), ("seed", 0))
# name, largest value, is 0 allowed
REAL_NUMBERS = (
    ("temperature", math.inf, True),
    ("top_p", 1.0, False),
    ("min_p", 1.0, False),
    ("repetition_penalty", math.inf, False),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationConfig:
    """Settings of one call of `generate`. None switches a filter off.

    The filters apply in this order: repetition_penalty, temperature, top_k, top_p, min_p.

    Raises: ConfigError naming the field, its value and the values that are allowed.
    Example:
        >>> GenerationConfig(max_new_tokens=20, temperature=0.8, top_k=50, seed=1).is_greedy
        False
    """

    max_new_tokens: int = 50  # maximum number of tokens to generate for each prompt
    temperature: float = 0.0  # 0: the most likely token; 1: the model's own probabilities; above: flatter
    top_k: int | None = None  # sample from the k most likely tokens
    top_p: float | None = None  # sample from the smallest set of tokens with this total probability
    min_p: float | None = None  # sample from tokens at least this fraction as likely as the most likely one
    repetition_penalty: float | None = None  # above 1: tokens already in the text become less likely
    stop_ids: tuple[int, ...] = ()  # a text ends before one of these ids, e.g. end-of-text
    stop_texts: tuple[str, ...] = ()  # a text ends before one of these texts
    start_id: int | None = None  # first token for an empty prompt; None makes an empty prompt an error
    overflow: Literal["crop", "error"] = "crop"  # a prompt longer than the context: keep its end, or fail
    use_cache: bool = True  # keep keys and values, so that each step processes the new token only
    seed: int | None = None  # same seed and prompt: same tokens, in any batch

    def __post_init__(self) -> None:
        for name, minimum in WHOLE_NUMBERS:
            if getattr(self, name) is not None:
                _check_whole_number(name, getattr(self, name), minimum)
        for name, maximum, is_zero_allowed in REAL_NUMBERS:
            if getattr(self, name) is not None:
                _check_real_number(name, getattr(self, name), maximum, is_zero_allowed=is_zero_allowed)
        for stop_id in self.stop_ids:
            _check_whole_number("each of stop_ids", stop_id, 0)
        stop_texts = self.stop_texts
        if not isinstance(stop_texts, (tuple, list)) or not all(isinstance(t, str) and t for t in stop_texts):
            raise ConfigError(
                f"stop_texts must be a tuple of texts that are not empty, got {stop_texts!r}; "
                'write ("###",) for a single one.'
            )
        if self.overflow not in ("crop", "error"):
            raise ConfigError(f"overflow must be crop or error, got {self.overflow!r}; choose one of them.")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always chosen, without randomness."""
        return self.temperature == 0


def _check_whole_number(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be a whole number of at least {minimum}, got {value!r}; change it.")


def _check_real_number(name: str, value: object, maximum: float, *, is_zero_allowed: bool) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 <= value <= maximum or (value == 0 and not is_zero_allowed):  # type: ignore[operator]
        lower = "at least 0" if is_zero_allowed else "above 0"
        upper = "" if maximum == math.inf else f" and at most {maximum:g}"
        raise ConfigError(f"{name} must be a finite number {lower}{upper}, got {value!r}; change it.")
