"""Text generation: ask the model for the next token, choose one, append it, ask again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
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
class Step:
    """One row has grown by a token, or ended."""

    row: int  # which of the prompts
    id: int | None  # the new token; None when a stop id came, which is not part of the result
    prob: float  # how likely the model itself found that token, before temperature and filters
    text: str  # what can be shown now; "" without a tokenizer, or while a stop text may be beginning
    finished_by: FinishedBy | None  # set on the row's last step


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """What was added to one prompt."""

    ids: list[int]  # new tokens; those that a stop text was made of included, a stop id not
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
) -> Iterator[Step]:
    """Continue several prompts at once, handing over each token as soon as it is chosen.

    Prompts may differ in length. Rows end one by one, and those that go on pay only for themselves. With
    `config.seed` every row has randomness of its own, made of the seed and the prompt: it gets the same
    tokens alone as in any batch, up to rounding in the model, and equal prompts in one batch get different
    ones. With `generator` all rows draw from it in turn. With neither, a seed is drawn from torch's global
    generator.

    Once prompt and new tokens fill the context, the oldest tokens fall out of sight and each further token
    costs a reading of the whole context. The model is used without dropout and keeps its training mode. Ids for
    which the tokenizer has no token are never chosen.

    Raises: DataError for an empty prompt without `start_id`, an id outside the vocabulary, or with
        `overflow="error"` a prompt longer than the context; ConfigError for stop texts without a tokenizer or
        a seed beside a generator. All of them at the call, before the first step.
    """
    if config.stop_texts and tokenizer is None:
        raise ConfigError(
            f"stop_texts need a tokenizer to be recognised, got {config.stop_texts!r} and no tokenizer; "
            "pass tokenizer=, or use stop_ids."
        )
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
    return _stream(model, rows, config, never=ids_without_token(model, tokenizer, stop_ids=config.stop_ids))


def generate_ids(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    tokenizer: Tokenizer | None = None,
    generator: torch.Generator | None = None,
) -> list[Generated]:
    """The same as `generate`, collected: one result per prompt, in their order.

    Raises: as `generate`.
    Example:
        >>> from scratchlm.model import GPTConfig
        >>> model = GPTModel(GPTConfig(vocab_size=10, context_length=8, emb_dim=4, n_heads=2, n_layers=1))
        >>> results = generate_ids(model, [[1, 2], [3]], GenerationConfig(max_new_tokens=5))
        >>> [len(result.ids) for result in results]
        [5, 5]
    """
    finished_by: list[FinishedBy] = ["length"] * len(prompts)  # what stays when max_new_tokens is 0
    results = [Generated(ids=[], probs=[], text="", finished_by=reason) for reason in finished_by]
    texts: list[list[str]] = [[] for _ in prompts]
    for step in generate(model, prompts, config, tokenizer=tokenizer, generator=generator):
        if step.id is not None:
            results[step.row].ids.append(step.id)
            results[step.row].probs.append(step.prob)
        texts[step.row].append(step.text)
        finished_by[step.row] = step.finished_by or finished_by[step.row]
    return [
        Generated(ids=result.ids, probs=result.probs, text="".join(pieces), finished_by=reason)
        for result, pieces, reason in zip(results, texts, finished_by, strict=True)
    ]


@dataclass(kw_only=True)
class _Row:
    """A prompt on its way to becoming a text."""

    index: int
    ids: list[int]  # the prompt and what was added
    generator: torch.Generator | None
    decoder: TextStream | None
    gate: StopTextGate
    n_new: int = 0
    finished_by: FinishedBy | None = field(default=None)

    def take(self, token_id: int, prob: float, config: GenerationConfig) -> Step:
        """Append a chosen token and see whether the row ends with it."""
        if token_id in config.stop_ids:
            self.finished_by = "stop_id"
            return Step(row=self.index, id=None, prob=prob, text=self._rest(), finished_by="stop_id")
        self.ids.append(token_id)
        self.n_new += 1
        text = "" if self.decoder is None else self.gate.push(self.decoder.push(token_id))
        if self.n_new == config.max_new_tokens and self.gate.found is None:
            self.finished_by = "length"
            text += self._rest()
        if self.gate.found is not None:  # also when what the decoder held back completes a stop text
            self.finished_by = "stop_text"
        return Step(row=self.index, id=token_id, prob=prob, text=text, finished_by=self.finished_by)

    def _rest(self) -> str:
        if self.decoder is None:
            return ""
        return self.gate.push(self.decoder.flush()) + self.gate.flush()


def _stream(
    model: GPTModel, rows: list[_Row], config: GenerationConfig, *, never: Sequence[int]
) -> Iterator[Step]:
    window = ContextWindow(model, use_cache=config.use_cache, n_expected=config.max_new_tokens, never=never)
    while rows and config.max_new_tokens > 0:
        logits = window.next_logits([row.ids for row in rows])  # (B, V)
        chosen, probs = _choose(logits, rows, config)
        for row, token_id, prob in zip(rows, chosen, probs, strict=True):
            yield row.take(token_id, prob, config)
        going_on = [i for i, row in enumerate(rows) if row.finished_by is None]
        if 0 < len(going_on) < len(rows):
            window.keep_rows(going_on)
        rows = [rows[i] for i in going_on]


def _choose(
    logits: torch.Tensor, rows: list[_Row], config: GenerationConfig
) -> tuple[list[int], list[float]]:
    """The next id of each row and the model's own probability of it."""
    generators = [row.generator for row in rows if row.generator is not None]
    if generators:
        logits = logits.to(generators[0].device)  # on the CPU, so that a seed means the same on every device
    seen = [row.ids for row in rows]
    chosen = sample_next(filter_logits(logits, config, seen), generators or None)  # (B,)
    probs = logits.softmax(dim=-1).gather(1, chosen[:, None]).squeeze(1)  # (B,)
    return chosen.tolist(), probs.tolist()


def checked_prompt(index: int, prompt: Sequence[int], model: GPTModel, config: GenerationConfig) -> list[int]:
    """A prompt's ids, `start_id` for an empty one, after a look at what the model can take.

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
            f"ids must be 0 to {vocab_size - 1}, found {min(ids)} to {max(ids)} in prompt {index}; "
            "encode with the tokenizer that the model was trained with."
        )
    if len(ids) > context_length and config.overflow == "error":
        raise DataError(
            f"a prompt may have at most {context_length} tokens, got {len(ids)} in prompt {index}; "
            'shorten it, or set overflow to "crop" to use its end.'
        )
    if len(ids) > context_length:
        logger.warning(
            "prompt %d has %d tokens, the model reads %d: its first %d are not seen",
            index,
            len(ids),
            context_length,
            len(ids) - context_length,
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
    """Randomness made of nothing but the seed, the prompt, and how often it stood in the batch before."""
    digest = hashlib.sha256(f"{seed} {copy} {ids}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
