"""How to choose each next token, and when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scratchlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationConfig:
    """Settings of one call of `generate`. None switches a filter off.

    The filters apply in this order: repetition_penalty, temperature, top_k, top_p, min_p.

    Raises: ConfigError naming the field, its value and what would do.
    Example:
        >>> GenerationConfig(max_new_tokens=20, temperature=0.8, top_k=50, seed=1).is_greedy
        False
    """

    max_new_tokens: int = 50  # per row; a row may stop earlier
    temperature: float = (
        0.0  # 0: always the likeliest token; 1: the model's own odds; above: more adventurous
    )
    top_k: int | None = None  # choose among this many likeliest tokens
    top_p: float | None = None  # choose among the fewest tokens that together have this probability
    min_p: float | None = None  # choose among tokens at least this fraction as likely as the likeliest
    repetition_penalty: float | None = None  # above 1 makes tokens that are already there less likely
    stop_ids: tuple[int, ...] = ()  # a row ends before one of these, e.g. end-of-text
    stop_texts: tuple[str, ...] = ()  # a row ends at one of these; it and what follows is not shown
    start_id: int | None = None  # what an empty prompt starts from, e.g. end-of-text; None refuses it
    overflow: Literal["crop", "error"] = "crop"  # a prompt beyond the context: keep its end, or refuse it
    use_cache: bool = True  # remember keys and values instead of reading everything again for each token
    seed: int | None = None  # same seed, same prompt: same tokens, whatever else is in the batch

    def __post_init__(self) -> None:
        _check_int("max_new_tokens", self.max_new_tokens, at_least=0)
        _check_float("temperature", self.temperature, low=0.0, high=math.inf, low_allowed=True)
        if self.top_k is not None:
            _check_int("top_k", self.top_k, at_least=1)
        if self.top_p is not None:
            _check_float("top_p", self.top_p, low=0.0, high=1.0)
        if self.min_p is not None:
            _check_float("min_p", self.min_p, low=0.0, high=1.0)
        if self.repetition_penalty is not None:
            _check_float("repetition_penalty", self.repetition_penalty, low=0.0, high=math.inf)
        for stop_id in self.stop_ids:
            _check_int("each of stop_ids", stop_id, at_least=0)
        _check_stop_texts(self.stop_texts)
        if self.start_id is not None:
            _check_int("start_id", self.start_id, at_least=0)
        if self.overflow not in ("crop", "error"):
            raise ConfigError(f"overflow must be crop or error, got {self.overflow!r}; choose one of them.")
        if self.seed is not None:
            _check_int("seed", self.seed, at_least=0)

    @property
    def is_greedy(self) -> bool:
        """Whether it always takes the likeliest token, so that no randomness is used."""
        return self.temperature == 0


def _check_int(name: str, value: object, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigError(f"{name} must be a whole number of at least {at_least}, got {value!r}; change it.")


def _check_float(name: str, value: object, *, low: float, high: float, low_allowed: bool = False) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= float(value) <= high or math.isinf(float(value)):  # type: ignore[arg-type]
        is_fine = False
    else:
        is_fine = low_allowed or float(value) != low  # type: ignore[arg-type]
    if not is_fine:
        lower = f"at least {low:g}" if low_allowed else f"above {low:g}"
        upper = "" if math.isinf(high) else f" and at most {high:g}"
        raise ConfigError(f"{name} must be a finite number {lower}{upper}, got {value!r}; change it.")


def _check_stop_texts(stop_texts: object) -> None:
    is_fine = isinstance(stop_texts, (tuple, list)) and all(isinstance(t, str) and t for t in stop_texts)
    if not is_fine:
        raise ConfigError(
            f"stop_texts must be a tuple of texts that are not empty, got {stop_texts!r}; "
            'write ("###",) for a single one.'
        )
