"""Text generation: score the next token, choose one, append it, and repeat, for several prompts at once."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.engine import Engine
from scratchlm.generation.requests import TokenEvent, prompt_ids
from scratchlm.generation.stopping import FinishedBy
from scratchlm.generation.trace import RowTrace
from scratchlm.model.gpt import GPTModel

N_SLOTS = 64  # texts that grow at the same time


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """The continuation of one prompt."""

    ids: list[int]  # new tokens, including those of a stop text, but not a stop id
    probs: list[float]  # the model's own probability of each
    text: str  # "" without a tokenizer; ends before a stop text
    finished_by: FinishedBy


def generate(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    tokenizer: Tokenizer | None = None,
    generator: torch.Generator | None = None,
    n_slots: int = N_SLOTS,
    draft: GPTModel | None = None,
    traces: Sequence[RowTrace] | None = None,
) -> Iterator[TokenEvent]:
    """Continue several prompts at once, yielding each token as soon as it is chosen.

    Prompts may differ in length. Rows end one by one, and finished rows are no longer computed. With
    `config.seed` every row draws from its own random generator, seeded by the seed and the prompt: it gets
    the same tokens alone as in any batch, up to rounding in the model, and equal prompts in one batch get
    different ones. With `generator` all rows draw from it in turn. Without either, a seed is drawn from
    torch's global generator.

    Once prompt and new tokens fill the context, the oldest tokens are dropped, and each further token costs a pass over
    the whole context. Dropout is off, and the model's training mode is restored afterwards. Ids for which the tokenizer
    has no token are never chosen. `draft` is a smaller model that guesses tokens; it changes the speed only.
    `traces`, one for each prompt, record how each token was chosen.

    Raises: DataError for an empty prompt without `start_id`, an id outside the vocabulary, or with
        `overflow="error"` a prompt longer than the context; ConfigError for stop texts without a tokenizer, or a seed
        together with a generator. All are raised by the call, before the first event.
    """
    if generator is None and config.seed is None and not config.is_greedy:
        config = dataclasses.replace(config, seed=int(torch.randint(2**62, ())))
    rows = [prompt_ids(i, prompt) for i, prompt in enumerate(prompts)]
    longest = max(map(len, rows), default=0) + config.max_new_tokens
    engine = Engine(model, tokenizer, n_slots=min(len(rows) or 1, n_slots), capacity=longest + 1, draft=draft)
    n_before: Counter[tuple[int, ...]] = Counter()  # of each prompt, among the earlier ones
    for i, row in enumerate(rows):
        trace = None if traces is None else traces[i]
        engine.add(row, config, generator=generator, copy=n_before[tuple(row)], trace=trace)
        n_before[tuple(row)] += 1
    return _events(engine, at_end=engine.close)


def generate_on(
    engine: Engine, prompt: Sequence[int], config: GenerationConfig, *, tokenizer: Tokenizer | None = None
) -> Iterator[TokenEvent]:
    """Continue one prompt on an engine that is kept, so that a later prompt that begins alike reads only what is new.

    The engine must have no other work. Closing the iterator ends the text.
    Raises: as `Engine.add`, with the first event.
    """
    number = engine.add(prompt, config, tokenizer=tokenizer)
    yield from _events(engine, at_end=lambda: engine.cancel(number))


def _events(engine: Engine, *, at_end: Callable[[], None]) -> Iterator[TokenEvent]:
    """All events of an engine's texts; an error ends all of them."""
    try:
        while engine.has_work:
            for event in engine.step():
                if event.error is not None:
                    raise event.error
                yield event
    finally:
        at_end()


def generate_ids(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    tokenizer: Tokenizer | None = None,
    generator: torch.Generator | None = None,
    draft: GPTModel | None = None,
) -> list[Generated]:
    """Continue several prompts and collect the events of `generate`: one result per prompt, in their order.

    Raises: as `generate`.
    Example:
        >>> from scratchlm.model import GPTConfig
        >>> model = GPTModel(GPTConfig(vocab_size=10, context_length=8, emb_dim=4, n_heads=2, n_layers=1))
        >>> results = generate_ids(model, [[1, 2], [3]], GenerationConfig(max_new_tokens=5))
        >>> [len(result.ids) for result in results]
        [5, 5]
    """
    events: list[list[TokenEvent]] = [[] for _ in prompts]
    for event in generate(model, prompts, config, tokenizer=tokenizer, generator=generator, draft=draft):
        events[event.row].append(event)
    return [
        Generated(
            ids=[event.id for event in row if event.id is not None],
            probs=[event.prob for event in row if event.id is not None],
            text="".join(event.text for event in row),
            finished_by=(row[-1].finished_by if row else None) or "length",  # no events: max_new_tokens is 0
        )
        for row in events
    ]


def generate_texts(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    tokenizer: Tokenizer,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[str]:
    """Continue many prompts, batch_size of them at a time; yields the new texts in the order of the prompts.

    Each comes as soon as it and all before it are finished. Units: progress(done, total) counts finished prompts.
    Raises: ConfigError for a batch size below 1; otherwise as `generate`.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}; 16 is the default.")
    texts = [""] * len(prompts)
    finished: set[int] = set()
    n_yielded = 0
    for event in generate(model, prompts, config, tokenizer=tokenizer, n_slots=batch_size):
        texts[event.row] += event.text
        if event.finished_by is None:
            continue
        finished.add(event.row)
        if progress is not None:
            progress(len(finished), len(prompts))
        while n_yielded in finished:
            yield texts[n_yielded]
            n_yielded += 1
    yield from texts[n_yielded:]  # all of them if max_new_tokens is 0
