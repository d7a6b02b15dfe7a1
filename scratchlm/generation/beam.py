"""Beam search: extend the most likely beginnings in parallel to find a text with a high total probability."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.forward import Forward, build_forward
from scratchlm.generation.requests import check_stop_texts, checked_prompt, ids_without_token
from scratchlm.generation.samplers import check_scores, penalize_repetition
from scratchlm.generation.stopping import FinishedBy, StopTextGate
from scratchlm.generation.text_stream import stream_decoder
from scratchlm.generation.work import work_on
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True, slots=True)
class Beam:
    """A finished continuation."""

    ids: list[int]  # new tokens, without a stop id
    log_prob: float  # nats: sum of the log-probabilities of all new tokens, including a stop id
    score: float  # log_prob / (number of those tokens) ** length_penalty: beams are ranked by it
    text: str  # "" without a tokenizer; ends before a stop text
    finished_by: FinishedBy


@dataclass(frozen=True, kw_only=True, slots=True)
class _Path:
    """An unfinished continuation."""

    slot: int  # of the cache: of its parent, until `_place` gives it one
    new: list[int]
    log_prob: float


def beam_search(
    model: GPTModel,
    prompt: Sequence[int],
    config: GenerationConfig,
    *,
    n_beams: int,
    length_penalty: float = 1.0,
    tokenizer: Tokenizer | None = None,
) -> list[Beam]:
    """Find the n_beams most likely continuations of a prompt that the search reaches, best first.

    Greedy decoding takes the most likely next token and never revises it; here a beginning that is less
    likely at first can still be chosen. Each step extends every unfinished continuation by every token and
    keeps the best n_beams.
    One that ends counts as a result if it is among those. The search stops when no unfinished continuation scores
    better than the worst of n_beams results, or at max_new_tokens. Nothing is sampled, so the temperature must be 0;
    repetition_penalty applies.

    length_penalty: 0 ranks by total probability, which favours short texts; 1 by the mean log-probability per token.
    Raises: ConfigError for n_beams below 1, sampling settings, or stop texts without a tokenizer; DataError for a
        prompt as in `generate`.
    Source: the beam search of transformers with early_stopping=False.
    """
    check_beams(config, n_beams=n_beams, length_penalty=length_penalty)
    check_stop_texts(config, tokenizer)
    prompt_ids = checked_prompt(0, prompt, model, config)
    cache = KVCache(
        model.config,
        n_beams,
        capacity=min(model.config.context_length, len(prompt_ids) + config.max_new_tokens),
    )
    forward = build_forward(model, cache)
    forbidden_ids = torch.tensor(
        ids_without_token(model, tokenizer, stop_ids=config.stop_ids), dtype=torch.long
    )
    paths = [_Path(slot=0, new=[], log_prob=0.0)]
    ended: list[Beam] = []
    for n_new in range(1, config.max_new_tokens + 1):
        candidates = _extend(forward, cache, paths, prompt_ids, config, forbidden_ids, n_kept=2 * n_beams)
        paths = []
        for rank, candidate in enumerate(candidates):
            ending = _ending(candidate, config, prompt_ids, tokenizer)
            if ending is not None:
                if rank < n_beams:
                    ended.append(_beam(candidate, ending, config, prompt_ids, tokenizer, length_penalty))
            elif len(paths) < n_beams:
                paths.append(candidate)
        ended = heapq.nlargest(n_beams, ended, key=lambda beam: beam.score)
        if not paths:
            break
        best_score = paths[0].log_prob / n_new**length_penalty
        if len(ended) == n_beams and ended[-1].score >= best_score:
            break
        paths = _place(paths, cache)
    forward.close()
    if config.max_new_tokens == 0:
        return [Beam(ids=[], log_prob=0.0, score=0.0, text="", finished_by="length")]
    return ended


def _extend(
    forward: Forward,
    cache: KVCache,
    paths: list[_Path],
    prompt: list[int],
    config: GenerationConfig,
    forbidden_ids: Tensor,
    *,
    n_kept: int,
) -> list[_Path]:
    """Find the most likely ways to add one token to any of the paths, best first; each has its parent's slot."""
    rows = [prompt + path.new for path in paths]
    works = [work_on(cache, path.slot, row, use_cache=config.use_cache) for path, row in zip(paths, rows)]
    logits = torch.cat([scores.logits for scores in forward(works) if scores is not None])  # (B, V)
    logits = logits.index_fill(1, forbidden_ids, -math.inf)
    check_scores(logits)
    log_probs = logits.log_softmax(dim=-1)  # (B, V)
    if config.repetition_penalty is not None:
        log_probs = penalize_repetition(log_probs, rows, config.repetition_penalty)
    so_far = log_probs.new_tensor([path.log_prob for path in paths])  # (B,)
    totals = (log_probs + so_far[:, None]).flatten()  # (B * V,)
    best, places = totals.topk(min(n_kept, len(totals)))
    extended = []
    for total, place in zip(best.tolist(), places.tolist(), strict=True):
        row, token_id = divmod(place, log_probs.shape[1])
        if total > -math.inf:
            parent = paths[row]
            extended.append(_Path(slot=parent.slot, new=[*parent.new, token_id], log_prob=total))
    return extended


