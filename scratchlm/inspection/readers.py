"""How a model reads a text to be inspected: as the start of a longer one, or as a text to classify."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.classification_batches import ClassificationExamples
from scratchlm.inspection.inspection import Candidate
from scratchlm.tokenizers.special_tokens import encode_from_start


class Reader(Protocol):
    """What differs between a language model and a classifier."""

    kind: str

    def ids(self, text: str) -> list[int]:
        """The ids that the model reads."""

    def pool(self, states: Tensor) -> Tensor:
        """The state that the prediction is made from. Shapes: (T, E) -> (1, E)."""

    def name(self, number: int) -> str:
        """The text of a token, or the name of a class."""

    def number(self, target: str) -> int:
        """The id of a token, or the number of a class; ConfigError for anything else."""

    def followers(self, ids: Sequence[int], choice: int) -> list[int]:
        """What each column of the logit lens should predict, `choice` being the model's own prediction."""


class TokenReader:
    """A language model: every token predicts the next one, and the last one makes the choice."""

    kind = "language model"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        """The ids of a prompt."""
        return encode_from_start(self._tokenizer, text)

    def pool(self, states: Tensor) -> Tensor:
        """The last token's state."""
        return states[-1:]

    def name(self, number: int) -> str:
        """The text of the token; see `token_text`."""
        return token_text(self._tokenizer, number)

    def number(self, target: str) -> int:
        """The id of a text that is one token.

        Raises: ConfigError for a text of several tokens, with these.
        """
        found = self._tokenizer.encode(target)
        if len(found) != 1:
            pieces = ", ".join(repr(self.name(id_)) for id_ in found) or "none"
            raise ConfigError(
                f"target {target!r} must be one token, got {len(found)} ({pieces}); choose one token."
            )
        return found[0]

    def followers(self, ids: Sequence[int], choice: int) -> list[int]:
        """The token that follows each one."""
        return [*ids[1:], choice]


class ClassReader:
    """A classifier: its head reads one position, or the mean of all; `task` is the content of its `task.json`."""

    kind = "classification"

    def __init__(self, tokenizer: Tokenizer, task: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._task = task
        self._classes: list[str] = list(task["classes"])
        self._position = task.get("position", "last-real")

    def ids(self, text: str) -> list[int]:
        """The ids as in training: cut to max_length, with padding where the model reads it as text.

        Raises: DataError for an empty text.
        """
        width = self._task.get("width")
        examples = ClassificationExamples.from_texts(
            [text],
            [self._classes[0]],  # any label; it is not read
            self._tokenizer,
            classes=self._classes,
            max_length=self._task.get("max_length"),
            pad_to=width,
            hides_padding=width is None or self._position == "last-real",
        )
        return [int(id_) for id_ in examples.row(0)]

    def pool(self, states: Tensor) -> Tensor:
        """The state at the position that the head reads, or the mean."""
        if self._position == "mean":
            return states.mean(dim=0, keepdim=True)
        return states[:1] if self._position == "first" else states[-1:]

    def name(self, number: int) -> str:
        """The name of the class."""
        return self._classes[number]

    def number(self, target: str) -> int:
        """The number of the class.

        Raises: ConfigError for an unknown one, with the nearest.
        """
        if target not in self._classes:
            raise ConfigError(f"the model has no class {target!r}; {nearest(target, self._classes)}")
        return self._classes.index(target)

    def followers(self, ids: Sequence[int], choice: int) -> list[int]:
        """The predicted class, for the only column."""
        return [choice]


def token_text(tokenizer: Tokenizer, id_: int) -> str:
    """The text of one token; its bytes where they are no text, `<id 50300>` for an id without a token.

    Example:
        >>> from scratchlm.tokenizers import train_bpe
        >>> tokenizer = train_bpe(["aab"], 260)
        >>> token_text(tokenizer, tokenizer.encode("b")[0]), token_text(tokenizer, 9999)
        ('b', '<id 9999>')
    """
    try:
        text = tokenizer.decode([id_])
    except TokenizerError:
        return f"<id {id_}>"
    token_bytes: Callable[[int], bytes] | None = getattr(tokenizer, "token_bytes", None)
    if "\ufffd" in text and token_bytes is not None:
        return "".join(f"<{byte:02X}>" for byte in token_bytes(id_))
    return text


def candidates(reader: Reader, alternatives: Sequence[tuple[int, float]]) -> list[Candidate]:
    """Tokens or classes with their texts."""
    return [Candidate(id=number, text=reader.name(number), prob=prob) for number, prob in alternatives]
