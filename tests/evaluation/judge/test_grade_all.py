"""A whole judgement: the same file whoever was quick, a judge that is down, and an end that can be resumed."""

import contextlib
import random
import re
import threading
import time

import pytest

from scratchlm.core.errors import ConfigError, ServiceError
from scratchlm.evaluation.judge.grade_all import file_records, grade_all, in_parallel
from scratchlm.evaluation.judge.grading import JudgeGrader
from scratchlm.evaluation.judge.items import fingerprint
from scratchlm.evaluation.judge.prompt_files import read_prompt
from scratchlm.evaluation.judge.protocols import PROTOCOLS
from scratchlm.evaluation.judge.reply_store import ReplyStore
from scratchlm.evaluation.judge.result_file import Header, Journal
from scratchlm.evaluation.judge.service import JudgeUnreachableError

SCORE = PROTOCOLS["score"]


def by_length(messages):
    """13 for most; chatty at first where the task says so; 90 for the reference."""
    question = messages[0]["content"]
    if len(messages) > 1:
        return f"Score for item {re.search('item ([b-z]{8})', messages[-1]['content'])[1]}: 41"
    if "thing ck" in question:
        return "I cannot say: 41"
    reference = re.search(r"<<begin correct answer \w+>>\n(.*?)\n<<end", question, re.DOTALL)[1]
    return "90" if question.count(reference) == 2 else "13"


def write_judgement(path, items, judge, *, n_workers):
    prompt = read_prompt("score")
    header = Header(
        judge=judge.name,
        identity=judge.identity,
        protocol="score",
        prompt_sha256=prompt.sha256,
        answers_sha256=fingerprint(items),
        n_items=len(items),
    )
    with Journal(path, header) as journal:
        grader = JudgeGrader(ReplyStore(judge, known=journal.known, journal=journal), SCORE, prompt)
        graded = grade_all(items, grader, protocol=SCORE, n_workers=n_workers)
        journal.finish(file_records(header, graded, known=journal.known))
    return graded.judgement


@pytest.mark.parametrize("n_workers", [2, 8])
def test_the_file_is_the_same_whoever_was_quick(tmp_path, scripted_judge, make_item, n_workers):
    draw = random.Random(1)

    def slow(messages):
        time.sleep(draw.random() / 500)
        return by_length(messages)

    items = [*(make_item(f"Thing {i}.", number=i) for i in range(12)), make_item("Thing 0."), make_item("")]
    write_judgement(tmp_path / "one.jsonl", items, scripted_judge(by_length), n_workers=1)
    judge = scripted_judge(slow)
    write_judgement(tmp_path / "many.jsonl", items, judge, n_workers=n_workers)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "many.jsonl").read_bytes()
    questions = [str(messages) for messages in judge.asked]
    assert len(questions) == len(set(questions))


def test_counts_controls_and_reminders_in_one_run(scripted_judge, grader_of, make_item):
    items = [*(make_item(f"Thing {i}.", number=i) for i in range(9)), make_item("")]
    seen = []
    graded = grade_all(
        items,
        grader_of(scripted_judge(by_length)),
        protocol=SCORE,
        report=lambda *progress: seen.append(progress),
    )
    result = graded.judgement
    assert (result.scored, result.empty, result.unparsed, result.failed) == (9, 1, 0, 0)
    assert result.mean == pytest.approx((8 * 13 + 41) / 10)
    assert result.controls[0].mean >= 80
    assert not result.is_unreliable
    assert seen[0] == (0, 75)
    assert seen[-1] == (75, 75)


def test_failed_items_are_counted_and_the_next_run_asks_them_alone(tmp_path, scripted_judge, make_item):
    items = [make_item(f"Thing {i}.", number=i) for i in range(9)]
    flaky = scripted_judge(
        lambda messages: None if "thing dk" in messages[0]["content"] else by_length(messages)
    )
    first = write_judgement(tmp_path / "a.jsonl", items, flaky, n_workers=1)
    assert first.failed == 1
    well = scripted_judge(by_length)
    second = write_judgement(tmp_path / "a.jsonl", items, well, n_workers=1)
    assert second.failed == 0
    assert all("thing dk" in messages[0]["content"] for messages in well.asked)
    write_judgement(tmp_path / "b.jsonl", items, scripted_judge(by_length), n_workers=1)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_judge_that_is_down_is_told_after_five_items(scripted_judge, grader_of, make_item):
    judge = scripted_judge(lambda messages: None)
    items = [make_item("")] * 3 + [make_item(f"Thing {i}.", number=i) for i in range(50)]
    with pytest.raises(ServiceError, match=r"any of 5 questions; the last error: .* found nobody"):
        grade_all(items, grader_of(judge), protocol=SCORE)
    assert len(judge.asked) <= 6


def test_a_judge_that_is_down_is_told_when_there_are_fewer(scripted_judge, grader_of, make_item):
    with pytest.raises(ServiceError, match="any of 2 questions"):
        grade_all(
            [make_item("a"), make_item("b")],
            grader_of(scripted_judge(lambda messages: None)),
            protocol=SCORE,
            n_control_items=0,
        )


