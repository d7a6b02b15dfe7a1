"""The two baselines of a classifier: the most frequent class, and word counts with logistic regression."""

import pytest

from scratchlm.evaluation.baselines import majority_accuracy, tfidf_scores


def test_majority_baseline_takes_the_training_sides_commonest_label():
    assert majority_accuracy(["ham", "ham", "spam"], ["spam", "ham", "spam", "spam"]) == 0.25


def test_tfidf_baseline_learns_what_words_tell():
    pytest.importorskip("sklearn")
    train = ["win a prize now", "free cash prize", "see you at home", "dinner at home tonight"] * 5
    labels = ["spam", "spam", "ham", "ham"] * 5
    scores = tfidf_scores(train, labels, ["a cash prize", "home for dinner"], ["spam", "ham"])
    assert scores.accuracy == scores.balanced_accuracy == 1.0
