"""How each token of an answer was chosen: recorded during generation, or computed afterwards from its ids."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import torch

from scratchlm.generation.choose import TokenChooser
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.requests import ids_without_token
from scratchlm.generation.trace import RowTrace, with_texts
from scratchlm.model.modes import evaluation_mode
from scratchlm.serving.jobs import GenerationJob
from scratchlm.serving.language_model import LanguageModel
from scratchlm.serving.streams import DONE, EVENT_STREAM, JobStream, sse


def trace_steps(
    lm: LanguageModel, prompt_ids: Sequence[int], ids: Sequence[int], config: GenerationConfig, *, n: int
) -> list[dict[str, Any]]:
    """How the chain of `config` treats each token of an answer, from one pass over prompt and answer.

    Shapes: N ids -> N steps with n candidates each, as RowTrace describes them.
    """
    if not ids:
        return []
    trace = RowTrace(n_candidates=n)
    given = list(prompt_ids) or [config.start_id or 0]
    chooser = TokenChooser(
        config,
        given,
        generator=torch.Generator(),
        tokenizer=lm.tokenizer,
        forbidden_ids=ids_without_token(lm.model, lm.tokenizer, stop_ids=config.stop_ids),
        trace=trace,
    )
    tokens = torch.tensor([[*given, *ids][:-1]], device=next(lm.model.parameters()).device)  # (1, T)
    with evaluation_mode(lm.model), torch.inference_mode():
        states = lm.model.hidden_states(tokens)[0, len(given) - 1 :]  # (N, E)
        for state, token_id in zip(states, ids):
            chooser.distribution(lm.model.out_head(state).float().cpu())
            trace.chose(token_id)
            chooser.took(token_id)
    return trace.steps


def streamed_trace(job: GenerationJob, trace: RowTrace) -> JobStream:
    """Send the ids of the prompt, every step as soon as its token is chosen, and at the end the whole text."""
    pieces = _pieces(job, trace)
    return JobStream(job, pieces, media_type=EVENT_STREAM, error_piece=lambda e: sse({"error": e.detail}))


async def _pieces(job: GenerationJob, trace: RowTrace) -> AsyncIterator[str]:
    tokenizer, n_sent = job.model.tokenizer, 0
    yield sse({"prompt_ids": list(job.rows[0].prompt_ids)})
    async for events in job.events():
        n_new = sum(event.token.id is not None for event in events)  # a stop id is no part of the answer
        if n_new:
            yield sse({"steps": with_texts(trace.steps[n_sent : n_sent + n_new], tokenizer)})
            n_sent += n_new
    ids = [step["id"] for step in trace.steps[:n_sent]]
    yield sse({"ids": ids, "text": tokenizer.decode(ids)})
    yield DONE
