"""The range test finds the region in which a model learns, and stops where it diverges."""

import itertools

import pytest
import torch

from scratchlm.core.errors import DataError
from scratchlm.training.lr_range import HIGHEST, LOWEST, RatePoint, learning_rate_range, suggested_rate


def test_rates_rise_by_one_factor_until_the_loss_has_doubled_or_the_steps_end(tiny_run):
    trainer, train, _ = tiny_run(drop_rate=0.0)
    points = learning_rate_range(trainer.model, trainer.task, trainer.config, train)
    rates = [point.learning_rate for point in points]
    assert rates[0] == LOWEST
    assert rates[-1] <= HIGHEST * (1 + 1e-9)
    factors = [later / earlier for earlier, later in itertools.pairwise(rates)]
    assert factors == pytest.approx([factors[0]] * len(factors))


def test_the_suggestion_trains_better_than_a_hundredth_and_a_thousand_times_of_it(tiny_run):
    trainer, train, _ = tiny_run(drop_rate=0.0)
    suggested = suggested_rate(learning_rate_range(trainer.model, trainer.task, trainer.config, train))
    assert 1e-4 < suggested < 0.1

    def loss_with(rate):
        other, batches, _ = tiny_run(drop_rate=0.0, learning_rate=rate, max_steps=40)
        return other.fit(batches).train_loss

    assert loss_with(suggested) < loss_with(suggested / 100)
    assert loss_with(suggested) < loss_with(min(suggested * 1000, 30.0))


def test_a_loss_that_is_not_finite_ends_the_test_and_what_came_before_counts(tiny_run):
    trainer, train, _ = tiny_run(drop_rate=0.0)
    real, n_calls = trainer.task.loss_sum, iter(range(1000))

    def loss_sum(model, batch):
        return real(model, batch) * (float("nan") if next(n_calls) >= 20 else 1.0)

    trainer.task.loss_sum = loss_sum
    assert len(learning_rate_range(trainer.model, trainer.task, trainer.config, train)) == 20
    trainer.task.loss_sum = lambda model, batch: real(model, batch) * torch.tensor(float("inf"))
    with pytest.raises(DataError, match="not finite even at the lowest"):
        learning_rate_range(trainer.model, trainer.task, trainer.config, train)


def test_the_suggestion_is_a_tenth_of_the_best_rate():
    points = [RatePoint(1e-4, 5.0), RatePoint(1e-2, 3.0), RatePoint(1e-1, 4.0)]
    assert suggested_rate(points) == pytest.approx(1e-3)
