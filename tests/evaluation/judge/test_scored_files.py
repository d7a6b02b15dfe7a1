"""Scores that are there already, in whatever file: used for the right answers only."""

import dataclasses
import json

import pytest

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.evaluation.judge.grade_all import file_records, grade_all
from scratchlm.evaluation.judge.grading import OfflineGrader
from scratchlm.evaluation.judge.items import fingerprint
from scratchlm.evaluation.judge.protocols import PROTOCOLS
from scratchlm.evaluation.judge.result_file import Header, Journal
from scratchlm.evaluation.judge.scored_files import (
    agreement,
    read_earlier_scores,
    read_scored,
    scores_in_common,
)


@pytest.fixture
def judged(tmp_path):
    """Write a finished result file of the offline judge, or of one with another identity."""

    def write(name, items, *, identity="offline"):
        header = Header(
            judge="offline",
            identity=identity,
            protocol="score",
            prompt_sha256="",
            answers_sha256=fingerprint(items),
            n_items=len(items),
        )
        with Journal(tmp_path / name, header) as journal:
            graded = grade_all(items, OfflineGrader(), protocol=PROTOCOLS["score"], n_control_items=0)
            journal.finish(file_records(header, graded, known=journal.known))
        return tmp_path / name

    return write


def write_answers(path, items):
    entries = [
        {"instruction": i.instruction, "input": i.input, "output": i.reference, "model_response": i.answer}
        for i in items
    ]
    path.write_text(json.dumps(entries))
    return path


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_result_file_and_its_answers_scored_offline_are_the_same(tmp_path, judged, make_item):
    items = [make_item("It is red.", number=i) for i in range(5)]
    of_file = read_scored(judged("a.jsonl", items))
    of_answers = read_scored(write_answers(tmp_path / "answers.json", items))
    assert of_file.scores == of_answers.scores
    assert scores_in_common(of_file, of_answers, shared_only=False)[0] == list(of_file.scores.values())


def test_the_same_items_in_another_order_meet_each_other(judged, make_item):
    items = [make_item("It is red.", number=i) for i in range(5)]
    a, b = read_scored(judged("a.jsonl", items)), read_scored(judged("b.jsonl", items[::-1]))
    first, second = scores_in_common(a, b, shared_only=False)
    assert first == second == list(a.scores.values())


def test_a_task_that_stands_there_twice_is_two_items(judged, make_item):
    scores = read_scored(judged("a.jsonl", [make_item("It is red."), make_item("Blue.")])).scores
    assert list(scores.values()) == [100, 0]


def test_unequal_items_are_refused_unless_asked_for(judged, make_item):
    a = read_scored(judged("a.jsonl", [make_item(number=i) for i in range(5)]))
    b = read_scored(judged("b.jsonl", [make_item(number=i) for i in range(1, 7)]))
    with pytest.raises(
        DataError, match=r"1 items have a score only in .* and 2 only in .*--shared-only compares the 4"
    ):
        scores_in_common(a, b, shared_only=False)
    assert len(scores_in_common(a, b, shared_only=True)[0]) == 4


def test_an_item_without_a_score_in_one_is_unequal_too(judged, make_item):
    items = [make_item(number=i) for i in range(5)]
    a, path = read_scored(judged("a.jsonl", items)), judged("b.jsonl", items)
    records = lines_of(path)
    records[2] |= {"status": "unparsed", "score": None}
    write_lines(path, records)
    b = read_scored(path)
    assert len(b.without) == 1
    with pytest.raises(DataError, match="1 items have a score only"):
        scores_in_common(a, b, shared_only=False)


def test_an_item_without_a_score_that_the_other_file_lacks_is_unequal_too(judged, make_item):
    items = [make_item(number=i) for i in range(5)]
    a, path = read_scored(judged("a.jsonl", items[:4])), judged("b.jsonl", items)
    records = lines_of(path)
    records[5] |= {"status": "unparsed", "score": None}
    write_lines(path, records)
    b = read_scored(path)
    assert a.scores.keys() == b.scores.keys()
    for first, second in ((a, b), (b, a)):
        with pytest.raises(DataError, match=r"1 items are in only one of .*; --shared-only compares the 4"):
            scores_in_common(first, second, shared_only=False)
        assert len(scores_in_common(first, second, shared_only=True)[0]) == 4


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": None}, "line 2 must be an item with an id"),
        ({"score": "80"}, "line 2 must have a number or null as its score, got '80'"),
        ({"score": True}, "line 2 must have a number"),
    ],
)
def test_a_damaged_item_is_named_with_its_line(judged, make_item, change, complaint):
    path = judged("a.jsonl", [make_item()])
    records = lines_of(path)
    records[1] |= change
    write_lines(path, records)
    with pytest.raises(DataError, match=complaint):
        read_scored(path)


def test_a_header_without_its_end_is_a_judgement_that_stopped(judged, make_item):
    path = judged("a.jsonl", [make_item()])
    path.write_text(path.read_text().split("\n")[0])
    with pytest.raises(DataError, match="is an unfinished judgement"):
        read_scored(path)


