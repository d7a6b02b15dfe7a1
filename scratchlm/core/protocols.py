"""Protocols shared by several folders: any object with these methods can be used."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

from scratchlm.core.batch import Batch


@runtime_checkable
class Tokenizer(Protocol):
    """Converts text to token ids and back."""

    @property
    def vocab_size(self) -> int:
        """Number of ids: every id is in range(vocab_size)."""

    @property
    def end_of_text_id(self) -> int | None:
        """The id that separates documents, or None when the vocabulary has none."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens' strings and ids, e.g. `{"<|endoftext|>": 50256}`."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of all data that determines the ids: equal fingerprints mean equal ids for any text."""

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Ids of the text. A special token's string becomes its id only when it is named in allowed_special."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids."""

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json` atomically."""


Total: TypeAlias = Callable[[Sequence[float]], list[float]]  # sums of this process -> sums over all


class Task(Protocol):
    """The part of training that differs between pre-training, classification and instruction tuning."""

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of the losses over the batch's targets, in nats: a scalar with a gradient."""

    def metrics(self, model: nn.Module, loader: Iterable[Batch], *, total: Total = list) -> dict[str, float]:
        """Metrics of the model over a loader; always with `loss`, in nats per target.

        Where several processes have a share of each batch, `total` adds up their sums and counts.
        """


class Judge(Protocol):
    """A chat model that scores answers: behind a service, or in this process."""

    @property
    def name(self) -> str:
        """The name that the user gives, e.g. `ollama:llama3`."""

    @property
    def identity(self) -> str:
        """Name and all settings that affect its replies (options, address, weights); the key of the cache."""

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the reply to a conversation of `{"role": ..., "content": ...}`; several threads may call it.

        Raises: ServiceError when there is no complete reply, after the judge's own retries.
        """


class ShowsProgress(Protocol):
    """A progress display: `with show("tokenising") as report`, then report(done, total) repeatedly."""

    def __call__(self, what: str, /) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show progress under that name until the block ends."""


@contextmanager
def no_progress(what: str, /) -> Iterator[Callable[[int, int], None]]:  # noqa: ARG001
    """Show nothing."""
    yield lambda done, total: None
