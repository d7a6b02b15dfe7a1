import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.label_split import (
    LabelSplit,
    balance,
    book_split,
    class_counts,
    repeat_to_balance,
    share_of,
    split_by_group,
    split_fingerprint,
)
from scratchlm.data.near_duplicates import group_near_duplicates

GROUPS = [f"message {i % 400}" for i in range(1000)]
LABELS = ["spam" if i % 400 % 3 == 0 else "ham" for i in range(1000)]


def parts(groups: list[str], labels: list[str], **settings) -> dict[str, str]:
    """Which part each group went to."""
    split = split_by_group(groups, labels, **settings)
    return {
        groups[i]: name
        for name, indices in (("train", split.train), ("val", split.val), ("test", split.test))
        for i in indices
    }


@given(st.integers(0, 100))
def test_parts_are_disjoint_complete_and_hold_whole_groups(seed):
    split = split_by_group(GROUPS, LABELS, seed=seed)
    everything = np.concatenate([split.train, split.val, split.test])
    assert sorted(everything.tolist()) == list(range(1000))
    of_group = [{GROUPS[i] for i in indices} for indices in (split.train, split.val, split.test)]
    assert not of_group[0] & of_group[1]
    assert not of_group[0] & of_group[2]
    assert not of_group[1] & of_group[2]


@given(st.permutations(range(60)), st.integers(1, 30))
def test_neither_order_nor_new_rows_move_a_group(order, n_new):
    groups = [f"text {i}" for i in range(300)]
    labels = ["ham", "spam"] * 150
    before = parts(groups, labels)
    changed = [groups[i] for i in order] + groups[60:] + [f"new {i}" for i in range(n_new)]
    after = parts(changed, [labels[i] for i in order] + labels[60:] + ["ham"] * n_new)
    assert {group: after[group] for group in groups} == before


def test_sizes_are_near_the_fractions_and_seeds_differ():
    groups = [str(i) for i in range(5000)]
    labels = ["ham", "spam"] * 2500
    split = split_by_group(groups, labels)
    assert abs(len(split.train) - 3500) < 100
    assert abs(len(split.val) - 500) < 70
    assert parts(groups, labels) != parts(groups, labels, seed=124)


