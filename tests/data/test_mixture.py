from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.mixture import MixedWindows, check_mixture_weights
from scratchlm.data.windows import TokenWindows


def numbered(*sizes: int, weights=None, **settings) -> MixedWindows:
    """Windows of one token each: the ids are the numbers of the windows in the whole mixture."""
    starts = np.cumsum(sizes) - sizes
    parts = [
        TokenWindows(np.append(start + np.arange(size), 0), context_length=1, **settings)
        for start, size in zip(starts, sizes, strict=True)
    ]
    return MixedWindows(parts, weights=weights)


def drawn(loader: BatchLoader, number: int, start: int = 0) -> list[list[int]]:
    return [batch.inputs[:, 0].tolist() for batch in loader.epoch(number, start=start)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.data())
def test_a_batch_has_the_windows_of_its_indices_in_their_order(sizes, data):
    mixed = numbered(*sizes)
    indices = data.draw(st.lists(st.integers(0, len(mixed) - 1), min_size=1, max_size=9))
    assert mixed.batch(indices).inputs[:, 0].tolist() == indices
    assert [int(mixed.starts[part]) <= i for part, i in zip(mixed.part_of(np.array(indices)), indices)]


def test_windows_of_documents_keep_their_masks():
    parts = [TokenWindows(ids, context_length=3, document_start=0) for ids in ([5, 0, 6, 7], [0, 8, 0, 9])]
    batch = MixedWindows(parts).batch([1, 0, 1])
    assert batch.inputs.tolist() == [[0, 8, 0], [5, 0, 6], [0, 8, 0]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[2, 2, 3], [1, 2, 2], [2, 2, 3]]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    data=st.data(),
    seed=st.integers(0, 5),
    batch_size=st.integers(1, 7),
)
def test_each_source_gives_its_share_and_its_windows_come_once_before_any_comes_again(
    sizes, data, seed, batch_size
):
    weights = data.draw(st.lists(st.floats(0.3, 3), min_size=len(sizes), max_size=len(sizes)))
    shares = np.array(weights) / sum(weights) * sum(sizes)
    if shares.min() < 1:
        return
    mixed = numbered(*sizes, weights=weights)
    loader = BatchLoader(mixed, batch_size=batch_size, seed=seed)
    seen = np.array([i for epoch in range(5) for batch in drawn(loader, epoch) for i in batch])
    counts = np.bincount(mixed.part_of(seen), minlength=len(sizes))
    assert np.abs(counts - 5 * shares).max() < 5  # at most one window an epoch is lost or won by rounding
    for part, (first, size) in enumerate(zip(mixed.starts, mixed.sizes, strict=True)):
        times = np.bincount(seen[mixed.part_of(seen) == part] - first, minlength=size)
        assert times.max() - times.min() <= 1


def test_without_weights_every_window_comes_once():
    loader = BatchLoader(numbered(7, 30), batch_size=5, seed=2)
    assert sorted(i for batch in drawn(loader, 3) for i in batch) == list(range(37))
    assert drawn(loader, 0) != drawn(loader, 1)


def test_an_epoch_resumes_anywhere_and_ranks_share_its_batches():
    loader = BatchLoader(numbered(50, 20, weights=[1, 4]), batch_size=6, seed=1, drop_last=True)
    whole = drawn(loader, 2)
    assert len(whole) == 11
    assert drawn(loader, 2, start=4) == whole[4:]
    shares = [drawn(loader.for_rank(rank, 3), 2) for rank in range(3)]
    assert [[batch[rank::3] for batch in whole] for rank in range(3)] == shares


def test_sources_are_mixed_throughout_an_epoch():
    mixed = numbered(3000, 1000, weights=[0.5, 0.5])
    loader = BatchLoader(mixed, batch_size=100, seed=0)
    shares = [float((np.array(batch) < 3000).mean()) for batch in drawn(loader, 0)]
    assert np.mean(shares) == 0.5
    assert np.std(shares) == pytest.approx(0.05, rel=0.3)  # of 100 drawn at random: sqrt(0.25 / 100)


@pytest.mark.parametrize("n_places", [0, 3, 20, 35, 50])
def test_the_count_of_each_source_is_that_of_the_order(n_places):
    mixed = numbered(35, 15, weights=[0.2, 0.8])
    seen = mixed.order(seed=4, epoch=3)[:n_places]
    expected = np.bincount(mixed.part_of(seen), minlength=2).tolist()
    assert mixed.n_drawn(n_places, seed=4, epoch=3).tolist() == expected


def test_the_order_is_written_down_for_ever():
    # Golden values of our own definition: a change of these breaks the resuming of every mixed run in the world.
    order = numbered(6, 4, weights=[0.3, 0.7]).order(seed=0, epoch=1)
    assert order[:].tolist() == [7, 1, 6, 8, 0, 9, 8, 6, 4, 7]


def test_a_mixture_of_huge_texts_needs_no_table():
    zeros = np.lib.stride_tricks.as_strided(np.zeros(1, dtype=np.uint16), (1 << 40,), (0,))
    parts = [TokenWindows(zeros[:n], context_length=8) for n in (1 << 40, 1 << 30)]
    loader = BatchLoader(MixedWindows(parts, weights=[0.5, 0.5]), batch_size=4)
    batch = next(loader.epoch(7, start=10**9))
    assert torch.equal(batch.inputs, torch.zeros(4, 8, dtype=torch.int64))


@pytest.mark.parametrize(
    ("weights", "names", "words"),
    [
        ([0.5], ["a", "b"], "got 1 for 2"),
        ([1.0], ["a"], "two sources or more"),
        ([], [], "got 0 for 0"),
        ([1.0, 0.0], ["a", "b"], "above zero, got 1, 0"),
        ([1.0, float("nan")], ["a", "b"], "above zero, got 1, nan"),
        ([1.0, float("inf")], ["a", "b"], "above zero, got 1, inf"),
        ([1e308, 1e308], ["a", "b"], r"got 1e\+308, 1e\+308, and their sum finite"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, names, words):
    with pytest.raises(ConfigError, match=words):
        check_mixture_weights(weights, names)


def test_a_weight_too_small_for_a_window_is_refused():
    with pytest.raises(DataError, match="quotas of 10, 0"):
        numbered(5, 5, weights=[1, 1e-3])
