"""Contrastive search: prefer likely tokens whose state differs from all earlier ones, so that a text keeps moving."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.requests import Request, TokenEvent
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import CacheRows, KVCache
from scratchlm.model.modes import evaluation_mode


def contrastive_search(
    model: GPTModel,
    prompt: Sequence[int],
    config: GenerationConfig,
    *,
    tokenizer: Tokenizer | None = None,
) -> Iterator[TokenEvent]:
    """Continue a prompt by contrastive search, yielding each token as soon as it is chosen.

    Each step reads the top_k most likely tokens v and takes the one with the highest
    (1 - penalty_alpha) * p(v) - penalty_alpha * max_j cos(h_v, h_j), where h are last-layer states and j runs over the
    text. Penalties and other rules on tokens change p. Nothing is drawn.
    Raises: ConfigError without penalty_alpha; DataError for a text longer than the context, whose earlier states would
        change; otherwise as `generate`. All are raised by the call, before the first event.
    Source: Su et al. 2022, equation 5, as transformers implements it.
    """
    if config.penalty_alpha is None or config.top_k is None:
        raise ConfigError("contrastive search needs penalty_alpha and top_k, got None; 0.6 and 4 are usual.")
    rules = dataclasses.replace(config, penalty_alpha=None, top_k=None)
    request = Request(0, prompt, rules, model=model, tokenizer=tokenizer, generator=None)
    n_needed = request.n_prompt + config.max_new_tokens
    if n_needed > model.config.context_length:
        raise DataError(
            f"contrastive search needs the whole text in the context of {model.config.context_length} tokens, got a "
            f"prompt of {request.n_prompt} and max_new_tokens={config.max_new_tokens}; shorten one of them."
        )
    return _events(model, request, alpha=config.penalty_alpha, k=min(config.top_k, model.config.vocab_size))


def _events(model: GPTModel, request: Request, *, alpha: float, k: int) -> Iterator[TokenEvent]:
    """Choose token after token; slot 0 of the cache holds the text, and the others a copy for each candidate."""
    if request.config.max_new_tokens == 0:
        return
    cache = KVCache(model.config, k, capacity=request.n_prompt + request.config.max_new_tokens)
    states = _read(model, [request.ids], cache.rows([0]))[0]  # (T, E)
    context = normalize(states, dim=-1)  # (T, E), of length 1
    while request.finished_by is None:
        logits = _logits(model, states[-1])  # (V,)
        ruled = request.chooser.scores(logits)  # (V,)
        likely, ids = ruled.softmax(dim=-1).topk(k)  # (k,)
        for slot in range(1, k):
            cache.fork(0, slot)
        candidates = _read(model, [[token_id] for token_id in ids.tolist()], cache.rows())  # (k, 1, E)
        similar = (normalize(candidates[:, 0], dim=-1) @ context.mT).amax(dim=-1)  # (k,)
        worth = (1 - alpha) * likely - alpha * similar.cpu()  # (k,)
        # Where the rules leave fewer than k tokens, the others are no candidates, however much they differ.
        place = int(worth.masked_fill(ruled[ids].isneginf(), -torch.inf).argmax())
        cache.fork(place, 0)
        states = candidates[place]  # (1, E)
        context = torch.cat([context, normalize(states, dim=-1)])
        token_id = int(ids[place])
        prob = float(logits.softmax(dim=-1)[token_id])
        request.chooser.took(token_id)
        yield request.take(token_id, prob)


def _read(model: GPTModel, rows: Sequence[Sequence[int]], cache_rows: CacheRows) -> Tensor:
    """States of new tokens, after the last normalisation. Shapes: B rows of T ids -> (B, T, E)."""
    device = next(model.parameters()).device
    with evaluation_mode(model), torch.inference_mode():
        return model.hidden_states(torch.tensor(rows, device=device), cache=cache_rows).float()


def _logits(model: GPTModel, state: Tensor) -> Tensor:
    """Shapes: state (E,) -> (V,), float32 on the CPU."""
    with evaluation_mode(model), torch.inference_mode():
        logits: Tensor = model.out_head(state.to(next(model.parameters()).dtype)[None])[0]
        return logits.float().cpu()
