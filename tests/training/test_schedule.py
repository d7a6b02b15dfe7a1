"""Learning rates over a run."""

from __future__ import annotations

import itertools

import pytest

from scratchlm.training.config import TrainingConfig
from scratchlm.training.schedule import learning_rate

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
