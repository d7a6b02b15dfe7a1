"""Write curves and samples for TensorBoard: `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from scratchlm.checkpoints.store import checkpoint_step, list_checkpoints
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.distributed import current_ranks


def next_step(run: Path) -> int:
    """The step after the newest checkpoint, from which a resumed run writes the curves again."""
    folders = list_checkpoints(run)
    return checkpoint_step(folders[-1]) + 1 if folders else 0


@contextmanager
def tensorboard_of(run: Path) -> Iterator[list[TensorBoard]]:
    """The callback that writes curves in a run folder, closed after the block; none on a rank above 0."""
    if not current_ranks().is_main:
        yield []
        return
    with TensorBoard(run / "tensorboard", purge_step=next_step(run)) as tensorboard:
        yield [tensorboard]


class TensorBoard(Callback):
    """A callback that writes curves and samples for TensorBoard; a context manager, so that the file is closed."""

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def on_step(self, record: StepRecord) -> None:
        """Training loss, learning rate, gradient norm and speed."""
        self._writer.add_scalar("train/loss", record.train_loss, record.step)
        self._writer.add_scalar("train/learning_rate", record.learning_rate, record.step)
        self._writer.add_scalar("train/grad_norm", record.grad_norm, record.step)
        self._writer.add_scalar("train/tokens_per_s", record.tokens_per_s, record.step)

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """All metrics of the evaluation."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"validation/{name.removeprefix('val_')}", value, step)

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Prompt and continuation."""
        self._writer.add_text("sample", f"{prompt}{text}", step)

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Flush the curves to disk with every checkpoint."""
        self._writer.flush()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