def test_another_process_with_another_hash_seed_splits_alike():
    code = (
        "from scratchlm.data.label_split import split_by_group, balance\n"
        "groups = [f'text {i}' for i in range(100)]; labels = ['ham', 'spam', 'ham', 'ham'] * 25\n"
        "split = split_by_group(groups, labels, seed=9)\n"
        "print(split.test.tolist(), balance(labels, split.train, seed=9, keys=groups).tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_part_without_a_class_is_an_error():
    with pytest.raises(DataError, match="no rows of class 'spam' in"):
        split_by_group([str(i) for i in range(100)], ["spam"] + ["ham"] * 99)


@given(st.lists(st.sampled_from(["ham", "spam", "unsure"]), min_size=1), st.integers(0, 9))
def test_balanced_classes_are_as_large_as_the_smallest(labels, seed):
    kept = balance(labels, range(len(labels)), seed=seed)
    smallest = min(class_counts(labels).values())
    assert set(class_counts(labels, kept).values()) == {smallest}
    assert class_counts(labels, kept).keys() == set(labels)
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_balancing_by_text_keeps_its_choice_when_rows_come_in_another_order():
    texts = [f"text {i}" for i in range(50)]
    labels = ["spam" if i < 10 else "ham" for i in range(50)]
    kept = {texts[i] for i in balance(labels, range(50), keys=texts)}
    kept_reversed = {texts[::-1][i] for i in balance(labels[::-1], range(50), keys=texts[::-1])}
    assert kept == kept_reversed
    assert len(kept) == 20


def test_balancing_without_a_class_is_an_error():
    with pytest.raises(DataError, match="no rows of class 'spam'"):
        balance(["ham", "spam"], [0])
    with pytest.raises(DataError, match="no rows to balance"):
        balance([], [])


def test_the_sms_collection_splits_without_leaks(real_data):
    rows = read_labelled(real_data / "sms_spam_collection" / "SMSSpamCollection")
    labels = [row.label for row in rows]
    groups = group_near_duplicates([row.text for row in rows])
    split = split_by_group(groups, labels)
    assert not {groups[i] for i in split.train} & {groups[i] for i in split.test}
    test = balance(labels, split.test, keys=groups)
    assert class_counts(labels, test)["ham"] == class_counts(labels, test)["spam"] > 120


def test_smaller_classes_are_repeated_until_all_are_as_large():
    labels = ["a"] * 5 + ["b"] * 2 + ["c"]
    found = repeat_to_balance(labels, [0, 1, 2, 4, 5, 6, 7])
    assert class_counts(labels, found) == {"a": 4, "b": 4, "c": 4}
    assert set(found.tolist()) == {0, 1, 2, 4, 5, 6, 7}
    with pytest.raises(DataError, match="no rows to balance"):
        repeat_to_balance(labels, [])


def test_a_share_holds_every_class_and_grows_with_its_size():
    labels = ["a"] * 50 + ["b"] * 6
    keys = [f"text {i}" for i in range(56)]
    shares = [share_of(labels, range(56), share, keys=keys).tolist() for share in (0.1, 0.5, 1.0)]
    assert [len(rows) for rows in shares] == [6, 28, 56]
    assert all("b" in {labels[i] for i in rows} for rows in shares)
    assert set(shares[0]) < set(shares[1]) < set(shares[2])
    with pytest.raises(ConfigError, match="at most 1"):
        share_of(labels, range(56), 1.5, keys=keys)


SHA256 = "16ffa4c6"  # printf 'test\\ta\\tthree\\ntrain\\ta\\tone\\nval\\tb\\ttwo' | sha256sum


def test_a_splits_fingerprint_ignores_the_order_of_rows():
    texts, labels = ["one", "two", "three"], ["a", "b", "a"]
    split = LabelSplit(train=np.array([0]), val=np.array([1]), test=np.array([2]))
    turned = LabelSplit(train=np.array([2]), val=np.array([1]), test=np.array([0]))
    assert split_fingerprint(texts, labels, split) == split_fingerprint(texts[::-1], labels[::-1], turned)
    assert split_fingerprint(texts, labels, split) != split_fingerprint(texts, labels, turned)
    assert split_fingerprint(texts, labels, split)[:8] == SHA256


def test_small_classes_reach_every_part():
    labels = [f"class {k}" for k in range(40) for _ in range(4)]
    groups = [f"text {i}" for i in range(len(labels))]
    for seed in range(20):
        split = split_by_group(groups, labels, seed=seed)
        for part in (split.train, split.val, split.test):
            assert {labels[i] for i in part} == set(labels)
        order = list(range(len(labels)))[::-1]
        turned = split_by_group([groups[i] for i in order], [labels[i] for i in order], seed=seed)
        assert {groups[order[i]] for i in turned.test} == {groups[i] for i in split.test}


def test_a_class_of_two_groups_is_refused():
    with pytest.raises(DataError, match="no rows of class 'b'"):
        split_by_group(["1", "2", "3", "4", "5", "6"], ["a", "a", "a", "a", "b", "b"])


def test_the_books_sizes_come_out(real_data):
    rows = read_labelled(real_data / "sms_spam_collection/SMSSpamCollection")
    assert len(rows) == 5574  # UCI data set 228, read with quoting off
    labels = [row.label for row in rows]
    split = book_split(labels)
    # The book, chapter 6: 1,494 balanced rows; 130, 19 and 38 batches of 8.
    assert (len(split.train), len(split.val), len(split.test)) == (1045, 149, 300)
    everything = np.concatenate([split.train, split.val, split.test])
    assert class_counts(labels, everything) == {"ham": 747, "spam": 747}
    assert len(set(everything.tolist())) == 1494


def test_rows_are_shuffled_by_the_seed():
    labels = ["ham"] * 70 + ["spam"] * 30
    one, same, other = book_split(labels), book_split(labels), book_split(labels, seed=1)
    assert one.train.tolist() == same.train.tolist()
    assert one.train.tolist() != other.train.tolist()
    assert set(class_counts(labels, one.train)) == {"ham", "spam"}
