"""Text generation: score the next token, choose one, append it, and repeat."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.context import ContextWindow, ids_without_token
from scratchlm.generation.samplers import filter_logits, sample_next
from scratchlm.generation.stopping import FinishedBy, StopTextGate
from scratchlm.generation.text_stream import TextStream, stream_decoder
from scratchlm.model.gpt import GPTModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEvent:
    """A new token of a row, or the end of the row."""

    row: int  # index of the prompt
    id: int | None  # the new token; None at a stop id, which is not part of the result
    prob: float  # the model's own probability of that token, before temperature and filters
    text: str  # text that can be shown now; "" without a tokenizer, or while a stop text may be beginning
    finished_by: FinishedBy | None  # set on the row's last event


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
) -> Iterator[TokenEvent]:
    """Continue several prompts at once, yielding each token as soon as it is chosen.

    Prompts may differ in length. Rows end one by one, and finished rows are no longer computed. With
    `config.seed` every row draws from its own random generator, seeded by the seed and the prompt: it gets
    the same tokens alone as in any batch, up to rounding in the model, and equal prompts in one batch get
    different ones. With `generator` all rows draw from it in turn. Without either, a seed is drawn from
    torch's global generator.

    Once prompt and new tokens fill the context, the oldest tokens are dropped, and each further token costs a pass over
    the whole context. Dropout is off, and the model's training mode is restored afterwards. Ids for which the tokenizer
    has no token are never chosen.

    Raises: DataError for an empty prompt without `start_id`, an id outside the vocabulary, or with
        `overflow="error"` a prompt longer than the context; ConfigError for stop texts without a tokenizer, or a seed
        together with a generator. All are raised by the call, before the first event.
    """
    check_stop_texts(config, tokenizer)
    if config.seed is not None and generator is not None:
        raise ConfigError(
            f"randomness must come from one place, got seed={config.seed} and a generator; drop one."
        )
    checked = [checked_prompt(i, prompt, model, config) for i, prompt in enumerate(prompts)]
    generators = _row_generators(checked, config, generator)
    rows = [
        _Row(
            index=i,
            ids=ids,
            generator=generators[i],
            decoder=None if tokenizer is None else stream_decoder(tokenizer, after=list(prompts[i])),
            gate=StopTextGate(config.stop_texts),
        )
        for i, ids in enumerate(checked)
    ]
    forbidden_ids = ids_without_token(model, tokenizer, stop_ids=config.stop_ids)
    return _stream(model, rows, config, forbidden_ids)


def generate_ids(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    tokenizer: Tokenizer | None = None,
    generator: torch.Generator | None = None,
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
    for event in generate(model, prompts, config, tokenizer=tokenizer, generator=generator):
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
) -> list[str]:
    """Continue many prompts in batches of similar length; returns the new texts in the order of the prompts.

    Units: progress(done, total) counts prompts.
    Raises: ConfigError for a batch size below 1; otherwise as `generate`.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}; 16 is the default.")
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts: dict[int, str] = {}
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        results = generate_ids(model, [prompts[i] for i in rows], config, tokenizer=tokenizer)
        texts |= {i: result.text for i, result in zip(rows, results)}
        if progress is not None:
            progress(len(texts), len(prompts))
    return [texts[i] for i in range(len(prompts))]


@dataclass(kw_only=True)
class _Row:
    """A prompt and its continuation so far."""

    index: int
    ids: list[int]  # the prompt and the new tokens
    generator: torch.Generator | None
    decoder: TextStream | None
    gate: StopTextGate
    n_new: int = 0
    finished_by: FinishedBy | None = field(default=None)

    def take(self, token_id: int, prob: float, config: GenerationConfig) -> TokenEvent:
        """Append a chosen token and decide whether the row ends with it."""
        if token_id in config.stop_ids:
            self.finished_by = "stop_id"
            return TokenEvent(row=self.index, id=None, prob=prob, text=self._rest(), finished_by="stop_id")
        self.ids.append(token_id)
        self.n_new += 1
        text = "" if self.decoder is None else self.gate.push(self.decoder.push(token_id))
        if self.n_new == config.max_new_tokens and self.gate.found is None:
            self.finished_by = "length"
            text += self._rest()
        if self.gate.found is not None:  # also when text held back by the decoder completes a stop text
            self.finished_by = "stop_text"
        return TokenEvent(row=self.index, id=token_id, prob=prob, text=text, finished_by=self.finished_by)

    def _rest(self) -> str:
        if self.decoder is None:
            return ""
        return self.gate.push(self.decoder.flush()) + self.gate.flush()


