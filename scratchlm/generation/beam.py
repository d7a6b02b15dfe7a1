"""Beam search: extend the most likely beginnings in parallel to find a text with a high total probability."""

import dataclasses
import heapq
import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Literal

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.choose import TokenChooser
from scratchlm.generation.config import BEAM_SETTINGS, CONSTRAINTS, SAMPLING, SPECULATION, GenerationConfig
from scratchlm.generation.forward import build_forward
from scratchlm.generation.requests import check_stop_texts, checked_prompt, ids_without_token
from scratchlm.generation.stopping import FinishedBy, StopTextGate
from scratchlm.generation.text_stream import stream_decoder
from scratchlm.generation.work import work_on
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache

ROOT = 0  # the number of the prompt in the tree of a search
MAX_LENGTH_PENALTY = 50  # a million tokens to this power are still a float


@dataclass(frozen=True, kw_only=True, slots=True)
class Beam:
    """A finished continuation."""

    ids: list[int]  # new tokens, without a stop id
    log_prob: float  # nats: sum of the log-probabilities of all new tokens, including a stop id
    score: float  # log_prob / (number of those tokens) ** length_penalty: beams are ranked by it
    text: str  # "" without a tokenizer; ends before a stop text
    finished_by: FinishedBy


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamNode:
    """A token that a search considered, as a node of its tree."""

    number: int  # counted from 1; ROOT is the prompt
    parent: int  # the number of the node before it
    group: int
    id: int
    log_prob: float  # nats: of all tokens from the root to here, after penalties
    fate: Literal["continued", "ended", "dropped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Path:
    """An unfinished continuation."""

    slot: int  # of the cache: of its parent, until `_place` gives it one
    new: list[int]
    log_prob: float
    node: int = ROOT


@dataclass(kw_only=True, slots=True)
class _Group:
    """Beams that compete with each other; plain beam search has one group."""

    number: int
    paths: list[_Path]
    ended: list[Beam] = field(default_factory=list)


def beam_search(
    model: GPTModel,
    prompt: Sequence[int],
    config: GenerationConfig,
    *,
    n_beams: int,
    length_penalty: float = 1.0,
    tokenizer: Tokenizer | None = None,
    tree: list[BeamNode] | None = None,
) -> list[Beam]:
    """Find the most likely continuations of a prompt that the search reaches, best first: n_beams, or `config.n_best`.

    Greedy decoding takes the most likely next token and never revises it; here a beginning that is less
    likely at first can still be chosen. Each step extends every unfinished continuation by every token and
    keeps the best n_beams. One that ends counts as a result if it is among those. Nothing is sampled, so the
    temperature must be 0; the rules of the config apply to the log-probabilities.

    With `config.early_stopping` False, the search stops when no unfinished continuation scores better, at its current
    length, than the worst of n_beams results; with "never", when none can at any length; with True, at n_beams results.
    With `config.num_beam_groups` the beams form groups that search one after the other in each step, and a token loses
    `config.diversity_penalty` for each beam of an earlier group that has just taken it, so that groups differ.

    length_penalty: 0 ranks by total probability, which favours short texts; 1 by the mean log-probability per token.
    `tree` receives every candidate that was considered.
    Raises: ConfigError for n_beams below 1, sampling settings, or stop texts without a tokenizer; DataError for a
        prompt as in `generate`, or rules that leave no text.
    Source: the beam search of transformers; Vijayakumar et al. 2016 for groups.
    """
    check_beams(config, n_beams=n_beams, length_penalty=length_penalty)
    check_stop_texts(config, tokenizer)
    prompt_ids = checked_prompt(0, prompt, model, config)
    if config.max_new_tokens == 0:
        return [Beam(ids=[], log_prob=0.0, score=0.0, text="", finished_by="length")]
    return _Search(model, prompt_ids, config, n_beams, length_penalty, tokenizer, tree).run()


@dataclass
class _Search:
    """The state of one beam search."""

    model: InitVar[GPTModel]
    prompt: list[int]
    config: GenerationConfig
    n_beams: int
    length_penalty: float
    tokenizer: Tokenizer | None
    tree: list[BeamNode] | None
    n_nodes: int = 0

    def __post_init__(self, model: GPTModel) -> None:
        config, n_groups = self.config, self.config.num_beam_groups or 1
        self.group_size = self.n_beams // n_groups
        self.groups = [_Group(number=i, paths=[_Path(slot=0, new=[], log_prob=0.0)]) for i in range(n_groups)]
        longest = min(model.config.context_length, len(self.prompt) + config.max_new_tokens)
        self.cache = KVCache(model.config, self.n_beams, capacity=longest)
        self.forward = build_forward(model, self.cache)
        self.forbidden_ids = ids_without_token(model, self.tokenizer, stop_ids=config.stop_ids)
        neutral = GenerationConfig()
        self.rules = dataclasses.replace(config, **{name: getattr(neutral, name) for name in BEAM_SETTINGS})
        self.is_constrained = bool(config.given(*CONSTRAINTS))

    def run(self) -> list[Beam]:
        """Search; returns the results, best first."""
        for n_new in range(1, self.config.max_new_tokens + 1):
            log_probs = self._next_log_probs()
            # (V,), the number of beams of earlier groups with each token
            taken = torch.zeros_like(next(iter(log_probs.values())))
            for group in self.groups:
                if group.paths:
                    self._extend(group, log_probs, taken, n_new)
            if not any(group.paths for group in self.groups):
                break
            self._place()
        self.forward.close()
        ended = [beam for group in self.groups for beam in group.ended]
        if not ended:
            raise DataError(
                "beam search found no text: the rules of the config exclude every token before any text ends; relax "
                "them, or lower max_new_tokens."
            )
        return heapq.nlargest(self.config.n_best or self.n_beams, ended, key=lambda beam: beam.score)

    def _next_log_probs(self) -> dict[int, Tensor]:
        """The log-probabilities of the next token of each path, by its slot. Shapes: of each (V,)."""
        paths = {path.slot: path for group in self.groups for path in group.paths}
        works = [
            work_on(self.cache, slot, self.prompt + path.new, use_cache=self.config.use_cache)
            for slot, path in paths.items()
        ]
        found = {}
        for (slot, path), scores in zip(paths.items(), self.forward(works)):
            assert scores is not None
            found[slot] = self._chooser(path).ruled_log_probs(scores.logits[-1])
        return found

    def _chooser(self, path: _Path) -> TokenChooser:
        """The rules on the next token of a path."""
        chooser = TokenChooser(
            self.rules,
            self.prompt,
            generator=None,
            tokenizer=self.tokenizer,
            forbidden_ids=self.forbidden_ids,
            vocab_size=self.cache.config.vocab_size,
        )
        for token_id in path.new:
            chooser.took(token_id)
        return chooser

    def _extend(self, group: _Group, log_probs: dict[int, Tensor], taken: Tensor, n_new: int) -> None:
        """Extend a group's paths by one token, and count in `taken` those that it keeps."""
        penalty = (self.config.diversity_penalty or 0.0) * taken  # (V,)
        # (P, V)
        totals = torch.stack([log_probs[path.slot] - penalty + path.log_prob for path in group.paths])
        best, places = totals.flatten().topk(min(2 * self.group_size, totals.numel()))
        parents, group.paths = group.paths, []
        for rank, (total, place) in enumerate(zip(best.tolist(), places.tolist())):
            if total == -math.inf:
                break
            row, token_id = divmod(place, totals.shape[1])
            parent = parents[row]
            self.n_nodes += 1
            path = _Path(slot=parent.slot, new=[*parent.new, token_id], log_prob=total, node=self.n_nodes)
            fate: Literal["continued", "ended", "dropped"] = "dropped"
            ending = self._ending(path)
            if ending is not None and rank < self.group_size:
                fate = "ended"
                group.ended.append(self._beam(path, ending))
            elif ending is None and len(group.paths) < self.group_size:
                fate = "continued"
                group.paths.append(path)
                taken[token_id] += 1
            if self.tree is not None:
                self.tree.append(
                    BeamNode(
                        number=path.node,
                        parent=parent.node,
                        group=group.number,
                        id=token_id,
                        log_prob=total,
                        fate=fate,
                    )
                )
        group.ended = heapq.nlargest(self.group_size, group.ended, key=lambda beam: beam.score)
        if group.paths and len(group.ended) == self.group_size and self._is_done(group, n_new):
            group.paths = []

    def _is_done(self, group: _Group, n_new: int) -> bool:
        """Whether a group with enough results can stop."""
        early_stopping = self.config.early_stopping
        can_grow = early_stopping == "never" and self.length_penalty > 0
        length = self.config.max_new_tokens if can_grow else n_new
        best_possible = group.paths[0].log_prob / length**self.length_penalty
        return early_stopping is True or group.ended[-1].score >= best_possible

    def _place(self) -> None:
        """Give each path a slot: its parent's for the first child, a free one with a copy for the others."""
        used = {path.slot for group in self.groups for path in group.paths}
        free = [*set(range(self.cache.n_slots)) - used]
        taken: set[int] = set()
        for group in self.groups:
            for i, path in enumerate(group.paths):
                slot = path.slot if path.slot not in taken else free.pop()
                self.cache.fork(path.slot, slot)
                taken.add(slot)
                group.paths[i] = dataclasses.replace(path, slot=slot)

    def _ending(self, path: _Path) -> FinishedBy | None:
        """The reason why a path ends with its last token, or None if it does not."""
        if path.new[-1] in self.config.stop_ids:
            return "stop_id"
        if self.config.stop_texts and self._text(path.new)[1]:
            return "stop_text"
        if len(path.new) == self.config.max_new_tokens:
            return "length"
        return "constraint" if self.is_constrained and self._chooser(path).finished else None

    def _beam(self, path: _Path, ending: FinishedBy) -> Beam:
        """The result of a path that ends."""
        ids = path.new[:-1] if ending == "stop_id" else path.new
        return Beam(
            ids=ids,
            log_prob=path.log_prob,
            score=path.log_prob / len(path.new) ** self.length_penalty,
            text=self._text(ids)[0],
            finished_by=ending,
        )

    def _text(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of new ids up to a stop text, and whether there was one."""
        if self.tokenizer is None:
            return "", False
        decoder = stream_decoder(self.tokenizer, after=self.prompt)
        gate = StopTextGate(self.config.stop_texts)
        text = "".join(gate.push(decoder.push(token_id)) for token_id in ids)
        text += gate.push(decoder.flush()) + gate.flush()
        return text, gate.found is not None


def check_beams(config: GenerationConfig, *, n_beams: int, length_penalty: float) -> None:
    """Check the settings of a beam search.

    Raises: ConfigError.
    """
    if isinstance(n_beams, bool) or not isinstance(n_beams, int) or n_beams < 1:
        raise ConfigError(f"n_beams must be a whole number of at least 1, got {n_beams!r}; 4 is usual.")
    check_length_penalty(length_penalty)
    sampling = [*config.given(*SAMPLING, *SPECULATION, "best_of", "penalty_alpha")]
    if not config.is_greedy or sampling:
        found = ", ".join(sampling) if config.is_greedy else f"temperature={config.temperature}"
        raise ConfigError(
            f"beam search does not sample, got {found}; leave that out, or sample without beams."
        )
    if config.attention_sinks is not None:
        raise ConfigError(
            f"attention_sinks and beam search cannot be combined, got attention_sinks={config.attention_sinks} and "
            f"{n_beams} beams; leave one of them out."
        )
    n_groups = config.num_beam_groups or 1
    if n_beams % n_groups:
        raise ConfigError(
            f"num_beam_groups must divide the number of beams, got {n_groups} groups and {n_beams} beams; change one."
        )
    if config.diversity_penalty is not None and n_groups == 1:
        raise ConfigError(
            f"diversity_penalty needs num_beam_groups of at least 2, got {config.diversity_penalty} and {n_groups}; "
            "set both, or none."
        )
    if config.n_best is not None and config.n_best > n_beams:
        raise ConfigError(
            f"n_best must be at most the {n_beams} beams, got {config.n_best}; keep more beams."
        )


def check_length_penalty(value: object) -> None:
    """Check a length penalty.

    Raises: ConfigError.
    """
    is_number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not is_number:
        raise ConfigError(f"length_penalty must be a finite number, got {value!r}; 1 is usual.")
    if abs(value) > MAX_LENGTH_PENALTY:  # type: ignore[arg-type]
        raise ConfigError(
            f"length_penalty must be {-MAX_LENGTH_PENALTY} to {MAX_LENGTH_PENALTY}, got {value!r}; 1 is usual."
        )
