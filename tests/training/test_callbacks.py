"""Callbacks hear of everything, once, in order."""

import pytest

from scratchlm.checkpoints.store import verify


class Diary:
    def __init__(self):
        self.entries = []

    def on_step(self, record):
        self.entries.append(("step", record.step))
        self.last = record

    def on_evaluation(self, step, metrics):
        self.entries.append(("evaluation", step))
        assert all(name.startswith("val_") for name in metrics)

    def on_sample(self, step, prompt, text):
        self.entries.append(("sample", step))
        assert (prompt, text) == ("the", " cat")

    def on_checkpoint(self, step, folder):
        self.entries.append(("checkpoint", step))
        verify(folder)  # it is whole when they hear of it


@pytest.fixture
def diary(tiny_run, tmp_path):
    trainer, train, val = tiny_run(
        tmp_path / "run", max_steps=4, eval_every_steps=2, sample_every_steps=4, checkpoint_every_steps=3
    )
    trainer.sample = lambda model, step: ("the", " cat")
    trainer.callbacks = [Diary(), Diary()]
    trainer.fit(train, val)
    assert trainer.callbacks[0].entries == trainer.callbacks[1].entries
    return trainer.callbacks[0]


def test_everything_is_told_once_and_in_order(diary):
    assert [entry for entry in diary.entries if entry[0] != "checkpoint"] == [
        ("evaluation", 0), ("sample", 0), ("step", 1), ("step", 2), ("evaluation", 2), ("step", 3), ("step", 4),
        ("evaluation", 4), ("sample", 4),
    ]  # fmt: skip


def test_a_checkpoint_is_told_after_its_step_when_the_background_has_written_it(diary):
    saved = [step for kind, step in diary.entries if kind == "checkpoint"]
    assert saved == [2, 3, 4]
    for step in saved:
        assert diary.entries.index(("checkpoint", step)) > diary.entries.index(("step", step))


def test_a_step_record_adds_up(diary):
    record = diary.last
    assert (record.step, record.n_steps, record.tokens) == (4, 4, 4 * 4 * 8)  # steps x batch x context
    assert record.tokens_per_s > 0
    assert record.elapsed_s > 0
    assert record.memory_bytes > 1 << 20
    assert record.grad_norm > 0