def _place(paths: list[_Path], cache: KVCache) -> list[_Path]:
    """Give each path a slot: its parent's for the first child, a free one with a copy for the others."""
    free = [*set(range(cache.n_slots)).difference(path.slot for path in paths)]
    taken: set[int] = set()
    placed = []
    for path in paths:
        slot = path.slot if path.slot not in taken else free.pop()
        if slot != path.slot:
            cache.fork(path.slot, slot)
        taken.add(slot)
        placed.append(_Path(slot=slot, new=path.new, log_prob=path.log_prob))
    return placed


def _ending(
    path: _Path, config: GenerationConfig, prompt: list[int], tokenizer: Tokenizer | None
) -> FinishedBy | None:
    """The reason why a path ends with its last token, or None if it does not."""
    if path.new[-1] in config.stop_ids:
        return "stop_id"
    if config.stop_texts and _text(path.new, config, prompt, tokenizer)[1]:
        return "stop_text"
    return "length" if len(path.new) == config.max_new_tokens else None


def _beam(
    path: _Path,
    ending: FinishedBy,
    config: GenerationConfig,
    prompt: list[int],
    tokenizer: Tokenizer | None,
    length_penalty: float,
) -> Beam:
    ids = path.new[:-1] if ending == "stop_id" else path.new
    return Beam(
        ids=ids,
        log_prob=path.log_prob,
        score=path.log_prob / len(path.new) ** length_penalty,
        text=_text(ids, config, prompt, tokenizer)[0],
        finished_by=ending,
    )


def _text(
    ids: Sequence[int], config: GenerationConfig, prompt: list[int], tokenizer: Tokenizer | None
) -> tuple[str, bool]:
    """The text of new ids up to a stop text, and whether there was one."""
    if tokenizer is None:
        return "", False
    decoder, gate = stream_decoder(tokenizer, after=prompt), StopTextGate(config.stop_texts)
    text = "".join(gate.push(decoder.push(token_id)) for token_id in ids)
    text += gate.push(decoder.flush()) + gate.flush()
    return text, gate.found is not None


def check_beams(config: GenerationConfig, *, n_beams: int, length_penalty: float) -> None:
    """Check the settings of a beam search.

    Raises: ConfigError.
    """
    if isinstance(n_beams, bool) or not isinstance(n_beams, int) or n_beams < 1:
        raise ConfigError(f"n_beams must be a whole number of at least 1, got {n_beams!r}; 4 is usual.")
    if not math.isfinite(length_penalty):
        raise ConfigError(f"length_penalty must be a finite number, got {length_penalty}; 1 is usual.")
    sampling = [name for name in ("top_k", "top_p", "min_p", "seed") if getattr(config, name) is not None]
    if not config.is_greedy or sampling:
        found = ", ".join(sampling) if config.is_greedy else f"temperature={config.temperature}"
        raise ConfigError(
            f"beam search does not sample, got {found}; leave that out, or sample without beams."
        )
