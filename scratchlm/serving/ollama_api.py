"""Ollama's protocol: chat, generate, embed, and the list of models."""

import math
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from scratchlm import __version__
from scratchlm.core.config import to_dict
from scratchlm.data.chat_template import ChatTemplate
from scratchlm.serving.answers import RowText, TokenScore, collect_rows, score_entry
from scratchlm.serving.documented import CLIENT_ERRORS, streamed
from scratchlm.serving.jobs import GenerationJob, RowRequest
from scratchlm.serving.json_body import StrictJSONRoute
from scratchlm.serving.models import ServedModel
from scratchlm.serving.ollama_schemas import (
    OllamaAnswer,
    OllamaChatRequest,
    OllamaEmbeddings,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
    OllamaModels,
    OllamaRequest,
    OllamaShow,
    OllamaShowRequest,
    OllamaVersion,
    Options,
    seconds,
)
from scratchlm.serving.openai_api import embeddings, refuse_tools
from scratchlm.serving.prompts import ChatTurn, chat_prompt, rows_of, text_prompt
from scratchlm.serving.request_errors import RequestError
from scratchlm.serving.service import Service
from scratchlm.serving.streams import NDJSON, JobStream, ndjson

NS = 1e9
NEVER = "2318-01-01T00:00:00Z"  # when a model without keep_alive expires, as Ollama writes it
FORM_OF_PROMPT = "{{ .Prompt }}"


def ollama_router(service: Service) -> APIRouter:
    """The endpoints of Ollama's protocol."""
    router = APIRouter(
        prefix="/api", route_class=StrictJSONRoute, tags=["Ollama"], responses=CLIENT_ERRORS["plain"]
    )

    @router.post("/chat", response_model=OllamaAnswer, responses=streamed(NDJSON))
    async def chat(body: OllamaChatRequest, request: Request) -> Any:
        """Answer a conversation; a last message of the assistant is continued."""
        refuse_tools(body.tools)
        model = service.models.find(body.model)
        if not body.messages:
            return await _load_only(service, model, body, {"message": {"role": "assistant", "content": ""}})
        turns = [ChatTurn(message.role, message.content or "") for message in body.messages]
        return await _answer(service, model, body, request, turns)

    @router.post("/generate", response_model=OllamaAnswer, responses=streamed(NDJSON))
    async def generate(body: OllamaGenerateRequest, request: Request) -> Any:
        """Answer a request, or with raw, and from a model without a template, continue a text."""
        model = service.models.find(body.model)
        if not body.prompt:
            return await _load_only(service, model, body, {"response": ""})
        if body.raw or model.template is None:
            if body.system:
                raise RequestError(
                    "a system prompt needs a model tuned for conversations, and raw: false; leave it out."
                )
            return await _answer(service, model, body, request, body.prompt)
        system = [ChatTurn("system", body.system)] if body.system else []
        return await _answer(service, model, body, request, [*system, ChatTurn("user", body.prompt)])

    @router.post("/embed", response_model=OllamaEmbeddings)
    async def embed(body: OllamaEmbedRequest) -> Any:
        """The mean of the final states of each text's tokens, scaled to length one."""
        model, started_s = service.models.find(body.model), time.perf_counter()
        if body.dimensions not in (None, model.config.emb_dim):
            raise RequestError(
                f"dimensions must be {model.config.emb_dim}, the width of {model.id}, got {body.dimensions}."
            )
        texts = [body.input] if isinstance(body.input, str) else body.input
        limit = body.options.num_ctx if body.options else None
        found, n_tokens = await embeddings(
            service, model, texts, truncate=body.truncate is not False, context_length=limit
        )
        await service.call(model, lambda lm: lm.kind, keep_alive=seconds(body.keep_alive))
        return {
            "model": model.id,
            "embeddings": [_unit(one) for one in found],
            "total_duration": int((time.perf_counter() - started_s) * NS),
            "load_duration": 0,
            "prompt_eval_count": n_tokens,
        }

    @router.get("/tags", response_model=OllamaModels, response_model_exclude_none=True)
    async def list_models() -> Any:
        """List the models."""
        models = await service.list_models()
        return {"models": [{**_about(model), "modified_at": _time(model.modified_at)} for model in models]}

    @router.get("/ps", response_model=OllamaModels, response_model_exclude_none=True)
    async def list_loaded() -> Any:
        """List the models that are loaded."""
        return {
            "models": [
                {
                    **_about(model),
                    "expires_at": _expires_at(model),
                    "size_vram": 0,
                    "context_length": model.config.context_length,
                }
                for model in service.models
                if model.lm is not None
            ]
        }

    @router.post("/show", response_model=OllamaShow)
    async def show(body: OllamaShowRequest) -> Any:
        """Describe a model."""
        name = body.model or body.name
        if name is None:
            raise RequestError("model is missing; add it.")
        return _shown(service.models.find(name))

    @router.get("/version", response_model=OllamaVersion)
    async def version() -> Any:
        """The version of scratchlm."""
        return {"version": __version__}

    return router


