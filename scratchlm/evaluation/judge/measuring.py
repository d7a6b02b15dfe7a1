"""All answers and all controls through a grader, and the lines of the file that keeps what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from scratchlm.core.errors import ConfigError, ServiceError
from scratchlm.evaluation.judge.controls import Control, control_results, controls_for
from scratchlm.evaluation.judge.grading import Grade, Grader
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.protocols import JudgingProtocol
from scratchlm.evaluation.judge.result_file import Header
from scratchlm.evaluation.judge.summary import Judgement, summarise
from scratchlm.evaluation.judge.workers import in_parallel

GIVE_UP_AFTER = 5  # items without any reply before the first that has one: the judge is down, or is none
NO_REPLIES: Mapping[str, str] = MappingProxyType({})
SILENT_IN_A_ROW = 20  # items after which a judge that did reply has gone away; each has cost all attempts


@dataclass(frozen=True, kw_only=True)
class Graded:
    """Items and controls with their grades, in their order, and the judgement."""

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
    """Every item's grade, and the controls'; n_control_items=0 leaves the controls out.

    An item whose judge does not reply is failed, and the others go on.
    Raises: ServiceError when the first five items asked, or all, get no reply, and when a judge is silent twenty
        times in a row.
    """
    if n_workers < 1 or n_control_items < 0:
        raise ConfigError(
            f"workers must be at least 1 and control items at least 0, got {n_workers} and {n_control_items}."
        )
    if protocol.name == "pairwise" and any(item.other is None for item in items):
        raise ConfigError(
            "pairwise needs two answers to each task, found one; name the other answers as well."
        )
    controls = controls_for(items, n_items=n_control_items)
    jobs = [*((item, False) for item in items), *((control.item, True) for control in controls)]
    grades: list[Grade | None] = [None] * len(jobs)
    has_reply, n_failed, n_silent = False, 0, 0
    report(0, len(jobs))
    with closing(
        in_parallel(lambda job: grader.grade(job[0], ask_if_empty=job[1]), jobs, n_workers=n_workers)
    ) as run:
        for n_done, (place, grade) in enumerate(run, start=1):
            grades[place] = grade
            has_reply = has_reply or grade.status in ("scored", "unparsed")
            n_failed += grade.status == "failed"
            if grade.status != "empty":
                n_silent = n_silent + 1 if grade.is_silent else 0
            if not has_reply and n_failed >= GIVE_UP_AFTER:
                raise _judge_is_down(f"to any of {n_failed} questions", grade)
            if n_silent >= SILENT_IN_A_ROW:
                raise _judge_is_down(f"to {n_silent} questions in a row", grade)
            report(n_done, len(jobs))
    done = [grade for grade in grades if grade is not None]
    asked = [grade for grade in done if grade.status != "empty"]
    if asked and all(grade.status == "failed" for grade in asked):
        raise _judge_is_down(f"to any of {len(asked)} questions", asked[-1])
    item_grades, control_grades = done[: len(items)], done[len(items) :]
    return Graded(
        items=tuple(zip(items, item_grades)),
        controls=tuple(zip(controls, control_grades)),
        judgement=summarise(item_grades, control_results(controls, control_grades), protocol=protocol),
    )


def file_records(
    header: Header, graded: Graded, *, known: Mapping[str, str] = NO_REPLIES
) -> Iterator[dict[str, Any]]:
    """The lines of the finished file, in order.

    `known` are replies of an earlier run. Those that this one had no use for, to controls that are left out now for
    one, stay in the file: they have been paid for.
    """
    yield header.record()
    for number, (item, grade) in enumerate(graded.items, start=1):
        other = {} if item.other is None else {"other_response": item.other}
        texts = {"instruction": item.instruction, "input": item.input, "output": item.reference}
        yield {
            "kind": "item", "item": number, "id": item.id, **texts, "model_response": item.answer, **other,
            **_of_grade(grade),
        }  # fmt: skip
    for control, grade in graded.controls:
        yield {
            "kind": "control", "name": control.name, "id": control.item.id, "answer": control.item.answer,
            **_of_grade(grade),
        }  # fmt: skip
    grades = [grade for _, grade in (*graded.items, *graded.controls)]
    used = {reply.call for grade in grades for reply in grade.replies}
    for call in sorted(known.keys() - used):
        yield {"kind": "reply", "call": call, "reply": known[call]}
    yield {"kind": "result", **graded.judgement.record()}


def _of_grade(grade: Grade) -> dict[str, Any]:
    problem = {"problem": grade.problem} if grade.problem else {}
    figures = {"figures": dict(grade.figures)} if grade.figures else {}
    replies = [reply.record() for reply in grade.replies]
    return {"status": grade.status, "score": grade.score, **problem, **figures, "replies": replies}


def _judge_is_down(to_what: str, grade: Grade) -> ServiceError:
    return ServiceError(
        f"the judge should reply, found no reply {to_what}; the last: {grade.problem} "
        "Once it replies, the same command goes on."
    )
