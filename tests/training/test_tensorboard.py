"""Curves for TensorBoard hold the numbers they were given."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scratchlm.training.callbacks import StepRecord
from scratchlm.training.tensorboard import TensorBoard


def record(step):
    return StepRecord(
        step=step, n_steps=3, epoch=0, tokens=100 * step, train_loss=5.0 / step, learning_rate=0.1 * step,
        grad_norm=1.0, tokens_per_s=50.0, elapsed_s=1.0, memory_bytes=10,
    )  # fmt: skip


@pytest.fixture
def events(tmp_path):
    with TensorBoard(tmp_path / "tensorboard") as board:
        for step in (1, 2):
            board.on_step(record(step))
        board.on_evaluation(2, {"val_loss": 2.25, "val_accuracy": 0.75})
        board.on_sample(2, "Once", " upon a time")
        board.on_checkpoint(2, tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    return found


def test_curves_hold_every_step(events):
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 5.0), (2, 2.5)]
    assert [e.value for e in events.Scalars("train/learning_rate")] == pytest.approx([0.1, 0.2])


def test_evaluations_lose_their_prefix(events):
    assert [(e.step, e.value) for e in events.Scalars("validation/loss")] == [(2, 2.25)]
    assert [e.value for e in events.Scalars("validation/accuracy")] == [0.75]


def test_samples_read_as_prompt_and_continuation(events):
    (tag,) = [tag for tag in events.Tags()["tensors"] if tag.startswith("sample")]
    (event,) = events.Tensors(tag)
    assert event.tensor_proto.string_val == [b"Once upon a time"]
