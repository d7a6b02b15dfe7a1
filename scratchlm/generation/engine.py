"""The inference engine: texts join, grow by a token a step and leave, without slowing or changing each other."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError, DataError, ScratchLMError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.forward import CHUNK, build_forward
from scratchlm.generation.requests import Request, TokenEvent, most_likely
from scratchlm.generation.speculative import DRAFT_TOKENS, Drafter, DraftModel, PromptLookup, n_common
from scratchlm.generation.trace import RowTrace
from scratchlm.generation.work import Scores, Work, work_on
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache

MIN_SHARED = 16  # tokens of a common beginning that are worth copying from another slot


@dataclass(kw_only=True, slots=True)
class EngineStats:
    """What an engine is doing, and what it has done so far."""

    n_slots: int
    n_running: int = 0  # texts with a slot
    n_waiting: int = 0  # texts without one yet
    cached_tokens: int = 0  # keys and values of so many tokens are stored
    prompt_tokens: int = 0  # that were read so far
    shared_tokens: int = 0  # of prompts that were copied instead, because another text began the same
    generated_tokens: int = 0
    guessed_tokens: int = 0  # by speculative decoding
    accepted_tokens: int = 0  # of them, that the model would have chosen itself
    steps: int = 0


class Engine:
    """Continues many texts at once on one model.

    Each text has a slot of the key-value cache. A step computes one token for every running text and reads a part of
    the prompts of new ones, within a budget of tokens, so that a long prompt never stops the others for more than
    one step. A text starts when a slot is free, first come, first served, and always has room for its whole answer.
    A text that grows beyond the context reads its last tokens again at every step, alone.

    A text's tokens do not depend on its neighbours: its scores are the same bits with the C kernel and equal up to
    rounding with PyTorch, and it draws from its own random generator. Texts that begin alike share the keys and values
    of the common beginning.

    `draft` is a smaller model that guesses the next tokens of every text (speculative decoding); texts with the setting
    prompt_lookup guess without one. A guess never changes a text.

    One thread at a time may use an engine. `close` frees its memory and threads.

    n_threads: of the C kernel; None for as many as PyTorch has.
    Units: capacity and token_budget are tokens, budget_bytes is bytes of the cache.
    Raises: ConfigError when a setting is below 1, or budget_bytes has no room for one slot.
    Example:
        >>> from scratchlm.model import GPTConfig
        >>> config = GPTConfig(vocab_size=10, context_length=8, emb_dim=4, n_heads=2, n_layers=1)
        >>> engine = Engine(GPTModel(config), n_slots=2)
        >>> first = engine.add([1, 2], GenerationConfig(max_new_tokens=1))
        >>> [event.finished_by for event in engine.step()]
        ['length']
    """

    def __init__(
        self,
        model: GPTModel,
        tokenizer: Tokenizer | None = None,
        *,
        n_slots: int = 16,
        capacity: int | None = None,
        budget_bytes: int | None = None,
        token_budget: int = 512,
        kernel: str | None = None,
        n_threads: int | None = None,
        draft: GPTModel | None = None,
    ) -> None:
        context_length = model.config.context_length
        capacity = context_length if capacity is None else min(capacity, context_length)
        for name, value in (("n_slots", n_slots), ("capacity", capacity), ("token_budget", token_budget)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}; leave it out for the default.")
        if budget_bytes is not None:
            n_slots = min(n_slots, _slots_within(budget_bytes, model, capacity))
        self.model = model
        self.tokenizer = tokenizer
        self.cache = KVCache(model.config, n_slots, capacity=capacity)
        self._forward = build_forward(model, self.cache, kernel=kernel, n_threads=n_threads)
        self._token_budget = token_budget
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []  # in the order of their arrival
        self._held: list[list[int]] = [[] for _ in range(n_slots)]  # the ids whose keys and values a slot has
        self._n_added = 0
        self._counts = EngineStats(n_slots=n_slots)
        self._draft_model: DraftModel | None = None
        if draft is not None:
            self._draft_model = DraftModel(draft, of=model, n_slots=n_slots, capacity=capacity)

    @property
    def kernel(self) -> str:
        """What computes: `native` or `torch`."""
        return "native" if self._forward.is_exact else "torch"

    @property
    def has_work(self) -> bool:
        """Whether a text is running or waiting."""
        return bool(self._running or self._waiting)

    @property
    def stats(self) -> EngineStats:
        """The current counts."""
        n_cached = sum(self.cache.lengths[request.slot] for request in self._running)
        n_running, n_waiting = len(self._running), len(self._waiting)
        return replace(self._counts, n_running=n_running, n_waiting=n_waiting, cached_tokens=n_cached)

    def add(
        self,
        prompt: Sequence[int],
        config: GenerationConfig,
        *,
        tokenizer: Tokenizer | None = None,
        generator: torch.Generator | None = None,
        copy: int = 0,
        n_top: int = 0,
        trace: RowTrace | None = None,
    ) -> int:
        """Queue a text; returns its number, which its events carry.

        With `config.seed` the text draws from a generator made of the seed, the prompt and `copy`, so that equal
        prompts get different texts when `copy` differs. `generator` is used instead when given. n_top asks for the
        log-probabilities of that many of the best tokens in each event. `trace` records how each token was chosen.

        Raises: DataError for an empty prompt without `start_id`, an id outside the vocabulary, a text that does not
            fit a slot, or with `overflow="error"` a prompt longer than the context; ConfigError for stop texts without
            a tokenizer, or a seed together with a generator.
        """
        if config.seed is not None and generator is not None:
            raise ConfigError(
                f"randomness must come from one place, got seed={config.seed} and a generator; drop one."
            )
        request = Request(
            self._n_added,
            prompt,
            config,
            model=self.model,
            tokenizer=self.tokenizer if tokenizer is None else tokenizer,
            generator=generator,
            copy=copy,
            n_top=n_top,
            trace=trace,
        )
        self._check_fits(request)
        self._n_added += 1
        if config.max_new_tokens > 0:
            self._waiting.append(request)
        return request.number

    def cancel(self, number: int) -> None:
        """End a text at once, without an event; a text that has ended already is no error."""
        self._waiting = deque(request for request in self._waiting if request.number != number)
        self._running = [request for request in self._running if request.number != number]

    def step(self) -> list[TokenEvent]:
        """Compute the next token of every running text, and read a part of the new prompts.

        A text whose scores are not numbers ends with an event that holds the error; the others go on. When the model
        itself fails, the step can be tried again, for example after cancelling a text.
        """
        self._admit()
        planned = self._plan()
        if not planned:
            return []
        self._counts.steps += 1
        events: list[TokenEvent] = []
        lengths = list(self.cache.lengths)
        try:
            all_scores = self._forward([work for _, work in planned])
        except BaseException:  # out of memory, for example: the step may be tried again
            self.cache.lengths[:] = lengths
            raise
        for (request, work), scores in zip(planned, all_scores):
            self._held[work.slot] += work.ids
            if scores is not None:
                events += self._choose_all(
                    request, scores, guessed=work.ids[len(work.ids) - work.n_last + 1 :]
                )
        self._running = [request for request in self._running if request.finished_by is None]
        return events

    def close(self) -> None:
        """Free the memory and the threads; the engine cannot be used any more."""
        self._waiting.clear()
        self._running.clear()
        self._forward.close()
        if self._draft_model is not None:
            self._draft_model.close()
        self.cache.keys = self.cache.values = None

    def _check_fits(self, request: Request) -> None:
        needed = request.n_prompt + request.config.max_new_tokens
        if needed > self.cache.capacity < self.model.config.context_length:
            raise DataError(
                f"a text may have {self.cache.capacity} tokens here, got a prompt of {request.n_prompt} and "
                f"max_new_tokens={request.config.max_new_tokens}; shorten one, or give the engine more capacity."
            )

    def _admit(self) -> None:
        """Give free slots to the texts that have waited longest."""
        if not self._waiting:
            return
        free = [*set(range(self.cache.n_slots)).difference(request.slot for request in self._running)]
        while free and self._waiting:
            request = self._waiting.popleft()
            request.slot = self._reuse(request, free)
            free.remove(request.slot)
            self._running.append(request)

    def _reuse(self, request: Request, free: list[int]) -> int:
        """Choose a slot that already has the beginning of the prompt, or copy it from another; returns the slot."""
        prompt = request.kept_ids[-self.model.config.context_length :]
        shared = [n_common(prompt[:-1], held) for held in self._held]  # the last token's scores are needed
        if not self._forward.is_exact:  # only whole chunks, so that the rest is computed as it would be alone
            shared = [n - n % CHUNK for n in shared]
        slot = max(free, key=lambda one: (shared[one], -len(self._held[one]), -one))
        source = max(range(len(shared)), key=shared.__getitem__)
        n_shared = shared[slot]
        if request.config.use_cache and shared[source] >= n_shared + MIN_SHARED:
            n_shared = shared[source]
            self.cache.fork(source, slot, length=n_shared)
        n_shared = n_shared if request.config.use_cache else 0
        self.cache.lengths[slot] = n_shared
        self._held[slot] = prompt[:n_shared]
        self._counts.shared_tokens += n_shared
        return slot

    def _plan(self) -> list[tuple[Request, Work]]:
        """What this step computes: the next token of texts in progress first, then parts of prompts."""
        budget = self._token_budget
        growing: list[tuple[Request, Work]] = []
        reading: list[tuple[Request, Work]] = []
        for request in self._running:
            request.slide(self.cache, self._held[request.slot])
            work = work_on(self.cache, request.slot, request.kept_ids, use_cache=request.config.use_cache)
            n_held = self.cache.lengths[request.slot]
            del self._held[request.slot][n_held:]
            if request.n_new or not request.config.use_cache:
                guessed = self._guess(request)
                work = Work(work.slot, [*work.ids, *guessed], 1 + len(guessed)) if guessed else work
                growing.append((request, work))
                budget -= len(work.ids)
            else:
                part = work.ids[: CHUNK - n_held % CHUNK]
                reading.append((request, Work(request.slot, part, int(len(part) == len(work.ids)))))
        for number, (_, work) in enumerate(reading):
            budget -= len(work.ids)
            if budget < 0 and number > 0:  # one part is always read, so that a prompt never waits for good
                reading = reading[:number]
                break
        self._counts.prompt_tokens += sum(len(work.ids) for _, work in reading)
        return growing + reading

    def _guess(self, request: Request) -> list[int]:
        """Tokens that may follow the text, if it is decoded speculatively."""
        drafter: Drafter | None = self._draft_model if request.may_speculate else None
        if request.config.prompt_lookup is not None:
            drafter = PromptLookup(request.config.prompt_lookup)
        n_left = min(
            request.config.max_new_tokens - request.n_new - 1, self.cache.capacity - len(request.ids)
        )
        if drafter is None or n_left < 1 or not request.config.use_cache:
            return []
        return drafter.guess(
            request.slot, request.ids, min(request.config.draft_tokens or DRAFT_TOKENS, n_left)
        )

    def _choose_all(self, request: Request, scores: Scores, *, guessed: Sequence[int]) -> list[TokenEvent]:
        """Choose a text's next tokens: one, and after each guess that equals the choice another one."""
        events = []
        for place in range(len(guessed) + 1):
            is_last = place == len(guessed)
            best = scores.best if is_last else None
            events.append(self._choose(request, scores.logits[place - len(guessed) - 1], best))
            if request.finished_by is not None or is_last or request.ids[-1] != guessed[place]:
                break
            self._counts.accepted_tokens += 1
        if guessed:
            self._counts.guessed_tokens += len(guessed)
            self.cache.lengths[request.slot] = min(self.cache.lengths[request.slot], len(request.ids) - 1)
            del self._held[request.slot][len(request.ids) - 1 :]
        return events

    def _choose(self, request: Request, logits: Tensor, best: tuple[int, float] | None) -> TokenEvent:
        """Choose a text's next token and append it. `best` is the most likely token, if known. Shapes: logits (V,)."""
        try:
            if best is not None and request.is_argmax and best[1] > 0:  # not NaN
                token_id, prob = best
            else:
                choice = request.chooser.choose(logits)
                token_id, prob = choice.id, choice.prob
        except ScratchLMError as error:
            self._forget(request.slot)
            return request.fail(error)
        self._counts.generated_tokens += 1
        return request.take(token_id, prob, top=most_likely(logits, request.n_top))

    def _forget(self, slot: int) -> None:
        """Clear a slot whose numbers may be NaN: masked attention would spread them to a later text."""
        if self.cache.keys is not None and self.cache.values is not None:
            self.cache.keys[:, slot] = self.cache.values[:, slot] = 0
        self.cache.lengths[slot], self._held[slot] = 0, []


def _slots_within(budget_bytes: int, model: GPTModel, capacity: int) -> int:
    """How many slots fit a budget of memory."""
    config = model.config
    n_numbers = 2 * config.n_layers * (config.n_kv_heads or config.n_heads) * capacity * config.head_dim
    slot_bytes = n_numbers * next(model.parameters()).element_size()
    if budget_bytes < slot_bytes:
        raise ConfigError(
            f"the cache of one text of {capacity} tokens takes {slot_bytes:,} bytes, but budget_bytes is "
            f"{budget_bytes:,}; raise it, or lower the capacity."
        )
    return budget_bytes // slot_bytes
