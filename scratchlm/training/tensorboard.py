"""Write curves and samples for TensorBoard: `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from scratchlm.checkpoints.store import checkpoint_step, list_checkpoints
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.distributed import current_ranks


@contextmanager
def tensorboard_of(run: Path) -> Iterator[list[TensorBoard]]:
    """The callback that writes curves in a run folder, closed after the block; none on a rank above 0."""
    if not current_ranks().is_main:
        yield []
        return
    folders = list_checkpoints(run)
    next_step = checkpoint_step(folders[-1]) + 1 if folders else 0  # a resumed run writes again from there
    with SummaryWriter(str(run / "tensorboard"), purge_step=next_step) as writer:
        yield [TensorBoard(writer)]


class TensorBoard(Callback):
    """A callback that writes curves and samples for TensorBoard."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

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
