"""Best-of-n: draw several texts and keep the one that the model finds most likely."""

import dataclasses
import math
from collections.abc import Sequence

from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.beam import Beam
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate
from scratchlm.generation.requests import TokenEvent
from scratchlm.model.gpt import GPTModel


def best_of(
    model: GPTModel,
    prompt: Sequence[int],
    config: GenerationConfig,
    *,
    tokenizer: Tokenizer | None = None,
) -> list[Beam]:
    """Draw `config.best_of` continuations of a prompt and return the `n_best` most likely ones, best first.

    They are ranked by the mean log-probability of their tokens, a stop id included: the model's own probabilities,
    before temperature and filters. All are computed together, and the prompt only once.
    Units: log_prob and score are nats; score is the mean for each token.
    Raises: ConfigError without best_of; otherwise as `generate`.
    Source: best_of of OpenAI's API.
    """
    if config.best_of is None:
        raise ConfigError("best_of needs the number of texts to draw, got best_of=None; 4 is usual.")
    drawn = dataclasses.replace(config, best_of=None, n_best=None)
    events: list[list[TokenEvent]] = [[] for _ in range(config.best_of)]
    prompts = [prompt] * config.best_of
    for event in generate(model, prompts, drawn, tokenizer=tokenizer):
        events[event.row].append(event)
    texts = sorted(map(_text, events), key=lambda text: text.score, reverse=True)
    return texts[: config.n_best or 1]


def _text(events: list[TokenEvent]) -> Beam:
    """The text of one row's events. `prob` is above 0, since the token was drawn."""
    log_prob = math.fsum(math.log(max(event.prob, 1e-45)) for event in events)
    return Beam(
        ids=[event.id for event in events if event.id is not None],
        log_prob=log_prob,
        score=log_prob / max(len(events), 1),
        text="".join(event.text for event in events),
        finished_by=(events[-1].finished_by if events else None) or "length",
    )
