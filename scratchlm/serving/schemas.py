"""Parts of requests and answers that the three APIs share."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from scratchlm.serving.json_body import Strict

ModelId = Annotated[str, Field(min_length=1, max_length=200, description="id of a model, from /v1/models")]
StopText = Annotated[str, Field(min_length=1, max_length=200)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=1 << 20)]
Text = Annotated[str, Field(min_length=1)]
NewTokens = Annotated[
    int, Field(ge=1, le=1 << 24, description="maximum number of tokens to generate; the context limits it")
]
TopK = Annotated[
    int,
    Field(ge=-1, le=1 << 31, description="0 and -1 switch the filter off"),
    AfterValidator(lambda k: max(k, 0)),
]
LEAST_TOP_P = 1e-9  # what a top_p of 0 means: only the most likely token
MAX_STOPS = 16
MAX_COPIES = 16
MAX_TOP_LOGPROBS = 20
MAX_ITEMS = 2048  # texts of one request
Texts = Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_ITEMS)]
ManyTokenIds = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_ITEMS)]


class AnswerModel(BaseModel):
    """Base of the documented answers."""

    model_config = ConfigDict(protected_namespaces=())


class TextPart(Strict):
    """A part of a message's content; other kinds, such as images, are refused."""

    type: Literal["text", "input_text", "output_text"]
    text: str
    annotations: list[Any] | None = Field(default=None, max_length=0)
    logprobs: list[Any] | None = Field(default=None, max_length=0)


class CommonSampling(Strict):
    """How each token is chosen: the fields that all three APIs have."""

    temperature: float | None = Field(
        default=None, ge=0, le=100, description="0 always takes the most likely token"
    )
    top_p: float | None = Field(default=None, ge=0, le=1, description="0 keeps only the most likely token")
    top_k: TopK | None = None
    min_p: float | None = Field(default=None, ge=0, le=1, description="0 switches the filter off")
    typical_p: float | None = Field(default=None, gt=0, le=1)
    mirostat_tau: float | None = Field(default=None, gt=0, le=100)
    mirostat_eta: float | None = Field(default=None, gt=0, le=10)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(
        default=None, ge=-(1 << 63), lt=1 << 63, description="same seed, same prompt: same text"
    )
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None

    def converted(self) -> dict[str, Any]:
        """The fields of GenerationConfig for `seed`, `stop` and a `top_p` of 0, if these were given."""
        found: dict[str, Any] = {} if self.seed is None else {"seed": self.seed % (1 << 63)}
        if self.stop:
            found["stop_texts"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if self.top_p == 0:
            found["top_p"] = LEAST_TOP_P
        return found


class Sampling(CommonSampling):
    """The fields of OpenAI's API keep its meaning; the others are those of `generate`."""

    epsilon_cutoff: float | None = Field(default=None, gt=0, le=1)
    eta_cutoff: float | None = Field(default=None, gt=0, le=1)
    top_n_sigma: float | None = Field(default=None, gt=0, le=100)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    no_repeat_ngram: int | None = Field(default=None, ge=1, le=1000)
    dry_multiplier: float | None = Field(default=None, gt=0, le=100)
    min_new_tokens: int | None = Field(default=None, ge=0, le=1 << 24)
    logit_bias: (
        dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(default=None, max_length=1024, description="token id -> number added to its score")

    def settings(self, **defaults: Any) -> dict[str, Any]:
        """The fields of GenerationConfig that were given, over the defaults of a protocol."""
        given = {name: value for name in PLAIN_SETTINGS if (value := getattr(self, name)) is not None}
        found = {
            name: value for name, value in (defaults | given).items() if value != 0 or name not in OFF_AT_ZERO
        }
        if self.logit_bias:
            found["logit_bias"] = {
                int(token_id): bias for token_id, bias in self.logit_bias.items() if bias != 0
            }
        return found | self.converted()


PLAIN_SETTINGS = tuple(name for name in Sampling.model_fields if name not in ("logit_bias", "seed", "stop"))
OFF_AT_ZERO = ("top_k", "min_p", "presence_penalty", "frequency_penalty")
