"""Requests and answers of our own endpoints."""

from typing import Annotated, Any, Literal

from pydantic import Field

from scratchlm.serving.json_body import Strict
from scratchlm.serving.openai_schemas import ChatMessage
from scratchlm.serving.schemas import MAX_ITEMS, AnswerModel, ModelId, NewTokens, Sampling, Text, TokenIds

MAX_MERGE_CHARACTERS = 200  # of a text whose merges are shown


class ClassifyRequest(Strict):
    """`/api/classify`."""

    model: ModelId
    texts: list[Text] = Field(max_length=MAX_ITEMS)


class ClassResult(AnswerModel):
    """The label of a text."""

    text: str
    label: str
    probability: float
    truncated: bool
    probabilities: dict[str, float]


class ClassifyAnswer(AnswerModel):
    """The labels in the order of the texts."""

    results: list[ClassResult]


class TokenizeRequest(Strict):
    """`/api/tokenize`: with a model's tokenizer, GPT-2's, or one that splits at words."""

    model: ModelId | None = None
    kind: Literal["model", "gpt2", "word"] = "model"
    text: str
    merges: bool = Field(
        default=False, description="also the merges that make each token, one after the other"
    )


class Token(AnswerModel):
    """One token; `text` has replacement characters where its bytes are no whole character."""

    id: int | None
    text: str
    bytes: list[int]


class TokenizeAnswer(AnswerModel):
    """The tokens, and with `merges` the parts of each token after every merge, from its bytes on."""

    kind: str
    vocab_size: int | None
    n_tokens: int
    ids: list[int]
    tokens: list[Token]
    merges: list[list[list[str]]] | None = None


class DetokenizeRequest(Strict):
    """`/api/detokenize`."""

    model: ModelId
    ids: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(max_length=1 << 20)]


class DetokenizeAnswer(AnswerModel):
    """The text of the ids."""

    text: str


class InspectRequest(Strict):
    """`/api/inspect`."""

    model: ModelId
    prompt: Text
    targets: list[Text] = Field(default=[], max_length=8, description="tokens or classes to explain as well")
    n_choices: int = Field(default=3, ge=1, le=20)
    n_top: int = Field(default=5, ge=1, le=20)


class TraceRequest(Sampling):
    """`/api/trace`: how each token of an answer was chosen; with `ids` of that answer, without generating a new one."""

    model: ModelId
    prompt: str | TokenIds | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=MAX_ITEMS)
    ids: list[Annotated[int, Field(ge=0, lt=1 << 31)]] | None = Field(default=None, max_length=4096)
    max_tokens: NewTokens = 32
    n_candidates: int = Field(default=10, ge=1, le=50)
    stream: bool = False


class TraceAnswer(AnswerModel):
    """The steps: candidates before and after the chain, and what each of its steps removed.

    Streamed, the server-sent events have prompt_ids, then steps, at last ids and text, and end with `[DONE]`.
    """

    prompt_ids: list[int]
    ids: list[int]
    text: str
    steps: list[dict[str, Any]]


class Health(AnswerModel):
    """Whether the server works."""

    status: Literal["ok"]
    models: int
    running: int