async def _answer(
    service: Service,
    model: ServedModel,
    body: OllamaRequest,
    request: Request,
    asked: str | Sequence[ChatTurn],
) -> Response:
    """Generate the answer to a conversation or to a text, and send it whole or in lines."""
    if body.truncate or body.shift:
        message = "truncate and shift must be false: a prompt beyond the context is refused, and nothing is forgotten."
        raise RequestError(message)
    settings, options = body.settings(), body.options or Options()
    n_top = (body.top_logprobs or 0) if body.logprobs else 0

    def prepare() -> list[RowRequest]:
        prompt = text_prompt(model, asked) if isinstance(asked, str) else chat_prompt(model, asked)
        limit = options.num_predict if (options.num_predict or 0) > 0 else None
        context = options.num_ctx
        return rows_of(
            model, prompt, settings, max_new_tokens=limit, n_logprobs=n_top, context_length=context
        )

    job = await service.generate(model, 1, prepare, keep_alive=seconds(body.keep_alive))
    form = _Lines(job, is_chat=not isinstance(body, OllamaGenerateRequest), has_logprobs=bool(body.logprobs))
    if body.stream is not False:
        pieces = form.lines(RowText(job.rows[0].lead))
        return JobStream(job, pieces, media_type=NDJSON, error_piece=lambda e: ndjson({"error": e.detail}))
    [row] = await collect_rows(job, request)
    return JSONResponse(form.line(row.text, row.scores) | form.end(row))


class _Lines:
    def __init__(self, job: GenerationJob, *, is_chat: bool, has_logprobs: bool) -> None:
        self.job, self.is_chat, self.has_logprobs = job, is_chat, has_logprobs

    async def lines(self, row: RowText) -> AsyncIterator[str]:
        """One line for each piece of text, then one with the counts."""
        async for events in self.job.events():
            pieces = []
            for event in events:
                text, new = row.take(event)
                if text or (new and self.has_logprobs):
                    pieces.append(ndjson(self.line(text, new)))
            yield "".join(pieces)
        yield ndjson(self.line("", []) | self.end(row))

    def line(self, text: str, scores: Sequence[TokenScore]) -> dict[str, Any]:
        content = {"message": {"role": "assistant", "content": text}} if self.is_chat else {"response": text}
        found = {"model": self.job.model.id, "created_at": _time(time.time()), **content, "done": False}
        if self.has_logprobs and scores:
            found["logprobs"] = [score_entry(self.job.model.tokenizer, score) for score in scores]
        return found

    def end(self, row: RowText) -> dict[str, Any]:
        """What the last line has in addition."""
        now_s = time.perf_counter()
        first_s = self.job.first_token_s or now_s
        return {
            "done": True,
            "done_reason": row.finish_reason,
            "total_duration": int((now_s - self.job.opened_s) * NS),
            "load_duration": 0,
            "prompt_eval_count": self.job.n_prompt_tokens,
            "prompt_eval_duration": int((first_s - self.job.opened_s) * NS),
            "eval_count": self.job.n_tokens,
            "eval_duration": int((now_s - first_s) * NS),
        }


async def _load_only(
    service: Service, model: ServedModel, body: OllamaRequest, content: dict[str, Any]
) -> Response:
    """Load a model, or unload it with keep_alive 0."""
    wish = seconds(body.keep_alive)
    if wish == 0:
        model.keep(wish)
    else:
        await service.call(model, lambda lm: lm.kind, keep_alive=wish)
    reason = "unload" if wish == 0 else "load"
    return JSONResponse(
        {"model": model.id, "created_at": _time(time.time()), **content, "done": True, "done_reason": reason}
    )


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else list(vector)


def _about(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.id,
        "model": model.id,
        "size": model.size_bytes,
        "digest": model.digest,
        "details": _details(model),
    }


def _details(model: ServedModel) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "scratchlm",
        "family": model.family,
        "families": [model.family],
        "parameter_size": _short_count(model.n_parameters),
        "quantization_level": "F32" if model.n_bits == 32 else f"{model.n_bits} bits",
    }


def _short_count(n: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size:
            return f"{n / size:.1f}{unit}"
    return str(n)


def _shown(model: ServedModel) -> dict[str, Any]:
    chosen = model.template
    form = FORM_OF_PROMPT
    if chosen is not None:
        form = chosen.source if isinstance(chosen, ChatTemplate) else chosen.name
    info = {f"{model.family}.{name}": value for name, value in to_dict(model.config).items()}
    capabilities = [] if model.kind == "classification" else ["completion"]
    return {
        "modelfile": f"FROM {model.id}\n",
        "parameters": "",
        "template": form,
        "details": _details(model),
        "model_info": {
            "general.architecture": model.family,
            "general.parameter_count": model.n_parameters,
            f"{model.family}.embedding_length": model.config.emb_dim,
            **info,
        },
        "capabilities": [*capabilities, "embedding"],
        "modified_at": _time(model.modified_at),
    }


def _expires_at(model: ServedModel) -> str:
    if model.keep_s is None:
        return NEVER
    return _time(time.time() + model.keep_s - (time.monotonic() - model.used_at))


def _time(seconds_since_1970: float) -> str:
    return datetime.fromtimestamp(seconds_since_1970, tz=timezone.utc).isoformat().replace("+00:00", "Z")