def test_failures_after_a_reply_do_not_stop_a_run(scripted_judge, grader_of, make_item):
    judge = scripted_judge(lambda messages: "13" if "Thing a." in messages[0]["content"] else None)
    items = [make_item("Thing a."), *(make_item(f"Thing {i}.", number=i) for i in range(1, 9))]
    result = grade_all(items, grader_of(judge), protocol=SCORE, n_control_items=0).judgement
    assert (result.scored, result.failed, result.controls) == (1, 8, ())


@pytest.mark.parametrize(("error", "n_asked"), [(JudgeUnreachableError, 21), (ServiceError, 60)])
def test_a_judge_that_goes_away_is_not_asked_for_ever(scripted_judge, grader_of, make_item, error, n_asked):
    """Nobody there twenty times in a row ends the run; a question that does not fit the context is its own fault."""

    def says(messages):
        if "Thing 0." in messages[0]["content"]:
            return "13"
        raise error("the judge is gone.")

    judge = scripted_judge(says)
    items = [
        make_item(f"Thing {i}." if i < 60 else "", number=i) for i in [0, *range(1, 10), 60, *range(10, 60)]
    ]
    with (
        contextlib.nullcontext()
        if error is ServiceError
        else pytest.raises(
            ServiceError,
            match=r"not reply to 20 questions in a row; the last error: the judge is gone. Run the same command",
        )
    ):
        result = grade_all(items, grader_of(judge), protocol=SCORE, n_control_items=0).judgement
        assert (result.scored, result.failed) == (1, 59)
    assert len(judge.asked) == n_asked


def test_a_silence_that_ends_is_no_end(scripted_judge, grader_of, make_item):
    def says(messages):
        if re.search(r"Thing \d*0\.", messages[0]["content"]):
            return "13"
        raise JudgeUnreachableError("the judge is gone.")

    items = [make_item(f"Thing {i}.", number=i) for i in range(60)]
    result = grade_all(items, grader_of(scripted_judge(says)), protocol=SCORE, n_control_items=0).judgement
    assert (result.scored, result.failed) == (6, 54)


def test_nothing_but_empty_answers_needs_no_judge(scripted_judge, grader_of, make_item):
    judge = scripted_judge(lambda messages: None)
    result = grade_all([make_item("")] * 3, grader_of(judge), protocol=SCORE, n_control_items=0).judgement
    assert (result.mean, result.empty, judge.asked) == (0, 3, [])


@pytest.mark.parametrize("settings", [{"n_workers": 0}, {"n_control_items": -1}])
def test_settings_out_of_range_are_refused(scripted_judge, grader_of, make_item, settings):
    with pytest.raises(ConfigError, match="at least"):
        grade_all([make_item()], grader_of(scripted_judge(by_length)), protocol=SCORE, **settings)


def test_a_pair_needs_two_answers(scripted_judge, grader_of, make_item):
    with pytest.raises(ConfigError, match="two answers"):
        grade_all(
            [make_item()], grader_of(scripted_judge(by_length), "pairwise"), protocol=PROTOCOLS["pairwise"]
        )


@pytest.mark.parametrize("n_workers", [1, 3, 50])
def test_every_job_is_done_once(n_workers):
    assert sorted(in_parallel(lambda job: job * 2, range(20), n_workers=n_workers)) == [
        (i, 2 * i) for i in range(20)
    ]


def test_one_worker_is_the_callers_own_thread():
    (thread,) = {
        outcome for _, outcome in in_parallel(lambda job: threading.current_thread(), range(3), n_workers=1)
    }
    assert thread is threading.current_thread()


def test_no_job_is_no_work():
    assert list(in_parallel(str, [], n_workers=2)) == []


def test_as_many_are_under_way_as_there_are_workers():
    together = threading.Barrier(3, timeout=10)  # passes only when three wait at once
    assert len(list(in_parallel(lambda job: together.wait(), range(3), n_workers=3))) == 3


def test_an_exception_is_raised_where_the_outcomes_are_read():
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda job: 1 // job, [1, 0, 1], n_workers=1))


def test_who_leaves_early_begins_no_further_job_and_loses_none_under_way():
    begun, ended = [], []

    def work(job):
        begun.append(job)
        time.sleep(0.05)
        ended.append(job)

    with contextlib.closing(in_parallel(work, range(100), n_workers=2)) as run:
        next(run)
    assert len(begun) < 10
    assert sorted(begun) == sorted(ended)


def test_a_silent_judge_does_not_hold_who_leaves(monkeypatch):
    monkeypatch.setattr("scratchlm.evaluation.judge.grade_all.SHUTDOWN_S", 0.1)
    release = threading.Event()
    started_at_s = time.monotonic()
    with contextlib.closing(in_parallel(lambda job: job and release.wait(30), [0, 1], n_workers=2)) as run:
        next(run)
    assert time.monotonic() - started_at_s < 10
    release.set()