def _stream(
    model: GPTModel, rows: list[_Row], config: GenerationConfig, forbidden_ids: Sequence[int]
) -> Iterator[TokenEvent]:
    window = ContextWindow(
        model, use_cache=config.use_cache, n_expected=config.max_new_tokens, forbidden_ids=forbidden_ids
    )
    while rows and config.max_new_tokens > 0:
        logits = window.next_logits([row.ids for row in rows])  # (B, V)
        chosen, probs = _choose(logits, rows, config)
        for row, token_id, prob in zip(rows, chosen, probs, strict=True):
            yield row.take(token_id, prob, config)
        unfinished = [i for i, row in enumerate(rows) if row.finished_by is None]
        if 0 < len(unfinished) < len(rows):
            window.keep_rows(unfinished)
        rows = [rows[i] for i in unfinished]


def _choose(
    logits: torch.Tensor, rows: list[_Row], config: GenerationConfig
) -> tuple[list[int], list[float]]:
    """Choose each row's next id; return the ids and the model's own probabilities of them."""
    generators = [row.generator for row in rows if row.generator is not None]
    if generators:
        logits = logits.to(generators[0].device)  # on the CPU, for equal draws on every device
    seen = [row.ids for row in rows]
    chosen = sample_next(filter_logits(logits, config, seen), generators or None)  # (B,)
    probs = logits.softmax(dim=-1).gather(1, chosen[:, None]).squeeze(1)  # (B,)
    return chosen.tolist(), probs.tolist()


def check_stop_texts(config: GenerationConfig, tokenizer: Tokenizer | None) -> None:
    """Check that stop texts can be recognised.

    Raises: ConfigError for stop texts without a tokenizer.
    """
    if config.stop_texts and tokenizer is None:
        raise ConfigError(
            f"stop_texts need a tokenizer to be recognised, got {config.stop_texts!r} and no tokenizer; "
            "pass tokenizer=, or use stop_ids."
        )


def checked_prompt(index: int, prompt: Sequence[int], model: GPTModel, config: GenerationConfig) -> list[int]:
    """Return a prompt's ids, or `start_id` for an empty prompt, after checking them.

    Raises: DataError as `generate` does.
    """
    try:
        ids = [int(token_id) for token_id in prompt]
    except TypeError as cause:
        raise DataError(
            f"prompts must be lists of ids, got {prompt!r} as number {index}; write [[1, 2, 3]]."
        ) from cause
    if not ids and config.start_id is None:
        raise DataError(
            f"a prompt needs at least one token, got none in prompt {index}; write one or set start_id."
        )
    ids = ids or [config.start_id]  # type: ignore[list-item]
    vocab_size, context_length = model.config.vocab_size, model.config.context_length
    if min(ids) < 0 or max(ids) >= vocab_size:
        raise DataError(
            f"ids must be 0 to {vocab_size - 1}, got {min(ids)} to {max(ids)} in prompt {index}; "
            "encode with the tokenizer that the model was trained with."
        )
    n_dropped = len(ids) - context_length
    if n_dropped > 0 and config.overflow == "error":
        raise DataError(
            f"a prompt may have at most {context_length} tokens, got {len(ids)} in prompt {index}; "
            'shorten it, or set overflow to "crop" to use its end.'
        )
    if n_dropped > 0:
        logger.warning(
            "prompt %d has %d tokens, but the model's context is %d: the first %d are ignored",
            index,
            len(ids),
            context_length,
            n_dropped,
        )
    return ids


def _row_generators(
    prompts: list[list[int]], config: GenerationConfig, generator: torch.Generator | None
) -> list[torch.Generator | None]:
    if config.is_greedy:
        return [None] * len(prompts)
    if generator is not None:
        return [generator] * len(prompts)
    seed = int(torch.randint(2**62, ())) if config.seed is None else config.seed
    return [_row_generator(seed, ids, copy=prompts[:i].count(ids)) for i, ids in enumerate(prompts)]


def _row_generator(seed: int, ids: list[int], *, copy: int) -> torch.Generator:
    """Make a generator from the seed, the prompt, and how many equal prompts come before it in the batch."""
    digest = hashlib.sha256(f"{seed} {copy} {ids}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
