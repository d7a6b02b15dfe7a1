"""Baselines for a classifier on the same split: the majority class, and TF-IDF with logistic regression."""

from collections import Counter
from collections.abc import Sequence

from scratchlm.core.errors import DataError, optional_import
from scratchlm.evaluation.confusion_matrix import ClassificationScores, score_classes

WORD_OR_MARK = r"(?u)\b\w+\b|[^\w\s]"  # scikit-learn's default drops one-letter words and punctuation


def majority_accuracy(train_labels: Sequence[str], test_labels: Sequence[str]) -> float:
    """Accuracy of always answering with the training set's most frequent label.

    Raises: DataError when either side is empty.
    """
    if not train_labels or not test_labels:
        raise DataError("a baseline needs training and test labels, got none; check the split.")
    counts = Counter(train_labels)
    majority = min(counts, key=lambda label: (-counts[label], label))
    return sum(label == majority for label in test_labels) / len(test_labels)


def tfidf_scores(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    test_texts: Sequence[str],
    test_labels: Sequence[str],
) -> ClassificationScores:
    """Scores of logistic regression on TF-IDF of words and word pairs, fitted on the training side only.

    Source: scikit-learn's `TfidfVectorizer` and `LogisticRegression`, with classes weighted equally.
    Raises: MissingDependencyError when scikit-learn is not installed.
    """
    with optional_import("the TF-IDF baseline needs scikit-learn", extra="eval"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD_OR_MARK),
        LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"),
    )
    pipeline.fit(list(train_texts), list(train_labels))
    predicted = pipeline.predict(list(test_texts)).tolist()
    classes = sorted({*train_labels, *test_labels})
    number = {label: i for i, label in enumerate(classes)}
    return score_classes(
        [number[label] for label in test_labels], [number[label] for label in predicted], classes=classes
    )
