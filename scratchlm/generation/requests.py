"""One text that an engine continues: its ids so far, its settings, and the text that can be shown."""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError, DataError, ScratchLMError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.choose import TokenChooser
from scratchlm.generation.config import CONSTRAINTS, GenerationConfig
from scratchlm.generation.stopping import FinishedBy, StopTextGate
from scratchlm.generation.text_stream import stream_decoder
from scratchlm.generation.trace import RowTrace
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEvent:
    """A new token of a row, or the end of the row."""

    row: int  # index of the prompt, or the number that `Engine.add` returned
    id: int | None  # the new token; None at a stop id, which is not part of the result
    prob: float  # the model's own probability of that token, before temperature and filters
    text: str  # text that can be shown now; "" without a tokenizer, or while a stop text may be beginning
    finished_by: FinishedBy | None  # set on the row's last event
    top: tuple[tuple[int, float], ...] = ()  # ids and log-probabilities (nats) of the best tokens, if wanted
    error: ScratchLMError | None = None  # why the row ended early; the other rows continue


class Request:
    """A prompt and its continuation so far."""

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        config: GenerationConfig,
        *,
        model: GPTModel,
        tokenizer: Tokenizer | None,
        generator: torch.Generator | None,
        copy: int = 0,
        n_top: int = 0,
        trace: RowTrace | None = None,
    ) -> None:
        check_stop_texts(config, tokenizer)
        self.number = number
        self.config = config
        self.ids = checked_prompt(number, prompt, model, config)  # the prompt and the new tokens
        self.n_prompt = len(self.ids)
        self.n_top = n_top
        self.slot = -1  # none yet
        self._sinks = config.attention_sinks
        self.n_dropped = 0  # tokens after the attention sinks that the slot does not hold any more
        if self._sinks is not None:
            check_sinks(config, model)
            self.n_dropped = max(0, self.n_prompt - model.config.context_length)
        self.may_speculate = config.mirostat_tau is None and not config.given(*CONSTRAINTS)
        self.finished_by: FinishedBy | None = None
        self._decoder = None if tokenizer is None else stream_decoder(tokenizer, after=list(prompt))
        self._gate = StopTextGate(config.stop_texts)
        draws_as_torch = generator is not None  # the caller's generator gives the caller's draws
        if generator is None and not config.is_greedy:
            seed = int(torch.randint(2**62, ())) if config.seed is None else config.seed
            generator = row_generator(seed, self.ids, copy=copy)
        forbidden_ids = ids_without_token(model, tokenizer, stop_ids=config.stop_ids)
        self.chooser = TokenChooser(
            config,
            self.ids,
            generator=generator,
            draws_as_torch=draws_as_torch,
            tokenizer=tokenizer,
            forbidden_ids=forbidden_ids,
            trace=trace,
            vocab_size=model.config.vocab_size,
        )
        # Whether the token with the best score is chosen.
        self.is_argmax = self.chooser.is_argmax and not forbidden_ids

    @property
    def n_new(self) -> int:
        """Number of new tokens."""
        return len(self.ids) - self.n_prompt

    @property
    def kept_ids(self) -> list[int]:
        """The ids without those that a sliding window has passed."""
        if not self.n_dropped:
            return self.ids
        return self.ids[: self._sinks] + self.ids[(self._sinks or 0) + self.n_dropped :]

    def slide(self, cache: KVCache, held: list[int]) -> None:
        """When the slot is full, drop an eighth of the tokens that follow the attention sinks, the oldest.

        In `held`, the ids that the slot holds, the rest becomes -1: those keys saw the dropped tokens, so they are no
        beginning of another text.
        """
        context_length = cache.config.context_length
        if self._sinks is not None and cache.lengths[self.slot] == context_length:
            n = math.ceil((context_length - self._sinks) / 8)
            cache.drop(self.slot, first=self._sinks, n=n)
            held[self._sinks :] = [-1] * (cache.lengths[self.slot] - self._sinks)
            self.n_dropped += n

    def take(self, token_id: int, prob: float, *, top: tuple[tuple[int, float], ...] = ()) -> TokenEvent:
        """Append a chosen token and decide whether the text ends with it."""
        if token_id in self.config.stop_ids:
            self.finished_by = "stop_id"
            return self._event(None, prob, self._rest(), top)
        self.ids.append(token_id)
        text = "" if self._decoder is None else self._gate.push(self._decoder.push(token_id))
        is_last = self.n_new == self.config.max_new_tokens or self.chooser.finished
        if is_last and self._gate.found is None:
            self.finished_by = "length" if self.n_new == self.config.max_new_tokens else "constraint"
            text += self._rest()
        if self._gate.found is not None:  # also when text held back by the decoder completes a stop text
            self.finished_by = "stop_text"
        return self._event(token_id, prob, text, top)

    def fail(self, error: ScratchLMError) -> TokenEvent:
        """End the text with an error."""
        self.finished_by = "error"
        return TokenEvent(row=self.number, id=None, prob=0.0, text="", finished_by="error", error=error)

    def _event(
        self, token_id: int | None, prob: float, text: str, top: tuple[tuple[int, float], ...]
    ) -> TokenEvent:
        return TokenEvent(
            row=self.number, id=token_id, prob=prob, text=text, finished_by=self.finished_by, top=top
        )

    def _rest(self) -> str:
        if self._decoder is None:
            return ""
        return self._gate.push(self._decoder.flush()) + self._gate.flush()


