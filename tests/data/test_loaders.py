import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.batch import Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.loaders import BatchLoader


class Numbers:
    """Examples that are their own numbers, and remember which batches were asked for."""

    def __init__(self, n: int, lengths: list[int] | None = None) -> None:
        self.n = n
        self.asked: list[list[int]] = []
        if lengths is not None:
            self.lengths = np.array(lengths)

    def __len__(self) -> int:
        return self.n

    def batch(self, indices) -> Batch:
        self.asked.append(list(indices))
        ids = torch.tensor(list(indices))[:, None]
        return Batch(inputs=ids, targets=ids)


def epoch(loader: BatchLoader, number: int, start: int = 0) -> list[list[int]]:
    return [batch.inputs[:, 0].tolist() for batch in loader.epoch(number, start=start)]


@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    buckets=st.booleans(),
    number=st.integers(0, 50),
)
def test_an_epoch_visits_each_example_once_and_resumes_anywhere(
    n, batch_size, shuffle, drop_last, buckets, number
):
    if drop_last and n < batch_size:
        return
    examples = Numbers(n, [i * 7919 % 13 for i in range(n)])
    loader = BatchLoader(
        examples,
        batch_size=batch_size,
        seed=3,
        shuffle=shuffle,
        drop_last=drop_last,
        bucket_by_length=buckets,
    )
    batches = epoch(loader, number)
    seen = [i for batch in batches for i in batch]
    assert len(batches) == len(loader)
    assert len(seen) == len(set(seen)) == (n - n % batch_size if drop_last else n)
    assert all(len(batch) == batch_size for batch in batches) or not drop_last
    for start in (0, len(batches) // 2, len(batches)):
        examples.asked.clear()
        assert epoch(loader, number, start) == batches[start:]
        assert len(examples.asked) == len(batches) - start


def test_without_shuffling_the_order_is_that_of_the_examples():
    loader = BatchLoader(Numbers(5), batch_size=2, shuffle=False)
    assert epoch(loader, 0) == epoch(loader, 1) == [[0, 1], [2, 3], [4]]


def test_with_shuffling_epochs_differ_and_iteration_is_epoch_zero():
    loader = BatchLoader(Numbers(40), batch_size=4, seed=1)
    assert epoch(loader, 0) != epoch(loader, 1)
    assert [batch.inputs[:, 0].tolist() for batch in loader] == epoch(loader, 0)


def test_any_number_of_examples_is_shuffled_without_a_table():
    n = 1 << 40  # a table of it would take 8 TB
    loader = BatchLoader(Numbers(n), batch_size=8, seed=4, drop_last=True)
    batches = [batch.inputs[:, 0] for batch, _ in zip(loader.epoch(2, start=10**9), range(50))]
    seen = torch.cat(batches)
    assert len(set(seen.tolist())) == 400
    assert abs(seen.double().mean() / n - 0.5) < 0.06  # 4 standard deviations of 1 / sqrt(12 * 400)
    whole = batches[7].tolist()
    shares = [
        next(loader.for_rank(rank, 3).epoch(2, start=10**9 + 7)).inputs[:, 0].tolist() for rank in range(3)
    ]
    assert [whole[rank::3] for rank in range(3)] == shares


def test_a_validation_set_of_any_size_needs_no_table():
    loader = BatchLoader(Numbers(1 << 40), batch_size=4, shuffle=False)
    assert next(loader.epoch(0, start=1 << 37)).inputs[:, 0].tolist() == [(1 << 39) + i for i in range(4)]


def test_buckets_hold_similar_lengths_in_mixed_order():
    lengths = [1 + i * 37 % 100 for i in range(1000)]
    loader = BatchLoader(Numbers(1000, lengths), batch_size=10, seed=2, bucket_by_length=True)
    batches = epoch(loader, 0)
    padding = sum(max(lengths[i] for i in b) - lengths[j] for b in batches for j in b)
    plain = BatchLoader(Numbers(1000, lengths), batch_size=10, seed=2)
    plain_padding = sum(max(lengths[i] for i in b) - lengths[j] for b in epoch(plain, 0) for j in b)
    assert padding < plain_padding / 10
    longest = [max(lengths[i] for i in b) for b in batches]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3
    assert {frozenset(b) for b in batches} != {frozenset(b) for b in epoch(loader, 1)}


def test_buckets_without_shuffling_go_from_short_to_long():
    loader = BatchLoader(Numbers(5, [3, 1, 2, 5, 4]), batch_size=2, shuffle=False, bucket_by_length=True)
    assert epoch(loader, 0) == [[1, 2], [0, 4], [3]]


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        BatchLoader(Numbers(5), batch_size=0)
    with pytest.raises(ConfigError, match="examples with lengths, got Numbers"):
        BatchLoader(Numbers(5), batch_size=1, bucket_by_length=True)
    with pytest.raises(DataError, match="got 3 examples for batches of 4"):
        BatchLoader(Numbers(3), batch_size=4, drop_last=True)
    with pytest.raises(ConfigError, match=r"start must lie in 0\.\.2"):
        BatchLoader(Numbers(4), batch_size=2).epoch(0, start=3)


class Classed:
    """Texts of two classes, one of them much longer than the other."""

    lengths = np.array([5 + i % 7 for i in range(90)] + [50 + i % 9 for i in range(30)])
    strata = np.array([0] * 90 + [1] * 30)

    def __len__(self):
        return 120

    def batch(self, indices):
        raise AssertionError("only the order is looked at")


def test_buckets_keep_the_mixture_of_classes_though_one_is_longer():
    loader = BatchLoader(Classed(), batch_size=12, bucket_by_length=True, seed=3)
    shares = [(Classed.strata[batch] == 1).mean() for batch in loader.indices(0)]
    assert len(shares) == 10
    assert all(0.15 <= share <= 0.35 for share in shares)  # a quarter of all


def test_buckets_with_classes_still_hold_similar_lengths_within_each_class():
    loader = BatchLoader(Classed(), batch_size=12, bucket_by_length=True, seed=3)
    for batch in loader.indices(0):
        short = Classed.lengths[batch[Classed.strata[batch] == 0]]
        assert short.max() - short.min() <= 2  # of lengths 5 to 11
