"""Requests and answers of Ollama's protocol, as far as this server implements it."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from scratchlm.serving.json_body import Strict
from scratchlm.serving.schemas import MAX_ITEMS, MAX_TOP_LOGPROBS, AnswerModel, CommonSampling, ModelId, Texts

DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}  # of the protocol
MIROSTAT = {"mirostat_tau": 5.0, "mirostat_eta": 0.1}  # its defaults
UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PLAIN = ("temperature", "top_k", "top_p", "min_p", "typical_p", "presence_penalty", "frequency_penalty")
NEUTRAL = {
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


def seconds(value: float | str | None) -> float | None:
    """A duration such as 30, "30", "10m" or "1h30m" in seconds; negative means for ever, None stays None.

    Raises: ValueError for another text.
    Example:
        >>> seconds("1m30s"), seconds("-1")
        (90.0, -1.0)
    """
    if not isinstance(value, str):
        return value
    text = value.removeprefix("-")
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(value)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    if "".join(number + unit for number, unit in parts) != text or not text or len(text) > 40:
        raise ValueError('a duration must be seconds, or a text such as "10m"')
    total = sum(float(number) * UNITS_S[unit] for number, unit in parts)
    return -total if value.startswith("-") else total


KeepAlive = Annotated[
    Annotated[float, Field(ge=-1e9, le=1e9)] | Annotated[str, Field(max_length=40)], AfterValidator(seconds)
]


class Hardware(Strict):
    """Options for how Ollama runs a model; they change no text, and nothing here."""

    num_thread: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_batch: int | None = None
    num_keep: int | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    f16_kv: bool | None = None
    logits_all: bool | None = None
    vocab_only: Literal[False] | None = None
    embedding_only: Literal[False] | None = None


class Options(Hardware, CommonSampling):
    """How each token is chosen, by Ollama's names."""

    repeat_penalty: float | None = Field(default=None, gt=0, le=100)
    repeat_last_n: int | None = Field(
        default=None, ge=-1, le=1 << 24, description="penalties regard so many tokens; -1: all, 0: no penalty"
    )
    penalize_newline: Literal[True] | None = None
    tfs_z: Annotated[float, Field(ge=1, le=1)] | None = Field(default=None, description="1: switched off")
    mirostat: Literal[0, 2] | None = None
    num_predict: int | None = Field(
        default=None, ge=-2, le=1 << 24, description="below 0: until the context is full"
    )
    num_ctx: int | None = Field(
        default=None, ge=1, le=1 << 24, description="limit of prompt and answer together"
    )

    def settings(self) -> dict[str, Any]:
        """The fields of GenerationConfig, over the protocol's defaults."""
        given = {name: getattr(self, name) for name in PLAIN if getattr(self, name) is not None}
        found = {name: value for name, value in {**DEFAULTS, **given}.items() if NEUTRAL.get(name) != value}
        if self.mirostat == 2:
            found = {name: value for name, value in found.items() if name in given or name == "temperature"}
            found |= {name: getattr(self, name) or value for name, value in MIROSTAT.items()}
        if self.repeat_penalty not in (None, 1.0):
            found["repetition_penalty"] = self.repeat_penalty
        if self.repeat_last_n == 0:
            found = {name: value for name, value in found.items() if not name.endswith("_penalty")}
        elif self.repeat_last_n not in (None, -1):
            found["penalty_window"] = self.repeat_last_n
        return found | self.converted()


class OllamaRequest(Strict):
    """What `/api/chat` and `/api/generate` share."""

    model: ModelId
    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    keep_alive: KeepAlive | None = Field(
        default=None, description="how long the model stays loaded afterwards"
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    think: Literal[False] | None = None
    truncate: bool | None = Field(
        default=None, description="only false: a prompt beyond the context is refused"
    )
    shift: bool | None = Field(
        default=None, description="only false: an answer ends where the context is full"
    )

    def settings(self) -> dict[str, Any]:
        """The fields of GenerationConfig."""
        found = (self.options or Options()).settings()
        if self.format == "json":
            found["json_schema"] = {"type": "object"}
        elif isinstance(self.format, dict):
            found["json_schema"] = self.format
        return found


class OllamaMessage(Strict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | None = None
    thinking: None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_name: None = None


class OllamaChatRequest(OllamaRequest):
    """`/api/chat`; without messages it only loads, or with keep_alive 0 unloads, the model."""

    messages: list[OllamaMessage] | None = Field(default=None, max_length=MAX_ITEMS)
    tools: list[Any] | None = Field(default=None, description="refused: the models here call no tools")


class OllamaGenerateRequest(OllamaRequest):
    """`/api/generate`; without a prompt it only loads, or with keep_alive 0 unloads, the model."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = Field(
        default=None, description="true: the prompt is continued as it is, without a template"
    )
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    context: Annotated[list[Any], Field(max_length=0)] | None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None


class OllamaEmbedRequest(Strict):
    """`/api/embed`."""

    model: ModelId
    input: Texts
    truncate: bool | None = Field(default=None, description="true, the default: cut texts beyond the context")
    keep_alive: KeepAlive | None = None
    dimensions: int | None = Field(default=None, ge=1, description="must be the width of the model")
    options: Options | None = Field(default=None, description="num_ctx limits a text; sampling has no effect")


class OllamaShowRequest(Strict):
    """`/api/show`."""

    model: ModelId | None = None
    name: ModelId | None = None
    verbose: bool | None = None


class Details(AnswerModel):
    """The kind of a model, in Ollama's words."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(AnswerModel):
    """A model of `/api/tags` and `/api/ps`."""

    name: str
    model: str
    modified_at: str | None = None
    expires_at: str | None = None
    size: int
    size_vram: int | None = None
    context_length: int | None = None
    digest: str
    details: Details


class OllamaModels(AnswerModel):
    """Answer of `/api/tags` and `/api/ps`."""

    models: list[OllamaModel]


class OllamaTimes(AnswerModel):
    """Counts and times, in nanoseconds, of a finished answer."""

    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class OllamaAnswer(OllamaTimes):
    """Answer of `/api/chat` and `/api/generate`; streamed, one JSON object in each line."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None = None
    response: str | None = None
    message: dict[str, Any] | None = None
    logprobs: list[Any] | None = None


class OllamaEmbeddings(OllamaTimes):
    """Answer of `/api/embed`: mean final states, scaled to length one."""

    model: str
    embeddings: list[list[float]]


class OllamaShow(AnswerModel):
    """Answer of `/api/show`."""

    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(AnswerModel):
    """Answer of `/api/version`."""

    version: str
