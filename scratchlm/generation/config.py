"""Settings for text generation: the choice of each next token, and the end of a text."""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from scratchlm.core.errors import ConfigError

# name, smallest value
WHOLE_NUMBERS = (
    ("max_new_tokens", 0),
    ("min_new_tokens", 0),
    ("top_k", 1),
    ("penalty_window", 1),
    ("no_repeat_ngram", 1),
    ("dry_allowed_length", 1),
    ("start_id", 0),
    ("seed", 0),
    ("best_of", 1),
    ("n_best", 1),
    ("num_beam_groups", 1),
    ("prompt_lookup", 1),
    ("draft_tokens", 1),
    ("attention_sinks", 0),
)
# name, smallest value, largest value, is the smallest allowed
REAL_NUMBERS = (
    ("temperature", 0.0, math.inf, True),
    ("top_p", 0.0, 1.0, False),
    ("min_p", 0.0, 1.0, False),
    ("typical_p", 0.0, 1.0, False),
    ("epsilon_cutoff", 0.0, 1.0, False),
    ("eta_cutoff", 0.0, 1.0, False),
    ("top_n_sigma", 0.0, math.inf, False),
    ("mirostat_tau", 0.0, math.inf, False),
    ("mirostat_eta", 0.0, math.inf, False),
    ("repetition_penalty", 0.0, math.inf, False),
    ("presence_penalty", -math.inf, math.inf, False),
    ("frequency_penalty", -math.inf, math.inf, False),
    ("dry_multiplier", 0.0, math.inf, False),
    ("dry_base", 1.0, math.inf, True),
    ("penalty_alpha", 0.0, 1.0, True),
    ("diversity_penalty", 0.0, math.inf, False),
)
LARGEST = 1e30  # of any real number: sums and products with scores stay finite in float32
LISTS_OF_IDS = ("stop_ids", "banned_ids", "forced_ids")
LISTS_OF_TEXTS = ("stop_texts", "dry_breakers", "choices")
TRUNCATIONS = ("top_n_sigma", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
SAMPLING = (*TRUNCATIONS, "mirostat_tau", "seed")  # settings without effect when nothing is drawn
CONSTRAINTS = ("regex", "choices", "json_schema")
BEAM_SETTINGS = ("num_beam_groups", "diversity_penalty", "early_stopping", "n_best")
SPECULATION = ("prompt_lookup", "draft_tokens")
# A setting, and those that have no effect without it.
IDLE_WITHOUT = {
    "mirostat_tau": ("mirostat_eta",),
    "dry_multiplier": ("dry_base", "dry_allowed_length", "dry_breakers"),
    "prompt_lookup": ("draft_tokens",),
}
# Settings that cannot be combined: each of the first with each of the second.
CONTRADICTIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("mirostat_tau",), TRUNCATIONS),
    (CONSTRAINTS, ("forced_ids", "min_new_tokens")),
    (("regex",), ("choices", "json_schema")),
    (("choices",), ("json_schema",)),
    (("penalty_alpha",), (*(n for n in SAMPLING if n != "top_k"), "best_of", *SPECULATION)),
    (("best_of",), BEAM_SETTINGS[:3]),
    (("attention_sinks",), ("use_cache", "penalty_alpha")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodingSettings:
    """How each next token is chosen; these are flags of `scratchlm generate`, and their comments its help texts."""

    temperature: float = 0.0  # 0 takes the most likely token; 1 samples from the model's distribution
    top_k: int | None = None  # sample from the k most likely tokens only
    top_p: float | None = None  # sample from the fewest tokens whose total probability reaches p
    min_p: float | None = None  # sample from tokens with at least this fraction of the top probability
    typical_p: float | None = None  # sample from the most typical tokens, up to this total probability
    epsilon_cutoff: float | None = None  # sample from tokens with at least this probability
    eta_cutoff: float | None = None  # like epsilon_cutoff, with a limit that falls for a flat distribution
    top_n_sigma: float | None = None  # sample from scores within this many standard deviations of the best
    mirostat_tau: float | None = None  # Mirostat: keep the surprise near this number of bits per token
    mirostat_eta: float = 0.1  # Mirostat: how fast it adapts

    repetition_penalty: float | None = None  # above 1 makes tokens that already occurred less likely
    presence_penalty: float | None = None  # subtracted from the score of every token generated before
    frequency_penalty: float | None = None  # subtracted for each time that a token was generated before
    penalty_window: int | None = None  # these three penalties regard only so many of the last tokens
    no_repeat_ngram: int | None = None  # no sequence of this many tokens occurs twice
    dry_multiplier: float | None = None  # DRY: penalty of tokens that continue a repeated sequence
    dry_base: float = 1.75  # DRY: growth of the penalty with the length of the sequence
    dry_allowed_length: int = 2  # DRY: length of sequences that may repeat without penalty
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")  # DRY: texts at which a sequence ends
    banned_ids: tuple[int, ...] = ()  # ids of tokens that are never chosen
    forced_ids: tuple[int, ...] = ()  # ids of the first new tokens

    regex: str | None = None  # the new text must match this regular expression
    choices: tuple[str, ...] = ()  # the new text must be one of these

    num_beam_groups: int | None = None  # diverse beam search: number of groups of beams
    diversity_penalty: float | None = None  # diverse beam search: penalty of tokens taken by earlier groups
    best_of: int | None = None  # draw this many texts and show the most likely one
    n_best: int | None = None  # number of texts to show of beam search or best_of
    penalty_alpha: float | None = None  # contrastive search, with top_k: weight of the similarity penalty
    draft_tokens: int | None = None  # number of tokens to guess at a time
    prompt_lookup: int | None = None  # guess what followed an earlier copy of the last tokens, up to so many


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationConfig(DecodingSettings):
    """Settings of one call of `generate`. None or an empty list switches a step off.

    The steps change the scores in this order, which is that of transformers where both have a step.
    Rules: logit_bias, repetition_penalty, presence_penalty and frequency_penalty, dry_multiplier, no_repeat_ngram,
    min_new_tokens, the constraint (regex, choices or json_schema), forced_ids, banned_ids.
    Then, only when a token is drawn: temperature, top_n_sigma, top_k, top_p, min_p, typical_p, epsilon_cutoff,
    eta_cutoff, or temperature and mirostat_tau.

    Raises: ConfigError naming the field, its value and the values that are allowed, or two fields that exclude each
        other.
    Example:
        >>> GenerationConfig(max_new_tokens=20, temperature=0.8, top_k=50, seed=1).is_greedy
        False
    """

    max_new_tokens: int = 50  # maximum number of tokens to generate for each prompt
    min_new_tokens: int = 0  # a stop id is excluded before this number of new tokens
    logit_bias: dict[int, float] = field(default_factory=dict, hash=False)  # id -> number added to its score
    json_schema: str | dict[str, Any] | None = None  # the new text must be JSON of this schema; kept as text
    early_stopping: bool | Literal["never"] = False  # beam search: True stops once enough beams have ended

    stop_ids: tuple[int, ...] = ()  # a text ends before one of these ids, e.g. end-of-text
    stop_texts: tuple[str, ...] = ()  # a text ends before one of these texts
    start_id: int | None = None  # first token for an empty prompt; None makes an empty prompt an error
    overflow: Literal["crop", "error"] = "crop"  # a prompt longer than the context: keep its end, or fail
    use_cache: bool = True  # keep keys and values, so that each step processes the new token only
    attention_sinks: int | None = None  # beyond the context, slide, but keep so many first tokens
    seed: int | None = None  # same seed and prompt: same tokens, in any batch

    def __post_init__(self) -> None:
        for name, minimum in WHOLE_NUMBERS:
            if getattr(self, name) is not None:
                _check_whole_number(name, getattr(self, name), minimum)
        for name, lowest, highest, is_lowest_allowed in REAL_NUMBERS:
            if getattr(self, name) is not None:
                _check_real_number(name, getattr(self, name), lowest, highest, is_lowest_allowed)
        for name in LISTS_OF_IDS:
            for token_id in getattr(self, name):
                _check_whole_number(f"each of {name}", token_id, 0)
        for name in LISTS_OF_TEXTS:
            _check_texts(name, getattr(self, name))
        for token_id, bias in self.logit_bias.items():
            _check_whole_number("each id of logit_bias", token_id, 0)
            _check_real_number(f"logit_bias of id {token_id}", bias, -math.inf, math.inf, False)
        if self.overflow not in ("crop", "error"):
            raise ConfigError(f"overflow must be crop or error, got {self.overflow!r}; choose one of them.")
        if self.early_stopping not in (True, False, "never"):
            raise ConfigError(
                f"early_stopping must be True, False or 'never', got {self.early_stopping!r}; choose one of them."
            )
        self._keep_schema_as_text()
        self._check_combinations()

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always chosen, without randomness."""
        return self.temperature == 0

    def given(self, *names: str) -> dict[str, Any]:
        """The values of those settings that differ from their default."""
        defaults = _defaults()
        return {name: value for name in names if (value := getattr(self, name)) != defaults[name]}

    def _keep_schema_as_text(self) -> None:
        schema = self.json_schema
        if schema is None:
            return
        try:
            parsed = json.loads(schema) if isinstance(schema, str) else schema
            text = json.dumps(parsed)
        except (TypeError, ValueError) as cause:
            raise ConfigError(f"json_schema must be a JSON object, got {schema!r:.80} ({cause}).") from cause
        if not isinstance(parsed, dict):
            raise ConfigError(f"json_schema must be a JSON object, got {text:.80}; write {{}} for any JSON.")
        object.__setattr__(self, "json_schema", text)

    def _check_combinations(self) -> None:
        for names, others in CONTRADICTIONS:
            first, second = self.given(*names), self.given(*others)
            for (name, value), (other, other_value) in zip(first.items(), second.items()):
                raise ConfigError(
                    f"{name} and {other} cannot be combined, got {name}={value!r} and {other}={other_value!r}; "
                    "leave one of them out."
                )
        if self.is_greedy:
            for name in ("mirostat_tau", "best_of"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name} needs a temperature above 0, got {name}={getattr(self, name)} and temperature=0; "
                        "set the temperature to 1, or leave it out."
                    )
        elif self.penalty_alpha is not None:
            raise ConfigError(
                f"contrastive search does not sample, got penalty_alpha={self.penalty_alpha} and "
                f"temperature={self.temperature}; leave one of them out."
            )
        if self.penalty_alpha is not None and self.top_k is None:
            raise ConfigError(
                f"penalty_alpha needs top_k, the number of candidates, got penalty_alpha={self.penalty_alpha} and no "
                "top_k; 4 is usual."
            )
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"min_new_tokens must be at most max_new_tokens, got {self.min_new_tokens} and {self.max_new_tokens}; "
                "lower it."
            )
        both = sorted({*self.banned_ids} & {*self.forced_ids})
        if both:
            raise ConfigError(f"banned_ids and forced_ids must not share ids, got {both} in both; drop them.")
        if self.best_of is not None and (self.n_best or 1) > self.best_of:
            raise ConfigError(
                f"n_best must be at most best_of, got {self.n_best} and {self.best_of}; lower it."
            )


@functools.cache
def _defaults() -> dict[str, Any]:
    """Every setting's default: an engine asks for it several times for each text."""
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(GenerationConfig)
    }


def _check_whole_number(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be a whole number of at least {minimum}, got {value!r}; change it.")


def _check_real_number(
    name: str, value: object, minimum: float, maximum: float, is_minimum_allowed: bool
) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    is_inside = is_number and minimum <= value <= maximum  # type: ignore[operator]
    if not is_inside or (value == minimum and not is_minimum_allowed):
        lower = f" at least {minimum:g}" if is_minimum_allowed else f" above {minimum:g}"
        lower = "" if minimum == -math.inf else lower
        upper = "" if maximum == math.inf else f" and at most {maximum:g}"
        raise ConfigError(f"{name} must be a finite number{lower}{upper}, got {value!r}; change it.")
    if abs(value) > LARGEST:  # type: ignore[arg-type]
        raise ConfigError(f"{name} must not be beyond {LARGEST:g}, got {value!r}; choose a smaller one.")


def _check_texts(name: str, texts: object) -> None:
    if not isinstance(texts, (tuple, list)) or not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(
            f"{name} must be a tuple of texts that are not empty, got {texts!r}; "
            'write ("###",) for a single one.'
        )