def most_likely(logits: Tensor, n: int) -> tuple[tuple[int, float], ...]:
    """The n most likely tokens and their log-probabilities in nats, best first. Shapes: logits (V,)."""
    if n == 0:
        return ()
    found = logits.log_softmax(dim=-1).topk(min(n, len(logits)))
    return tuple(zip(found.indices.tolist(), found.values.tolist()))


def check_stop_texts(config: GenerationConfig, tokenizer: Tokenizer | None) -> None:
    """Check that stop texts can be recognised.

    Raises: ConfigError for stop texts without a tokenizer.
    """
    if config.stop_texts and tokenizer is None:
        raise ConfigError(
            f"stop_texts need a tokenizer to be recognised, got {config.stop_texts!r} and no tokenizer; "
            "pass tokenizer=, or use stop_ids."
        )


def check_sinks(config: GenerationConfig, model: GPTModel) -> None:
    """Check that the model's window can slide, if it is to.

    Raises: ConfigError.
    """
    n_sinks, positions = config.attention_sinks, model.config.positions
    context_length = model.config.context_length
    if n_sinks is not None and (n_sinks >= context_length or positions != "rotary"):
        raise ConfigError(
            f"attention_sinks must be below the context of {context_length} tokens, in a model with rotary positions; "
            f"got {n_sinks} and {positions} positions. Lower it, or leave it out."
        )


def prompt_ids(index: int, prompt: Sequence[int]) -> list[int]:
    """Return a prompt as a list of ids.

    Raises: DataError for anything but a sequence of whole numbers.
    """
    try:
        return [int(token_id) for token_id in prompt]
    except TypeError as cause:
        raise DataError(
            f"prompts must be lists of ids, got {prompt!r} as number {index}; write [[1, 2, 3]]."
        ) from cause


def checked_prompt(index: int, prompt: Sequence[int], model: GPTModel, config: GenerationConfig) -> list[int]:
    """Return a prompt's ids, or `start_id` for an empty prompt, after checking them.

    Raises: DataError as `generate` does.
    """
    ids = prompt_ids(index, prompt)
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
            "prompt %d has %d tokens, but the model's context is %d: the first %d%s are ignored",
            index,
            len(ids),
            context_length,
            n_dropped,
            " after the attention sinks" if config.attention_sinks else "",
        )
    return ids


def ids_without_token(
    model: GPTModel, tokenizer: Tokenizer | None, *, stop_ids: Sequence[int] = ()
) -> list[int]:
    """List the ids without a token: padding of the model's vocabulary, or gaps in the tokenizer's.

    Stop ids are not listed: they end a text and need no token. Without a tokenizer the list is empty.
    """
    if tokenizer is None:
        return []
    vocab_size = model.config.vocab_size
    unused = {*getattr(tokenizer, "unused_ids", ()), *range(tokenizer.vocab_size, vocab_size)}
    return sorted(token_id for token_id in unused - {*stop_ids} if token_id < vocab_size)


def row_generator(seed: int, ids: Sequence[int], *, copy: int) -> torch.Generator:
    """Make a generator from the seed, the prompt, and how many equal prompts came before it."""
    digest = hashlib.sha256(f"{seed} {copy} {list(ids)}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
