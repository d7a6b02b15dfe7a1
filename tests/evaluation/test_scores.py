"""Accuracy, intervals, word overlap and baselines against reference libraries."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.evaluation.baselines import majority_accuracy, tfidf_scores
from scratchlm.evaluation.confusion_matrix import score_classes
from scratchlm.evaluation.intervals import (
    bootstrap_interval,
    bootstrap_ratio_interval,
    mean_over_runs,
    student_t_975,
    wilson_interval,
)
from scratchlm.evaluation.text_scores import edit_distance, exact_match, normalize_answer, rouge_l, token_f1


@pytest.mark.parametrize("n_classes", [2, 3, 20])
def test_scores_agree_with_scikit_learn(n_classes):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.Generator(np.random.PCG64(n_classes))
    true = random.integers(0, n_classes, size=200)
    predicted = np.where(random.random(200) < 0.6, true, random.integers(0, n_classes, size=200))
    labels = list(range(n_classes))
    scores = score_classes(true.tolist(), predicted.tolist(), classes=[str(label) for label in labels])
    assert np.array_equal(scores.confusion, metrics.confusion_matrix(true, predicted, labels=labels))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, predicted, labels=labels, zero_division=0
    )
    assert [row.precision for row in scores.per_class] == pytest.approx(precision)
    assert [row.recall for row in scores.per_class] == pytest.approx(recall)
    assert [row.f1 for row in scores.per_class] == pytest.approx(f1)
    assert [row.support for row in scores.per_class] == support.tolist()
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    assert scores.macro_f1 == pytest.approx(np.mean(f1))


def test_a_class_that_is_never_predicted_scores_zero():
    scores = score_classes([0, 0, 1], [0, 0, 0], classes=["ham", "spam"])
    assert (scores.per_class[1].precision, scores.per_class[1].recall, scores.per_class[1].f1) == (
        0.0,
        0.0,
        0.0,
    )


def test_scoring_nothing_is_an_error():
    with pytest.raises(DataError):
        score_classes([], [], classes=["a", "b"])


@pytest.mark.parametrize(("true", "predicted"), [([0, -1], [0, 1]), ([0, 1], [-1, 1]), ([2], [0])])
def test_a_number_that_no_class_has_is_not_counted_as_another(true, predicted):
    with pytest.raises(DataError, match="class numbers from 0 to 1"):
        score_classes(true, predicted, classes=["ham", "spam"])


@pytest.mark.parametrize(
    ("right", "n"), [(0, 1), (1, 1), (0, 10), (7, 10), (95, 100), (300, 300), (281, 300)]
)
def test_wilson_interval_agrees_with_scipy(right, n):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_bootstrap_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.Generator(np.random.PCG64(1)).normal(5, 2, size=120)
    low, high = bootstrap_interval(values.tolist(), n_resamples=4000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=2
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_the_interval_of_many_values_needs_little_memory_and_is_the_same():
    values = np.random.Generator(np.random.PCG64(3)).normal(5, 2, size=20_000)
    draws = np.random.Generator(np.random.PCG64(0)).integers(0, len(values), size=(200, len(values)))
    at_once = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    tracemalloc.start()
    try:
        found = bootstrap_interval(values.tolist(), n_resamples=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == tuple(at_once)
    assert peak < draws.nbytes  # 32 MB; with 2000 resamples 320


def test_the_interval_of_a_ratio_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.Generator(np.random.PCG64(1))
    counts = draw.integers(20, 60, size=200).astype(float)
    sums = counts * draw.normal(3, 0.5, size=200)
    low, high = bootstrap_ratio_interval(sums, counts, n_resamples=4000)
    expected = stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=2,
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert bootstrap_ratio_interval(sums[:9], counts[:9]) is None


def test_blocks_beyond_a_thousand_are_joined_with_their_neighbours():
    draw = np.random.Generator(np.random.PCG64(1))
    counts, sums = draw.integers(20, 60, size=1000).astype(float), draw.normal(3, 0.5, size=1000)
    cut = bootstrap_ratio_interval(np.repeat(sums / 3, 3), np.repeat(counts / 3, 3))
    assert cut == pytest.approx(bootstrap_ratio_interval(sums, counts))


def test_intervals_of_nothing_are_errors():
    with pytest.raises(DataError):
        wilson_interval(0, 0)
    with pytest.raises(DataError):
        bootstrap_interval([])


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("cold", "cold", True),
        (" Cold.\n", "cold", True),
        ("the  cat", "The cat!", True),
        ("ice cold", "cold", False),
        ("", "", False),
        ("   ", "...", False),
        ("don't", "dont", False),
    ],
)
def test_exact_match_folds_only_what_changes_no_answer(answer, reference, same):
    assert exact_match(answer, reference) is same


@given(st.text(max_size=40), st.text(max_size=40))
def test_token_f1_is_symmetric_and_between_zero_and_one(one, other):
    value = token_f1(one, other)
    assert 0.0 <= value <= 1.0
    assert value == token_f1(other, one)


@given(st.text(alphabet="abc ", min_size=1, max_size=20).filter(lambda text: text.strip()))
def test_a_text_overlaps_fully_with_itself(text):
    assert token_f1(text, text) == 1.0
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


def test_majority_baseline_takes_the_training_sides_commonest_label():
    assert majority_accuracy(["ham", "ham", "spam"], ["spam", "ham", "spam", "spam"]) == 0.25


def test_tfidf_baseline_learns_what_words_tell():
    pytest.importorskip("sklearn")
    train = ["win a prize now", "free cash prize", "see you at home", "dinner at home tonight"] * 5
    labels = ["spam", "spam", "ham", "ham"] * 5
    scores = tfidf_scores(train, labels, ["a cash prize", "home for dinner"], ["spam", "ham"])
    assert scores.accuracy == scores.balanced_accuracy == 1.0


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 10, 29, 30, 199])
def test_students_points_are_scipys(degrees):
    from scipy import stats

    assert student_t_975(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-12)


def test_a_few_runs_have_scipys_interval():
    from scipy import stats

    values = [0.91, 0.95, 0.93, 0.97]
    runs = mean_over_runs(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (runs.low, runs.high) == pytest.approx((low, high))
    assert runs.deviation == pytest.approx(np.std(values, ddof=1))
    with pytest.raises(DataError, match="at least 2 runs"):
        mean_over_runs([0.9])


@pytest.mark.parametrize(
    ("answer", "reference", "f"),
    [
        ("police killed the gunman", "police kill the gunman", 3 / 4),  # Lin 2004, section 3.1
        ("the gunman kill police", "police kill the gunman", 2 / 4),
        ("the gunman police killed", "police killed the gunman", 2 / 4),
        ("cold", "cold", 1.0),
        ("Cold!", "cold", 1.0),
        ("hot", "cold", 0.0),
        ("", "cold", 0.0),
        ("", "", 0.0),
        ("a b c d", "b d", 2 * 2 / 6),
    ],
)
def test_rouge_l_is_that_of_its_paper(answer, reference, f):
    assert rouge_l(answer, reference) == pytest.approx(f)


@settings(deadline=None)  # the first call imports the package
@given(st.text("ab _-x9 \n", max_size=60), st.text("ab _-x9 \n", max_size=60))
def test_rouge_l_agrees_with_rouge_score(answer, reference):
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed")
    expected = scorer.RougeScorer(["rougeL"], use_stemmer=False).score(reference, answer)["rougeL"].fmeasure
    assert rouge_l(answer, reference) == pytest.approx(expected)


def plain_distance(one: str, other: str) -> int:
    """The table of Wagner and Fischer 1974, cell by cell."""
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
        above = row
    return above[-1]


@given(st.text("abc\u00e9", max_size=80), st.text("abc\u00e9", max_size=80))
def test_edit_distance_agrees_with_the_plain_table(one, other):
    longest = max(len(one), len(other), 1)
    assert edit_distance(one, other) == pytest.approx(plain_distance(one, other) / longest)
    assert edit_distance(one, other) == edit_distance(other, one)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_a_detour_is_never_shorter(one, other, third):
    def n_edits(a, b):
        return round(edit_distance(a, b) * max(len(a), len(b)))

    assert n_edits(one, third) <= n_edits(one, other) + n_edits(other, third)
    assert (edit_distance(one, other) == 0.0) == (one == other)


def test_long_answers_are_compared_too():
    random = np.random.Generator(np.random.PCG64(5))
    one, other = ("".join(random.choice(list("abcdefgh "), size=2000)) for _ in range(2))
    assert edit_distance(one, other) == pytest.approx(plain_distance(one, other) / 2000)
    assert edit_distance(one, one + "!") == pytest.approx(1 / 2001)