def test_nothing_in_common_is_no_comparison(judged, make_item):
    a, b = (
        read_scored(judged("a.jsonl", [make_item()])),
        read_scored(judged("b.jsonl", [make_item(number=1)])),
    )
    with pytest.raises(DataError, match="no items in common"):
        scores_in_common(a, b, shared_only=True)


def test_two_judges_scores_are_not_compared(judged, make_item):
    a = read_scored(judged("a.jsonl", [make_item()]))
    b = read_scored(judged("b.jsonl", [make_item()], identity="another"))
    with pytest.raises(ConfigError, match="identity is 'offline'"):
        scores_in_common(a, b, shared_only=True)


def test_judges_that_differ_at_the_end_of_a_long_identity_are_shown_whole(tmp_path, judged, make_item):
    long = "ollama:a-model-with-a-long-name:latest at http://judge.example.org:11434 seed=123 num_ctx="
    a, b = (judged(f"{n}.jsonl", [make_item()], identity=f"{long}{n}") for n in (2048, 4096))
    with pytest.raises(ConfigError, match=r"num_ctx=2048' in .* and .*num_ctx=4096' in"):
        scores_in_common(read_scored(a), read_scored(b), shared_only=True)
    with pytest.raises(ConfigError, match=r"num_ctx=2048', not .*num_ctx=4096'"):
        judged("2048.jsonl", [make_item()], identity=f"{long}4096")


def test_a_judgement_that_stopped_is_not_compared(judged, make_item):
    path = judged("a.jsonl", [make_item()])
    write_lines(path, lines_of(path)[:-1])
    with pytest.raises(DataError, match="is an unfinished judgement"):
        read_scored(path)


@pytest.mark.parametrize("content", ["[80, null, 95.5]", '[{"score": 80}, {"score": null}, {"score": 95.5}]'])
def test_earlier_scores_are_numbers_or_entries(tmp_path, make_item, content):
    (tmp_path / "scores.json").write_text(content)
    items = [make_item(number=i) for i in range(3)]
    assert read_earlier_scores(tmp_path / "scores.json", items) == [80, None, 95.5]


def test_earlier_scores_may_be_lines_with_another_key(tmp_path, make_item):
    write_lines(tmp_path / "scores.jsonl", [{"human": 1}, {"human": 2}])
    items = [make_item(number=i) for i in range(2)]
    assert read_earlier_scores(tmp_path / "scores.jsonl", items, key="human") == [1, 2]


def test_another_judges_results_are_earlier_scores_of_the_same_answers_only(judged, make_item):
    items = [make_item("It is red.", number=i) for i in range(3)]
    path = judged("a.jsonl", items)
    assert read_earlier_scores(path, items, key="unused") == list(read_scored(path).scores.values())
    with pytest.raises(DataError, match="entry 1 is a score for another model_response"):
        read_earlier_scores(path, [make_item("No.", number=i) for i in range(3)])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[80]", "list of 2 scores, one for each answer, got 1"),
        ("{}", "list of 2 scores, .* got 1"),
        ("[80, true]", "entry 2 must have a number or null as its score, got True"),
        ('[80, "90"]', "entry 2 must have a number"),
        ("[80, NaN]", "entry 2 must have a number or null as its score, got nan"),
        ("[80, null]", "at least 2 scores, got 1"),
        ('[{"score": 1}, {"points": 2}]', "entry 2 must have a score under 'score', got points"),
        (
            '[{"score": 1}, {"score": 2, "instruction": "Other."}]',
            "entry 2 is a score for another instruction",
        ),
    ],
)
def test_earlier_scores_that_do_not_fit_are_refused_with_their_place(tmp_path, make_item, content, complaint):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(DataError, match=complaint):
        read_earlier_scores(tmp_path / "scores.json", [make_item(number=i) for i in range(2)])


stats = pytest.importorskip("scipy.stats", reason="SciPy is the reference; it comes with scikit-learn")
LLAMA = [85, 90, 40, 0, 100, 85, 60, None, 75, 20]
HUMAN = [80, 95, 30, 10, 100, 70, 60, 50, None, 20]


def test_the_correlations_equal_scipys_on_the_answers_that_both_scored():
    found = agreement(LLAMA, HUMAN)
    first, second = zip(*[pair for pair in zip(LLAMA, HUMAN) if None not in pair])
    assert found.n == 8
    assert found.pearson.value == pytest.approx(stats.pearsonr(first, second).statistic)
    assert found.spearman.value == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.kendall.value == pytest.approx(stats.kendalltau(first, second).statistic)
    assert found.mean == sum(first) / 8
    assert dataclasses.asdict(found)["pearson"]["value"] == found.pearson.value


def test_one_shared_answer_is_too_few():
    with pytest.raises(DataError, match="got 1"):
        agreement([1, None, 3], [2, 2, None])
