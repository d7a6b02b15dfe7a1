"""OpenAI's protocol: models, chat completions, completions and embeddings."""

import base64
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from scratchlm.serving.documented import CLIENT_ERRORS, streamed
from scratchlm.serving.jobs import RowRequest
from scratchlm.serving.json_body import StrictJSONRoute
from scratchlm.serving.models import ServedModel
from scratchlm.serving.openai_answers import ChatForm, TextForm, respond
from scratchlm.serving.openai_schemas import (
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    EmbeddingList,
    EmbeddingRequest,
    ModelCard,
    ModelCards,
    TextCompletion,
)
from scratchlm.serving.prompts import ChatTurn, chat_prompt, check_length, rows_of, text_prompt
from scratchlm.serving.request_errors import RequestError
from scratchlm.serving.scoring import mean_state
from scratchlm.serving.service import Service
from scratchlm.serving.streams import EVENT_STREAM
from scratchlm.tokenizers.special_tokens import encode_from_start

DEFAULTS = {"temperature": 1.0}  # of the protocol
DEFAULT_COMPLETION_TOKENS = 16  # of the protocol


def openai_router(service: Service) -> APIRouter:
    """The endpoints below /v1, without responses, which have a file of their own."""
    router = APIRouter(
        prefix="/v1", route_class=StrictJSONRoute, tags=["OpenAI"], responses=CLIENT_ERRORS["openai"]
    )

    @router.get("/models", response_model=ModelCards)
    async def list_models() -> Any:
        """List the models."""
        return {"object": "list", "data": [model_card(model) for model in await service.list_models()]}

    @router.get("/models/{model_id:path}", response_model=ModelCard)
    async def show_model(model_id: str) -> Any:
        """Describe one model."""
        return model_card(service.models.find(model_id))

    @router.post("/chat/completions", response_model=ChatCompletion, responses=streamed(EVENT_STREAM))
    async def chat(body: ChatRequest, request: Request) -> Any:
        """Answer a conversation; a last message of the assistant is continued."""
        refuse_tools(body.tools, body.functions)
        model, n, n_top = service.models.find(body.model), body.n or 1, body.top_logprobs or 0
        if n_top and not body.logprobs:
            message = "top_logprobs needs logprobs: true; set it."
            raise RequestError(message, param="top_logprobs")
        settings = body.settings(**DEFAULTS) | (
            body.response_format.settings() if body.response_format else {}
        )
        turns = [ChatTurn(message.role, message.text) for message in body.messages]
        limit = body.max_completion_tokens or body.max_tokens

        def prepare() -> list[RowRequest]:
            prompt = chat_prompt(model, turns)
            return rows_of(model, prompt, settings, max_new_tokens=limit, n=n, n_logprobs=n_top)

        job = await service.generate(model, n, prepare)
        return await respond(request, ChatForm(job, has_logprobs=bool(body.logprobs)), body)

    @router.post("/completions", response_model=TextCompletion, responses=streamed(EVENT_STREAM))
    async def complete(body: CompletionRequest, request: Request) -> Any:
        """Continue a text, or several."""
        model, n = service.models.find(body.model), body.n or 1
        if body.best_of not in (None, n):
            message = f"best_of must equal n, got {body.best_of} and {n}; leave it out."
            raise RequestError(message, param="best_of")
        if body.echo and body.stream:
            raise RequestError("echo cannot be streamed; leave one of them out.", param="echo")
        settings = body.settings(**DEFAULTS) | (
            body.response_format.settings() if body.response_format else {}
        )
        limit = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        prompts = prompts_of(body.prompt)

        def prepare() -> list[RowRequest]:
            rows: list[RowRequest] = []
            for prompt in (text_prompt(model, one) for one in prompts):
                rows += rows_of(
                    model, prompt, settings, max_new_tokens=limit, n=n, n_logprobs=body.logprobs or 0
                )
            return rows

        job = await service.generate(model, n * len(prompts), prepare)
        form = TextForm(job, n_logprobs=body.logprobs)
        try:
            if body.echo:
                await form.read_prompts(service, prompts, n)
        except BaseException:
            job.close()
            raise
        return await respond(request, form, body)

    @router.post("/embeddings", response_model=EmbeddingList)
    async def embed(body: EmbeddingRequest) -> Any:
        """The mean of the final states of each text's tokens."""
        model = service.models.find(body.model)
        width = model.config.emb_dim
        if body.dimensions not in (None, width):
            message = (
                f"dimensions must be {width}, the width of {model.id}, got {body.dimensions}; leave it out."
            )
            raise RequestError(message, param="dimensions")
        found, n_tokens = await embeddings(service, model, prompts_of(body.input))
        shown: list[list[float]] | list[str] = found
        if body.encoding_format == "base64":
            shown = [base64.b64encode(struct.pack(f"<{len(one)}f", *one)).decode() for one in found]
        data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(shown)]
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return JSONResponse({"object": "list", "data": data, "model": model.id, "usage": usage})

    return router


def refuse_tools(*given: Sequence[Any] | None) -> None:
    """Raise RequestError when a request has tools."""
    if any(given):
        message = "the models of this server call no tools; leave tools out."
        raise RequestError(message, code="unsupported_parameter", param="tools")


def prompts_of(value: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """One prompt, or several, as a list; token ids are a prompt of their own."""
    if isinstance(value, str) or (value and isinstance(value[0], int)):
        return [value]
    return cast("list[str | list[int]]", value)


async def embeddings(
    service: Service,
    model: ServedModel,
    texts: Sequence[str | list[int]],
    *,
    truncate: bool = False,
    context_length: int | None = None,
) -> tuple[list[list[float]], int]:
    """The mean state of each text, and the number of tokens of all.

    context_length: a limit below the model's own.
    Raises: RequestError for a text beyond the context, unless it is to be truncated.
    """
    limit = min(model.config.context_length, context_length or model.config.context_length)

    def encode() -> list[list[int]]:
        encoded = [encode_from_start(model.tokenizer, t) if isinstance(t, str) else t for t in texts]
        if truncate:
            encoded = [ids[:limit] for ids in encoded]
        for ids in encoded:
            check_length(model, len(ids), limit)
        return encoded

    encoded = await service.encode(encode)
    found = [await service.call(model, partial(mean_state, ids=ids)) for ids in encoded]
    return found, sum(map(len, encoded))


def model_card(model: ServedModel) -> dict[str, Any]:
    """A model as `/v1/models` shows it."""
    return {
        "id": model.id,
        "created": int(model.modified_at),
        "kind": model.kind,
        "can_chat": model.template is not None,
        "supports_conversations": model.supports_conversations,
        "context_length": model.config.context_length,
        "n_parameters": model.n_parameters,
        "n_bits": model.n_bits,
        "vocab_size": model.config.vocab_size,
        "classes": list(model.class_names),
    }
