"""Endpoints that only the page uses: beam searches with their trees, weights, and what the server has."""

import dataclasses
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse

from scratchlm import __version__
from scratchlm.generation.beam import BeamNode, beam_search
from scratchlm.generation.token_bytes import text_of_token
from scratchlm.serving.documented import CLIENT_ERRORS
from scratchlm.serving.jobs import RowRequest
from scratchlm.serving.json_body import Strict, StrictJSONRoute
from scratchlm.serving.language_model import LanguageModel
from scratchlm.serving.model_views import describe_parts, weight_histograms
from scratchlm.serving.openai_schemas import ChatMessage
from scratchlm.serving.prompts import given_prompt, rows_of
from scratchlm.serving.request_errors import RequestError
from scratchlm.serving.schemas import MAX_ITEMS, AnswerModel, ModelId, TokenIds
from scratchlm.serving.security import is_from_this_machine
from scratchlm.serving.service import Service
from scratchlm.serving.token_views import has_gpt2

MAX_BEAMS, MAX_BEAM_TOKENS = 8, 64  # a search runs in one piece, and other texts wait for it


class BeamsRequest(Strict):
    """`/api/beams`."""

    model: ModelId
    prompt: str | TokenIds | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=MAX_ITEMS)
    n_beams: int = Field(default=4, ge=1, le=MAX_BEAMS)
    length_penalty: Annotated[float, Field(ge=0, le=10)] = 1.0
    max_tokens: int = Field(default=24, ge=1, le=MAX_BEAM_TOKENS)


class FoundBeam(AnswerModel):
    """A text that the search found; log_prob in nats, score is what beams are ranked by."""

    ids: list[int]
    text: str
    log_prob: float
    score: float
    finished_by: str


class TreeNode(AnswerModel):
    """A token that the search considered; parent 0 is the prompt."""

    number: int
    parent: int
    group: int
    id: int
    text: str
    log_prob: float
    fate: Literal["continued", "ended", "dropped"]


class BeamsAnswer(AnswerModel):
    """The texts, best first, and the tree of the search."""

    beams: list[FoundBeam]
    nodes: list[TreeNode]


class PartsRequest(Strict):
    """`/api/parts`: a model's parts; with `part`, the weights of that part as histograms."""

    model: ModelId
    part: str | None = Field(default=None, max_length=100)


class WeightTensor(AnswerModel):
    """One tensor of weights; with a histogram its counts from low to high, the outermost including all beyond."""

    name: str
    shape: list[int]
    n_parameters: int
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    counts: list[int] | None = None


class ModelPart(AnswerModel):
    """A part of a model: an embedding, a block, the final norm or the output head."""

    name: str
    n_parameters: int
    tensors: list[WeightTensor]


class PartsAnswer(AnswerModel):
    """The configuration and the parts, in the order in which data flows through them."""

    config: dict[str, Any]
    n_parameters: int
    parts: list[ModelPart]


class PageFacts(AnswerModel):
    """What the page needs to know of the server."""

    version: str
    has_gpt2: bool = Field(description="whether GPT-2's tokenizer is on this machine")
    can_control_runs: bool = Field(description="whether this page may start and stop runs")


def page_router_api(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(route_class=StrictJSONRoute, tags=["page"], responses=CLIENT_ERRORS["plain"])

    @router.get("/api/page", response_model=PageFacts)
    async def page_facts(request: Request) -> Any:
        """What the page needs to know of the server."""
        return {
            "version": __version__,
            "has_gpt2": await service.encode(has_gpt2),
            "can_control_runs": service.control is not None
            and is_from_this_machine(request, service.settings),
        }

    @router.post("/api/beams", response_model=BeamsAnswer)
    async def beams(body: BeamsRequest) -> Any:
        """Search for the most likely continuations."""
        model = service.models.find(body.model)
        encode = given_prompt(model, body.prompt, body.messages)
        [row] = await service.encode(lambda: rows_of(model, encode(), {}, max_new_tokens=body.max_tokens))
        return JSONResponse(await service.call(model, lambda lm: search(lm, row, body)))

    @router.post("/api/parts", response_model=PartsAnswer, response_model_exclude_none=True)
    async def parts(body: PartsRequest) -> Any:
        """The parts of a model: shapes, numbers of weights, and for one part their distribution."""
        model = service.models.find(body.model)
        found = await service.call(model, lambda lm: describe_parts(lm.model))
        if body.part is not None:
            if body.part not in [part["name"] for part in found["parts"]]:
                message = f"{model.id} has no part {body.part!r}; leave part out to see all."
                raise RequestError(message, HTTPStatus.NOT_FOUND, param="part")
            part = body.part
            found["parts"] = [await service.call(model, lambda lm: weight_histograms(lm.model, part))]
        return JSONResponse(found)

    return router


def search(lm: LanguageModel, row: RowRequest, body: BeamsRequest) -> dict[str, Any]:
    """Run a beam search and keep its tree."""
    nodes: list[BeamNode] = []
    prompt = list(row.prompt_ids) or [row.config.start_id or 0]
    found = beam_search(
        lm.model,
        prompt,
        row.config,
        n_beams=body.n_beams,
        length_penalty=body.length_penalty,
        tokenizer=lm.tokenizer,
        tree=nodes,
    )
    return {
        "beams": [dataclasses.asdict(beam) for beam in found],
        "nodes": [
            {**dataclasses.asdict(node), "text": text_of_token(lm.tokenizer, node.id)} for node in nodes
        ],
    }
