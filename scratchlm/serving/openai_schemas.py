"""Requests and answers of OpenAI's protocol, as far as this server implements it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scratchlm.serving.json_body import Strict
from scratchlm.serving.schemas import (
    MAX_COPIES,
    MAX_ITEMS,
    MAX_TOP_LOGPROBS,
    AnswerModel,
    ManyTokenIds,
    ModelId,
    NewTokens,
    Sampling,
    TextPart,
    Texts,
    TokenIds,
)

Content = str | Annotated[list[TextPart], Field(max_length=MAX_ITEMS)]


def content_text(content: Content) -> str:
    """The content of a message as one text."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


class Unused(Strict):
    """Fields that clients send and that change nothing here: names for statistics, defaults of hosted services."""

    user: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class ChatMessage(Strict):
    """One message. The fields that are null only are those of earlier answers that a client sends back."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content | None = None
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return content_text(self.content or "")


class StreamOptions(Strict):
    """Settings of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class JSONSchema(Strict):
    """A named JSON schema that the answer must match."""

    name: str = Field(max_length=64)
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer: any text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema must be given exactly when type is json_schema")
        return self

    def settings(self) -> dict[str, Any]:
        """The constraint of GenerationConfig."""
        if self.json_schema is not None:
            return {"json_schema": self.json_schema.schema_}
        return {"json_schema": {"type": "object"}} if self.type == "json_object" else {}


class ChatRequest(Sampling, Unused):
    """`/v1/chat/completions`."""

    model: ModelId
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_ITEMS)
    max_tokens: NewTokens | None = None
    max_completion_tokens: NewTokens | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_COPIES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    tools: list[Any] | None = Field(default=None, description="refused: the models here call no tools")
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None


class CompletionRequest(Sampling, Unused):
    """`/v1/completions`; a prompt is a text or its token ids, one or several."""

    model: ModelId
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_ITEMS)] | TokenIds | ManyTokenIds
    max_tokens: Annotated[int, Field(ge=0, le=1 << 24)] | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_COPIES)
    best_of: int | None = Field(default=None, ge=1, le=MAX_COPIES, description="must equal n")
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    suffix: Literal[""] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None


class EmbeddingRequest(Strict):
    """`/v1/embeddings`."""

    model: ModelId
    input: Texts | TokenIds | ManyTokenIds
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, description="must be the width of the model")
    user: str | None = None


class Usage(AnswerModel):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class TopLogprob(AnswerModel):
    """An alternative to a token."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer with its alternatives."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(AnswerModel):
    """The tokens of an answer."""

    content: list[TokenLogprob]


class AnswerMessage(AnswerModel):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(AnswerModel):
    """One answer of a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(AnswerModel):
    """Answer of `/v1/chat/completions`; streamed, its pieces are server-sent events that end with `[DONE]`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextLogprobs(AnswerModel):
    """The tokens of a completion, in four lists of one length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(AnswerModel):
    """One completion."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class TextCompletion(AnswerModel):
    """Answer of `/v1/completions`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Embedding(AnswerModel):
    """One embedding: the mean of the final states of a text's tokens, as numbers or as base64 of float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingList(AnswerModel):
    """Answer of `/v1/embeddings`."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ModelCard(AnswerModel):
    """One model, with what clients want to know before they use it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["scratchlm"] = "scratchlm"
    kind: str
    can_chat: bool
    supports_conversations: bool  # false: trained on single questions
    context_length: int
    n_parameters: int
    n_bits: int
    vocab_size: int
    classes: list[str]


class ModelCards(AnswerModel):
    """Answer of `/v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class OpenAIErrorDetail(AnswerModel):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(AnswerModel):
    """An error in OpenAI's form."""

    error: OpenAIErrorDetail
