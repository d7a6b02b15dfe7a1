"""Choose the next token of one text: the rules on its ids, the sampling steps, and the draw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import BEAM_SETTINGS, GenerationConfig
from scratchlm.generation.constraints import constraint_of
from scratchlm.generation.penalties import (
    add_bias,
    allow_only,
    ban_repeated_ngrams,
    exclude,
    penalize_counts,
    penalize_loops,
    penalize_repetition,
)
from scratchlm.generation.samplers import (
    Step,
    check_scores,
    draw,
    draw_as_torch,
    keep_below_surprise,
    sampling_steps,
)
from scratchlm.generation.token_bytes import ids_that_contain
from scratchlm.generation.trace import RowTrace


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A chosen token."""

    id: int
    prob: float  # the model's own probability of it, before every step of the chain


class TokenChooser:
    """The choice of each next token of one text: its settings, its random generator and its tokens so far.

    A text has its own object, so that its tokens never depend on those of other texts. The scores pass through the
    rules, which depend on the tokens so far, and when a token is drawn through the sampling steps; the order is that of
    `GenerationConfig`. With draws_as_torch the draw is that of `torch.multinomial`, as in the book's loop.
    Raises: ConfigError for settings of decoders that compare whole texts, ids outside a vocabulary of `vocab_size`, or
        a constraint that is invalid or has no tokenizer; MissingDependencyError for a constraint without llguidance.
    """

    def __init__(
        self,
        config: GenerationConfig,
        prompt: Sequence[int],
        *,
        generator: torch.Generator | None,
        draws_as_torch: bool = False,
        tokenizer: Tokenizer | None,
        forbidden_ids: Sequence[int] = (),
        trace: RowTrace | None = None,
        vocab_size: int | None = None,
    ) -> None:
        _check_settings(config, vocab_size)
        if gaps := sorted({*config.forced_ids} & {*forbidden_ids}):
            raise ConfigError(
                f"forced_ids must be ids of tokens, got {gaps[0]}, for which the tokenizer has none; choose another."
            )
        self._config = config
        self._generator = generator
        self._draw = draw_as_torch if draws_as_torch else draw
        self._ids = list(prompt)
        self._n_prompt = len(prompt)
        self._forbidden = torch.tensor(forbidden_ids, dtype=torch.long)
        self._stop_ids = torch.tensor(config.stop_ids, dtype=torch.long)
        self._trace = trace
        self._constraint = constraint_of(config, tokenizer)
        self._surprise_limit = 2 * (config.mirostat_tau or 0.0)  # bits; Mirostat's mu
        self._surprises: Tensor | None = None  # (V,), of the last step
        self._breakers: frozenset[int] = frozenset()
        if config.dry_multiplier is not None and tokenizer is not None:
            self._breakers = ids_that_contain(tokenizer, config.dry_breakers)
        self._rules = self._make_rules()
        self._sampling = sampling_steps(config)
        if config.mirostat_tau is not None:
            self._sampling.append(("mirostat_tau", self._limit_surprise))

    @property
    def is_argmax(self) -> bool:
        """Whether the choice is always the allowed token with the highest score, so that nothing else is computed."""
        return self._config.is_greedy and not self._rules and self._trace is None

    @property
    def finished(self) -> bool:
        """Whether a constraint is complete, so that only the end may follow."""
        return self._constraint is not None and self._constraint.is_complete

    def choose(self, logits: Tensor) -> TokenChoice:
        """Choose a token and advance the state by it.

        Shapes: logits (V,), the model's scores, float32 on the CPU.
        Raises: DataError for NaN or +inf in the scores, or when every token is excluded.
        """
        allowed = self._allowed(logits)  # (V,)
        scores = self._after_chain(allowed)  # (V,)
        token_id = int(scores.argmax()) if self._config.is_greedy else self._draw(scores, self._generator)
        prob = float(allowed.softmax(dim=-1)[token_id])
        if self._trace is not None:
            self._trace.chose(token_id)
        self.took(token_id)
        return TokenChoice(token_id, prob)

    def distribution(self, logits: Tensor) -> Tensor:
        """The probabilities with which `choose` would choose each token; the state stays as it is.

        Shapes: logits (V,) -> (V,).
        Raises: DataError as `choose`.
        """
        scores = self.scores(logits)
        if self._config.is_greedy:
            return torch.zeros_like(scores).index_fill_(0, scores.argmax(), 1.0)
        return scores.softmax(dim=-1)

    def ruled_log_probs(self, logits: Tensor) -> Tensor:
        """The log-probabilities of the next token after the rules, as beam search adds them up; in nats.

        The rules change log-probabilities, not scores, as in transformers.
        Shapes: logits (V,) -> (V,).
        Raises: DataError as `choose`.
        """
        log_probs = self._allowed(logits).log_softmax(dim=-1)
        for _, step in self._rules:
            log_probs = step(log_probs)
        return log_probs

    def scores(self, logits: Tensor) -> Tensor:
        """The scores after all steps, with -inf at excluded tokens; the state stays as it is.

        Shapes: logits (V,) -> (V,).
        Raises: DataError as `choose`.
        """
        return self._after_chain(self._allowed(logits))

    def took(self, token_id: int) -> None:
        """Advance the state by a token; `choose` does so itself."""
        self._ids.append(token_id)
        if self._constraint is not None:
            self._constraint.took(token_id)
        if self._config.mirostat_tau is not None and self._surprises is not None:
            error = float(self._surprises[token_id]) - self._config.mirostat_tau
            self._surprise_limit -= self._config.mirostat_eta * error

    def _allowed(self, logits: Tensor) -> Tensor:
        """The scores with -inf at forbidden ids. Shapes: (V,) -> (V,)."""
        allowed = exclude(logits, self._forbidden) if len(self._forbidden) else logits
        check_scores(allowed)
        return allowed

    def _after_chain(self, scores: Tensor) -> Tensor:
        """Apply all steps. Shapes: (V,) -> (V,)."""
        if self._trace is not None:
            self._trace.begin(scores)
        for steps in (self._rules, self._sampling):
            for name, step in steps:
                scores = step(scores)
                if self._trace is not None:
                    self._trace.after(name, scores)
            if steps:
                check_scores(scores, cause=f"change {' or '.join(name for name, _ in steps)}")
        return scores

    def _make_rules(self) -> list[tuple[str, Step]]:
        """The steps that depend on the tokens so far, by name and in their order."""
        c = self._config
        rules: list[tuple[str, Step]] = []
        if c.logit_bias:
            rules.append(("logit_bias", lambda s: add_bias(s, c.logit_bias)))
        if (penalty := c.repetition_penalty) is not None:
            rules.append(
                ("repetition_penalty", lambda s: penalize_repetition(s, self._recent(self._ids), penalty))
            )
        if c.presence_penalty is not None or c.frequency_penalty is not None:
            rules.append(("presence_penalty, frequency_penalty", self._penalize_counts))
        if c.dry_multiplier is not None:
            rules.append(("dry_multiplier", self._penalize_loops))
        if (size := c.no_repeat_ngram) is not None:
            rules.append(("no_repeat_ngram", lambda s: ban_repeated_ngrams(s, self._ids, size)))
        if c.min_new_tokens > 0 and c.stop_ids:
            rules.append(("min_new_tokens", self._postpone_end))
        if (constraint := self._constraint) is not None:
            rules.append((constraint.name, constraint.keep_allowed))
        if c.forced_ids:
            rules.append(("forced_ids", self._force))
        if c.banned_ids:
            banned = torch.tensor(c.banned_ids, dtype=torch.long)
            rules.append(("banned_ids", lambda s: exclude(s, banned)))
        return rules

    @property
    def _n_new(self) -> int:
        return len(self._ids) - self._n_prompt

    def _recent(self, ids: list[int]) -> list[int]:
        return ids if self._config.penalty_window is None else ids[-self._config.penalty_window :]

    def _penalize_counts(self, scores: Tensor) -> Tensor:
        c = self._config
        return penalize_counts(
            scores,
            self._recent(self._ids[self._n_prompt :]),
            presence=c.presence_penalty or 0.0,
            frequency=c.frequency_penalty or 0.0,
        )

    def _penalize_loops(self, scores: Tensor) -> Tensor:
        c = self._config
        assert c.dry_multiplier is not None
        return penalize_loops(
            scores,
            self._ids,
            multiplier=c.dry_multiplier,
            base=c.dry_base,
            allowed_length=c.dry_allowed_length,
            breakers=self._breakers,
        )

    def _postpone_end(self, scores: Tensor) -> Tensor:
        is_early = self._n_new < self._config.min_new_tokens
        return exclude(scores, self._stop_ids) if is_early else scores

    def _force(self, scores: Tensor) -> Tensor:
        forced = self._config.forced_ids
        return allow_only(scores, forced[self._n_new]) if self._n_new < len(forced) else scores

    def _limit_surprise(self, scores: Tensor) -> Tensor:
        kept = keep_below_surprise(scores, self._surprise_limit)
        self._surprises = -kept.log_softmax(dim=-1) / math.log(2)
        return kept


def _check_settings(config: GenerationConfig, vocab_size: int | None) -> None:
    for name, value in config.given("best_of", "penalty_alpha", *BEAM_SETTINGS).items():
        where = {"best_of": "best_of", "penalty_alpha": "contrastive_search"}.get(name, "beam_search")
        raise ConfigError(
            f"{name} compares whole texts and cannot be used token by token, got {name}={value!r}; call {where}, or "
            "leave it out."
        )
    if vocab_size is None:
        return
    for name in ("banned_ids", "forced_ids", "logit_bias"):
        outside = [token_id for token_id in getattr(config, name) if token_id >= vocab_size]
        if outside:
            raise ConfigError(
                f"ids in {name} must be 0 to {vocab_size - 1}, got {outside[0]}; the model has no such token."
            )
