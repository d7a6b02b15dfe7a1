"""Choose the next token of one text: the rules on its ids, the sampling filters, and the draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.samplers import (
    apply_temperature,
    check_scores,
    draw,
    draw_as_torch,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
)
from scratchlm.generation.trace import RowTrace

Step = Callable[[Tensor], Tensor]  # scores (V,) -> scores (V,), a new tensor; an excluded token has -inf


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A chosen token."""

    id: int
    prob: float  # the model's own probability of it, before every step of the chain


class TokenChooser:
    """The choice of each next token of one text: its settings, its random generator and what it has seen so far.

    A text has its own object, so that its tokens never depend on those of other texts. Each score passes through the
    rules, which depend on the ids so far, and in sampling through the filters; both in the order that
    `GenerationConfig` documents. With draws_as_torch the draw is that of `torch.multinomial`, as in the book's loop.
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
    ) -> None:
        self.finished = False  # a constraint is complete, and only the end may follow
        self._config = config
        self._generator = generator
        self._draw = draw_as_torch if draws_as_torch else draw
        self._ids = list(prompt)
        self._forbidden = torch.tensor(forbidden_ids, dtype=torch.long)
        self._trace = trace
        self._rules = self._make_rules()
        self._filters = [] if config.is_greedy else _make_filters(config)

    @property
    def is_argmax(self) -> bool:
        """Whether the choice is always the allowed token with the highest score, so that nothing else is computed."""
        return self._config.is_greedy and not self._rules and self._trace is None

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
        scores = self._after_chain(self._allowed(logits))
        if self._config.is_greedy:
            return torch.zeros_like(scores).index_fill_(0, scores.argmax(), 1.0)
        return scores.softmax(dim=-1)

    def took(self, token_id: int) -> None:
        """Advance the state by a token; `choose` does so itself."""
        self._ids.append(token_id)

    def _allowed(self, logits: Tensor) -> Tensor:
        """The scores with -inf at forbidden ids. Shapes: (V,) -> (V,)."""
        allowed = logits.index_fill(0, self._forbidden, -math.inf) if len(self._forbidden) else logits
        check_scores(allowed)
        return allowed

    def _after_chain(self, scores: Tensor) -> Tensor:
        """Apply all steps. Shapes: (V,) -> (V,)."""
        if self._trace is not None:
            self._trace.begin(scores)
        for name, step in (*self._rules, *self._filters):
            scores = step(scores)
            if self._trace is not None:
                self._trace.after(name, scores)
        check_scores(scores)
        return scores

    def _make_rules(self) -> list[tuple[str, Step]]:
        """The steps that depend on the ids so far."""
        rules: list[tuple[str, Step]] = []
        penalty = self._config.repetition_penalty
        if penalty is not None:
            rules.append(
                ("repetition_penalty", lambda s: penalize_repetition(s[None], [self._ids], penalty)[0])
            )
        return rules


def _make_filters(config: GenerationConfig) -> list[tuple[str, Step]]:
    """The steps of sampling."""
    c = config
    filters: list[tuple[str, Step]] = [("temperature", lambda s: apply_temperature(s, c.temperature))]
    if (k := c.top_k) is not None:
        filters.append(("top_k", lambda s: keep_top_k(s, k)))
    if (top_p := c.top_p) is not None:
        filters.append(("top_p", lambda s: keep_top_p(s, top_p)))
    if (min_p := c.min_p) is not None:
        filters.append(("min_p", lambda s: keep_min_p(s, min_p)))
    return filters
