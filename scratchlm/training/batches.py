"""The batches of a training run: which ones a step takes, epoch after epoch, and until when."""

from collections.abc import Iterable, Iterator

from scratchlm.core.batch import Batch
from scratchlm.data.loaders import BatchLoader
from scratchlm.training.distributed import SharedStop


class InterruptedEvaluation(Exception):  # noqa: N818  (a signal, not an error)
    """A signal arrived during an evaluation."""


def endless_batches(train: BatchLoader, *, start: int = 0) -> Iterator[tuple[str, Batch]]:
    """Yield named batches epoch after epoch; those before number `start` are not built."""
    epoch, index = divmod(start, len(train))
    while True:
        for number, batch in enumerate(train.epoch(epoch, start=index), start=index):
            yield f"epoch {epoch}, batch {number}", batch
        epoch, index = epoch + 1, 0


def until_stopped(stop: SharedStop, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches until a signal arrives.

    Raises: InterruptedEvaluation.
    """
    for batch in batches:
        if stop.is_made:
            raise InterruptedEvaluation
        yield batch
