"""Learning rates over a run."""

import itertools

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.training.config import TrainingConfig
from scratchlm.training.progress import Progress
from scratchlm.training.schedule import batches_of_step, learning_rate, planned_steps

SCHEDULES = ["cosine", "linear", "constant", "warmup-stable-decay"]


def rates(schedule, *, n_steps=100, **settings):
    config = TrainingConfig(
        max_steps=n_steps, schedule=schedule, **{"learning_rate": 2.0, "warmup_steps": 10, **settings}
    )
    return [learning_rate(config, step=step, n_steps=n_steps) for step in range(1, n_steps + 1)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_climbs_linearly_to_the_peak(schedule):
    values = rates(schedule)
    assert values[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(values) == pytest.approx(2.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_schedule_rises_after_the_warm_up(schedule):
    values = rates(schedule)[9:]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(values))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup-stable-decay"])
def test_decaying_schedules_end_at_the_final_share_of_the_peak(schedule):
    assert rates(schedule, final_learning_rate=0.25)[-1] == pytest.approx(0.5)


def test_cosine_agrees_with_torch():
    import torch

    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=2.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.2)
    values = rates("cosine", final_learning_rate=0.1)[9:]
    expected = []
    for _ in values:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert values == pytest.approx(expected)


def test_stable_decay_stays_at_the_peak_for_four_fifths():
    values = rates("warmup-stable-decay", final_learning_rate=0.0)
    assert values[9:80] == pytest.approx([2.0] * 71)
    assert values[-1] == 0.0


def test_a_warm_up_longer_than_the_run_is_cut_to_it():
    assert rates("cosine", n_steps=4, warmup_steps=100) == pytest.approx([0.5, 1.0, 1.5, 2.0])


# --- a run that only the clock ends


def rates_by_clock(step_s, minutes, *, first_look_s=0.0, **settings):
    """The learning rate of every step of a run by the clock whose steps take so many seconds."""
    config = TrainingConfig(max_minutes=minutes, learning_rate=1.0, **settings)
    progress, rates = Progress(elapsed_s=first_look_s), []
    while progress.elapsed_s < minutes * 60:
        n_steps = planned_steps(config, progress, n_batches=10)
        rates.append(learning_rate(config, step=progress.step + 1, n_steps=n_steps))
        progress.step += 1
        seconds = step_s(progress.step) if callable(step_s) else step_s
        progress.elapsed_s += seconds
        progress.steps_s += seconds
        progress.first_step_s = progress.first_step_s or seconds
    return rates


def test_a_run_by_the_clock_warms_up_reaches_the_peak_and_decays():
    found = rates_by_clock(0.1, 1.0, warmup_steps=20)
    assert found[:20] == pytest.approx([step / 20 for step in range(1, 21)])
    assert max(found) == pytest.approx(1.0, abs=0.01)
    assert found[-1] == pytest.approx(0.1, abs=0.01)
    falling = found[25:]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("first_look_s", [0.0, 20.0])
def test_a_slow_first_evaluation_or_step_does_not_cut_the_warm_up_short(first_look_s):
    found = rates_by_clock(
        lambda step: 50.0 if step == 1 else 0.1, 2.0, first_look_s=first_look_s, warmup_steps=10
    )
    assert found[:9] == pytest.approx([step / 10 for step in range(1, 10)])


def test_a_run_of_a_few_slow_steps_reaches_its_peak_and_decays():
    """Twelve steps of 5 s, and a warm-up of 100: a fifth of the run is spent on it."""
    found = rates_by_clock(5.0, 1.0, warmup_steps=100)
    assert len(found) == 12
    assert max(found) > 0.8
    assert found[-1] == pytest.approx(0.1, abs=0.05)


def test_the_clock_decides_where_the_schedule_is():
    """Steps twice as slow in the second half: half of the time is half of the way, not half of the steps."""
    found = rates_by_clock(lambda step: 0.1 if step <= 300 else 0.2, 1.0, warmup_steps=2, schedule="linear")
    assert len(found) == 450
    assert found[300] == pytest.approx(0.55, abs=0.01)  # half way from 1.0 to 0.1


# --- batch-size warm-up


def test_a_batch_warm_up_rises_to_accumulate_and_never_falls():
    config = TrainingConfig(max_steps=1, accumulate=6, batch_warmup_steps=10)
    found = [batches_of_step(config, step) for step in range(1, 15)]
    assert found == sorted(found)
    assert (found[0], found[9], found[-1]) == (1, 6, 6)


@pytest.mark.parametrize("epochs", [0.1, 1.0, 3.5])
def test_with_a_batch_warm_up_an_epoch_is_still_all_batches_once(epochs):
    config = TrainingConfig(epochs=epochs, accumulate=4, batch_warmup_steps=7)
    n_steps = planned_steps(config, Progress(), n_batches=50)
    n_taken = sum(batches_of_step(config, step) for step in range(1, n_steps + 1))
    assert 0 <= n_taken - 50 * epochs < 4


def test_a_batch_warm_up_without_accumulation_is_refused():
    with pytest.raises(ConfigError, match="no effect with accumulate=1"):
        TrainingConfig(max_steps=1, batch_warmup_steps=5)
