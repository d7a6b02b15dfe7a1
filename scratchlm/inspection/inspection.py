"""The result of an inspection: plain numbers and texts, bounded in size."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scratchlm.inspection.attention_maps import HeadSummary
from scratchlm.inspection.attribution import LogitParts

DIGITS = 6  # significant digits of numbers in JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A token or class with its probability."""

    id: int
    text: str
    prob: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """A token with a similar embedding."""

    id: int
    text: str
    similarity: float  # cosine, -1 to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedToken:
    """One token of the text; the first one, and the tokens of a classifier, have no prediction."""

    id: int
    text: str
    nearest: Sequence[Neighbour]  # in embedding space
    prob: float | None = None  # probability given the tokens before it
    loss: float | None = None  # nats
    rank: int | None = None  # 0 when it was the most likely token
    alternatives: Sequence[Candidate] = ()  # the most likely tokens at its position


@dataclass(frozen=True, kw_only=True, slots=True)
class LensCell:
    """What the model would predict at one position if it stopped after one layer."""

    prob: float  # of the token that follows in the text; at the end, of the model's own first choice
    rank: int
    top: Sequence[Candidate]


@dataclass(frozen=True, kw_only=True, slots=True)
class Norms:
    """Lengths of the vectors at each token: [layer][token]."""

    residual: Sequence[Sequence[float]]  # after the embedding and after each block: one row more than blocks
    attention: Sequence[Sequence[float]]  # what attention adds
    feed_forward: Sequence[Sequence[float]]  # what the feed-forward network adds


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """One possible next token, or one class, and what contributes to its logit."""

    id: int
    text: str
    prob: float
    logit: float
    saliency: Sequence[float]  # [token]; gradient of logit - mean_logit times the embedding, summed
    parts: LogitParts  # add up to the logit


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What happened inside the model while it read one text."""

    kind: str  # "language model" or "classification"
    tokens: Sequence[InspectedToken]
    choices: Sequence[Explanation]  # best first, then the targets
    mean_logit: float  # over all tokens or classes; only differences between logits change probabilities
    mean_parts: LogitParts  # add up to mean_logit
    lens: Sequence[Sequence[LensCell]]  # [layer][token], one column of a classifier; layer 0 is the embedding
    norms: Norms
    heads: Sequence[Sequence[HeadSummary]]  # [layer][head]
    attention: Sequence[Any]  # [layer][head][query][key], 3 decimals; causal rows end at the query itself

    def as_json(self) -> dict[str, Any]:
        """Lists and dictionaries for `json.dumps`; numbers keep 6 significant digits."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "attention"]
        return {name: _plain(getattr(self, name)) for name in names} | {"attention": self.attention}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value
