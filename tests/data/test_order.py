import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from scratchlm.data import order
from scratchlm.data.order import ShuffledRange, sample_order, shuffled

seeds = st.integers(-(2**70), 2**70)


def sorted_order(n, *, seed, epoch):
    return sample_order(n, seed=seed, epoch=epoch)


def computed_order(n, *, seed, epoch):
    return ShuffledRange(n, key=f"{seed} {epoch}")[:]


both = pytest.mark.parametrize("make", [sorted_order, computed_order])


def test_the_orders_are_written_down_for_ever():
    # Golden values of our own definition: a change of these breaks the resuming of every run in the world.
    assert sample_order(8, seed=0, epoch=0).tolist() == [2, 1, 5, 0, 3, 4, 6, 7]
    assert sample_order(8, seed=123, epoch=4).tolist() == [3, 6, 7, 5, 2, 4, 1, 0]
    assert computed_order(8, seed=0, epoch=0).tolist() == [1, 6, 5, 2, 7, 0, 4, 3]
    assert ShuffledRange(1 << 21, key="123 4")[:4].tolist() == [1099557, 840098, 165766, 1568176]


@both
@given(n=st.integers(0, 500), seed=seeds, number=st.integers(0, 10**6))
def test_every_number_comes_exactly_once(make, n, seed, number):
    found = make(n, seed=seed, epoch=number)
    assert sorted(found.tolist()) == list(range(n))
    assert np.array_equal(found, make(n, seed=seed, epoch=number))


@both
def test_seeds_and_epochs_give_different_orders(make):
    assert len({tuple(make(50, seed=s, epoch=e)) for s in range(20) for e in range(20)}) == 400


@both
@pytest.mark.parametrize("n", [2, 3, 6])
def test_every_place_is_equally_likely_for_every_number(make, n):
    counts = np.zeros((n, n))
    for number in range(400 * n):
        counts[np.arange(n), make(n, seed=1, epoch=number)] += 1
    chi_squared = ((counts - 400) ** 2 / 400).sum()
    assert chi_squared < chi2.isf(0.001, (n - 1) ** 2)


@both
def test_neighbours_do_not_stay_together(make):
    found = make(10_000, seed=5, epoch=0)
    assert np.mean(np.abs(np.diff(found)) == 1) < 0.002
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.05


@both
def test_cycles_are_as_many_as_in_random_permutations(make):
    n, n_orders = 300, 400
    counts = [n_cycles(make(n, seed=9, epoch=number)) for number in range(n_orders)]
    # Knuth, The Art of Computer Programming, 1.2.10 and 1.3.3: mean H_n, variance H_n - H_n^(2).
    mean = sum(1 / k for k in range(1, n + 1))
    variance = mean - sum(1 / k**2 for k in range(1, n + 1))
    assert abs(np.mean(counts) - mean) < 4 * math.sqrt(variance / n_orders)
    assert abs(np.var(counts) / variance - 1) < 0.3


def n_cycles(permutation) -> int:
    left, n = permutation.tolist(), 0
    for start in range(len(left)):
        n += left[start] >= 0
        while left[start] >= 0:
            left[start], start = -1, left[start]
    return n


@given(n=st.integers(1, 1 << 45), start=st.integers(0, 1 << 45), seed=seeds)
def test_any_part_is_computed_alone_and_lies_in_the_range(n, start, seed):
    start %= n
    whole = ShuffledRange(n, key=str(seed))[start : start + 40]
    assert len(set(whole.tolist())) == len(whole) == min(40, n - start)
    assert 0 <= whole.min() <= whole.max() < n
    assert np.array_equal(whole[3:7], ShuffledRange(n, key=str(seed))[start : start + 40][3:7])
    assert np.array_equal(whole[1:], ShuffledRange(n, key=str(seed))[start + 1 : start + 40])


def test_small_sets_and_runs_of_earlier_versions_keep_their_order(monkeypatch):
    make = partial(shuffled, seed=3, epoch=1)
    monkeypatch.setattr(order, "SORTED_UP_TO", 100)
    assert np.array_equal(make(100), sample_order(100, seed=3, epoch=1))
    assert isinstance(make(101), ShuffledRange)
    assert np.array_equal(make(101, version=1), sample_order(101, seed=3, epoch=1))
