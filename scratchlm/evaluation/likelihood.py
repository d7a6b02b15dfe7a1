"""Compute the log-likelihood of a continuation after a context, for cloze and multiple-choice tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.gpt import GPTModel
from scratchlm.model.modes import evaluation_mode
from scratchlm.tokenizers.special_tokens import start_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPair:
    """A continuation to score and its context."""

    context: tuple[int, ...]  # at least one token
    continuation: tuple[int, ...]  # at least one token


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihood:
    """The log-likelihood of a continuation under a model."""

    log_prob: float  # in nats, of the whole continuation; at most 0
    is_greedy: bool  # whether greedy decoding would generate exactly this
    n_tokens: int
    n_cropped: int  # number of tokens cut from the beginning of a context that was too long


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> EncodedPair:
    """Encode a text and split its ids into a context and a continuation.

    The whole text is encoded and cut where the context alone would end, so that the tokens are those of plain
    text. White space at the end of the context moves to the continuation, where GPT-2's tokenizer expects it.
    An empty context becomes end-of-text.

    Source: lm-evaluation-harness, `TemplateLM._encode_pair`.
    Raises: DataError when no token is left for the continuation, and for an empty context with a vocabulary that
        has no token to begin with.
    """
    before = start_tokens(tokenizer)
    body = context.rstrip()
    continuation = context[len(body) :] + continuation
    if not body and not before:
        end = tokenizer.end_of_text_id
        if end is None:
            raise DataError(
                "the context is empty and the vocabulary has no end-of-text token; put a word before the continuation."
            )
        before = [end]
    context_ids = before + (tokenizer.encode(body) if body else [])
    whole_ids = before + tokenizer.encode(body + continuation)
    if len(whole_ids) <= len(context_ids):
        raise DataError(
            f"the continuation {continuation!r:.60} after {body[-40:]!r} adds no token; put a space between the two."
        )
    return EncodedPair(context=tuple(context_ids), continuation=tuple(whole_ids[len(context_ids) :]))


def continuation_likelihoods(
    model: GPTModel,
    pairs: Sequence[EncodedPair],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> list[Likelihood]:
    """Score every continuation in batches, the longest first.

    Rows are padded on the right, where causal attention never reads, so the batch size affects only the
    speed. A context that is too long is cut at its beginning; the dropped tokens are counted.

    Units: progress(done, total) counts pairs.
    Raises: DataError for a continuation longer than the model's context; ConfigError for a batch size below 1.
    """
    check_at_least(1, batch_size=batch_size)
    room = model.config.context_length
    for pair in pairs:
        if not pair.context or not 0 < len(pair.continuation) <= room:
            raise DataError(
                f"a pair needs a context and a continuation of 1 to {room} tokens, got {len(pair.context)} and "
                f"{len(pair.continuation)}; shorten it, or use a model with a longer context."
            )
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i].context) - len(pairs[i].continuation))
    found: dict[int, Likelihood] = {}
    with evaluation_mode(model):
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            found |= zip(rows, _score_batch(model, [pairs[i] for i in rows]))
            if progress is not None:
                progress(len(found), len(pairs))
    return [found[i] for i in range(len(pairs))]


def _score_batch(model: GPTModel, pairs: Sequence[EncodedPair]) -> list[Likelihood]:
    device = next(model.parameters()).device
    room = model.config.context_length + 1  # the last token is only a target
    kept = [(pair.context + pair.continuation)[-room:] for pair in pairs]
    width = max(map(len, kept)) - 1
    inputs = torch.zeros(len(pairs), width, dtype=torch.long)
    for row, ids in enumerate(kept):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
    states = model.hidden_states(inputs.to(device))  # (B, T, E)
    scores = []
    for row, (ids, pair) in enumerate(zip(kept, pairs)):
        n = len(pair.continuation)
        wanted = torch.tensor(pair.continuation, device=device)  # (N,)
        logits = model.out_head(states[row, len(ids) - 1 - n : len(ids) - 1]).float()  # (N, V)
        losses = F.cross_entropy(logits, wanted, reduction="none").cpu().double()
        scores.append(
            Likelihood(
                log_prob=-losses.sum().item(),
                is_greedy=bool((logits.argmax(dim=-1) == wanted).all()),
                n_tokens=n,
                n_cropped=len(pair.context) + n - len(ids),
            )
        )
    return scores
