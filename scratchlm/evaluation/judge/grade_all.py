"""Grade all answers and controls in parallel, and build the records of the result file."""

import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, ServiceError
from scratchlm.evaluation.judge.controls import Control, control_results, controls_for
from scratchlm.evaluation.judge.grading import Grade, Grader
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.protocols import JudgingProtocol
from scratchlm.evaluation.judge.result_file import Header
from scratchlm.evaluation.judge.summary import Judgement, summarise

GIVE_UP_AFTER = 5  # after this many items without a reply and none with one, the judge counts as unavailable
UNREACHABLE_IN_A_ROW = 20  # consecutive failed items after which a judge that did reply counts as unavailable
SHUTDOWN_S = 2.0  # how long a stopped run waits for pending replies

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True, kw_only=True)
class Graded:
    """Items and controls with their grades, in order, and the summary."""

    items: tuple[tuple[Item, Grade], ...]
    controls: tuple[tuple[Control, Grade], ...]
    judgement: Judgement


def grade_all(
    items: Sequence[Item],
    grader: Grader,
    *,
    protocol: JudgingProtocol,
    n_control_items: int = 5,
    n_workers: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Graded:
    """Grade every item and the controls; n_control_items=0 leaves the controls out.

    An item without a reply gets the status failed, and the others are still graded.
    Raises: ServiceError when the first five questions, or all, get no reply, and when the judge cannot be
        reached for twenty consecutive items.
    """
    check_at_least(1, workers=n_workers)
    check_at_least(0, control_items=n_control_items)
    if protocol.name == "pairwise" and any(item.other is None for item in items):
        raise ConfigError("pairwise needs two answers to each task, got one; name the other answers as well.")
    controls = controls_for(items, n_items=n_control_items)
    jobs = [*((item, False) for item in items), *((control.item, True) for control in controls)]
    grades: list[Grade | None] = [None] * len(jobs)
    has_reply, n_failed, n_unreachable = False, 0, 0
    report(0, len(jobs))
    with closing(
        in_parallel(lambda job: grader.grade(job[0], ask_if_empty=job[1]), jobs, n_workers=n_workers)
    ) as run:
        for n_done, (place, grade) in enumerate(run, start=1):
            grades[place] = grade
            has_reply = has_reply or grade.status in ("scored", "unparsed")
            n_failed += grade.status == "failed"
            if grade.status != "empty":
                n_unreachable = n_unreachable + 1 if grade.is_unreachable else 0
            if not has_reply and n_failed >= GIVE_UP_AFTER:
                raise _no_reply(f"any of {n_failed} questions", grade)
            if n_unreachable >= UNREACHABLE_IN_A_ROW:
                raise _no_reply(f"{n_unreachable} questions in a row", grade)
            report(n_done, len(jobs))
    done = [grade for grade in grades if grade is not None]
    asked = [grade for grade in done if grade.status != "empty"]
    if asked and all(grade.status == "failed" for grade in asked):
        raise _no_reply(f"any of {len(asked)} questions", asked[-1])
    item_grades, control_grades = done[: len(items)], done[len(items) :]
    return Graded(
        items=tuple(zip(items, item_grades)),
        controls=tuple(zip(controls, control_grades)),
        judgement=summarise(item_grades, control_results(controls, control_grades), protocol=protocol),
    )


def in_parallel(
    work: Callable[[Job], Outcome], jobs: Sequence[Job], *, n_workers: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Run the jobs in n_workers threads; yield each job's index and result when it is done.

    A job starts when the caller has taken a result, so at most n_workers run at a time. An exception of a job is raised
    here. When the caller stops early, for example by Ctrl-C, running jobs get two seconds; a slower judge does not
    delay the exit. With one worker, jobs run in the caller's thread, so that Ctrl-C also stops a model in this process:
    its thread could not be abandoned, since torch aborts a process that exits while it computes.
    """
    if n_workers == 1:
        for place, job in enumerate(jobs):
            yield place, work(job)
        return
    todo = iter(range(len(jobs)))
    running: dict[Future[Outcome], int] = {}

    def start(place: int) -> None:
        outcome = Future[Outcome]()
        running[outcome] = place

        def run() -> None:
            try:
                outcome.set_result(work(jobs[place]))
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True).start()

    try:
        for place in itertools.islice(todo, n_workers):
            start(place)
        while running:
            for outcome in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(outcome), outcome.result()
                for place in itertools.islice(todo, 1):
                    start(place)
    finally:
        wait(running, timeout=SHUTDOWN_S)


def file_records(header: Header, graded: Graded, *, known: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The lines of the finished result file, in order.

    `known` are replies of an earlier run. Those that this run did not need, for example to controls that are
    now skipped, stay in the file, because they may have cost money.
    """
    yield header.record()
    for number, (item, grade) in enumerate(graded.items, start=1):
        other = {} if item.other is None else {"other_response": item.other}
        texts = {"instruction": item.instruction, "input": item.input, "output": item.reference}
        yield {
            "kind": "item", "item": number, "id": item.id, **texts, "model_response": item.answer, **other,
            **_grade_record(grade),
        }  # fmt: skip
    for control, grade in graded.controls:
        about = {"name": control.name, "id": control.item.id, "answer": control.item.answer}
        yield {"kind": "control", **about, **_grade_record(grade)}
    grades = [grade for _, grade in (*graded.items, *graded.controls)]
    used = {reply.call for grade in grades for reply in grade.replies}
    for call in sorted(known.keys() - used):
        yield {"kind": "reply", "call": call, "reply": known[call]}
    yield {"kind": "result", **graded.judgement.record()}


def _grade_record(grade: Grade) -> dict[str, Any]:
    problem = {"problem": grade.problem} if grade.problem else {}
    figures = {"figures": dict(grade.figures)} if grade.figures else {}
    replies = [reply.record() for reply in grade.replies]
    return {"status": grade.status, "score": grade.score, **problem, **figures, "replies": replies}


def _no_reply(to_what: str, grade: Grade) -> ServiceError:
    return ServiceError(
        f"the judge did not reply to {to_what}; the last error: {grade.problem} "
        "Run the same command again once it replies; it resumes there."
    )
