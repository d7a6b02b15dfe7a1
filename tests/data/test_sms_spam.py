from __future__ import annotations

import numpy as np
import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.data.classification import read_labelled
from scratchlm.data.label_split import class_counts
from scratchlm.data.sms_spam import SMS_SPAM_ASSET, SMS_SPAM_CLASSES, SMS_SPAM_ROWS, book_split


def test_the_books_sizes_come_out(real_data):
    rows = read_labelled(real_data / SMS_SPAM_ASSET)
    assert len(rows) == SMS_SPAM_ROWS
    labels = [row.label for row in rows]
    split = book_split(labels)
    # The book, chapter 6: 1,494 balanced rows; 130, 19 and 38 batches of 8.
    assert (len(split.train), len(split.val), len(split.test)) == (1045, 149, 300)
    everything = np.concatenate([split.train, split.val, split.test])
    assert class_counts(labels, everything) == dict.fromkeys(SMS_SPAM_CLASSES, 747)
    assert len(set(everything.tolist())) == 1494


def test_rows_are_shuffled_by_the_seed():
    labels = ["ham"] * 70 + ["spam"] * 30
    one, same, other = book_split(labels), book_split(labels), book_split(labels, seed=1)
    assert one.train.tolist() == same.train.tolist()
    assert one.train.tolist() != other.train.tolist()
    assert set(class_counts(labels, one.train)) == {"ham", "spam"}


def test_fractions_that_are_no_split_are_refused():
    with pytest.raises(ConfigError):
        book_split(["ham", "spam"], fractions=(0.9, 0.2, 0.1))
