"""Our own endpoints: classify, tokenize, inspect, trace, health and metrics."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from scratchlm.generation.trace import RowTrace, with_texts
from scratchlm.inspection.inspect_prompt import inspect_prompt
from scratchlm.serving.answers import collect_rows
from scratchlm.serving.documented import CLIENT_ERRORS, streamed
from scratchlm.serving.jobs import RowRequest
from scratchlm.serving.json_body import StrictJSONRoute
from scratchlm.serving.language_model import LanguageModel
from scratchlm.serving.metrics import CONTENT_TYPE
from scratchlm.serving.own_schemas import (
    ClassifyAnswer,
    ClassifyRequest,
    DetokenizeAnswer,
    DetokenizeRequest,
    Health,
    InspectRequest,
    TokenizeAnswer,
    TokenizeRequest,
    TraceAnswer,
    TraceRequest,
)
from scratchlm.serving.prompts import check_length, given_prompt, rows_of
from scratchlm.serving.request_errors import RequestError
from scratchlm.serving.service import Service
from scratchlm.serving.streams import EVENT_STREAM
from scratchlm.serving.token_views import tokenized
from scratchlm.serving.traces import streamed_trace, trace_steps

CLASSIFY_AT_ONCE = 32  # texts between which the worker continues the others' answers


def own_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(route_class=StrictJSONRoute, tags=["scratchlm"], responses=CLIENT_ERRORS["plain"])

    @router.post("/api/classify", response_model=ClassifyAnswer)
    async def classify(body: ClassifyRequest) -> Any:
        """Label texts, in their order."""
        model = service.models.find(body.model)
        if model.kind != "classification":
            message = f"{model.id} is not a classifier but a {model.kind}; name a classifier."
            raise RequestError(message, param="model")
        results: list[dict[str, Any]] = []
        for first in range(0, len(body.texts), CLASSIFY_AT_ONCE):
            texts = body.texts[first : first + CLASSIFY_AT_ONCE]
            results += [
                {
                    "text": found.text,
                    "label": found.label,
                    "probability": found.probability,
                    "truncated": found.is_truncated,
                    "probabilities": dict(zip(model.class_names, found.probabilities)),
                }
                for found in await service.call(model, lambda lm, texts=texts: lm.classify(texts))  # type: ignore[misc]
            ]
        return JSONResponse({"results": results})

    @router.post("/api/tokenize", response_model=TokenizeAnswer, response_model_exclude_none=True)
    async def tokenize(body: TokenizeRequest) -> Any:
        """Split a text into tokens; with merges, also show the merges that made each token."""
        model = None if body.model is None else service.models.find(body.model)
        if model is None and body.kind == "model":
            raise RequestError('model is missing; add it, or set kind to "gpt2" or "word".')
        return JSONResponse(await service.encode(lambda: tokenized(model, body)))

    @router.post("/api/detokenize", response_model=DetokenizeAnswer)
    async def detokenize(body: DetokenizeRequest) -> Any:
        """The text of token ids."""
        model = service.models.find(body.model)
        return {"text": await service.encode(lambda: model.tokenizer.decode(body.ids))}

    @router.post("/api/inspect", response_model=dict[str, Any])
    async def inspect(body: InspectRequest) -> Any:
        """What the model computes for a text: attention, logit lens, norms, attribution."""
        model = service.models.find(body.model)

        def look(lm: LanguageModel) -> dict[str, Any]:
            found = inspect_prompt(
                lm.model,
                lm.tokenizer,
                body.prompt,
                task=lm.task,
                targets=body.targets,
                n_choices=body.n_choices,
                n_top=body.n_top,
            )
            return found.as_json()

        return JSONResponse(await service.call(model, look))

    @router.post("/api/trace", response_model=TraceAnswer, responses=streamed(EVENT_STREAM))
    async def trace(body: TraceRequest, request: Request) -> Any:
        """How each token of an answer was chosen; streamed, a step comes as soon as its token is chosen."""
        model = service.models.find(body.model)
        encode = given_prompt(model, body.prompt, body.messages)
        noted = RowTrace(n_candidates=body.n_candidates)

        def prepare() -> list[RowRequest]:
            settings = body.settings(temperature=1.0)
            return rows_of(model, encode(), settings, max_new_tokens=body.max_tokens, trace=noted)

        if body.ids is not None:
            if body.stream:
                message = "ids are traced at once; leave stream out."
                raise RequestError(message, param="stream")
            [row], ids, n = await service.encode(prepare), body.ids, body.n_candidates
            check_length(model, len(row.prompt_ids) + len(ids), model.config.context_length + 1)
            steps = await service.call(
                model, lambda lm: trace_steps(lm, row.prompt_ids, ids, row.config, n=n)
            )
        else:
            job = await service.generate(model, 1, prepare)
            if body.stream:
                return streamed_trace(job, noted)
            [made] = await collect_rows(job, request)
            [row], steps = job.rows, noted.steps[: len(made.scores)]  # a stop id is no part of the answer
            ids = [step["id"] for step in steps]
        steps = await service.encode(lambda: with_texts(steps, model.tokenizer))
        text = await service.encode(lambda: model.tokenizer.decode(ids))
        return JSONResponse({"prompt_ids": list(row.prompt_ids), "ids": ids, "text": text, "steps": steps})

    @router.get("/health", response_model=Health)
    async def health() -> Any:
        """Fails when the worker is stuck."""
        if not service.worker.is_alive(stuck_after_s=service.settings.stuck_after_s):
            message = "the worker does not respond; restart the server."
            raise RequestError(message, HTTPStatus.SERVICE_UNAVAILABLE)
        return {"status": "ok", "models": len(service.models), "running": service.n_open}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters in Prometheus's text format."""
        stats = service.worker.stats
        by_model = {
            "running_texts": {name: one.n_running for name, one in stats.items()},
            "waiting_texts": {name: one.n_waiting for name, one in stats.items()},
            "slots": {name: one.n_slots for name, one in stats.items()},
            "cached_tokens": {name: one.cached_tokens for name, one in stats.items()},
        }
        gauges = {
            "open_texts": ("texts that are generated or wait", float(service.n_open)),
            "capacity_texts": ("texts that may be open", float(service.capacity)),
            "worker_silence_seconds": ("time since the worker's last round", service.worker.silence_s),
        }
        return Response(service.metrics.text(gauges=gauges, by_model=by_model), media_type=CONTENT_TYPE)

    return router
