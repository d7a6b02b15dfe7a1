"""`scratchlm evaluate judge`: score a model's answers with a judge, or by their words alone."""

import re
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from scratchlm.assets.cache_folder import cache_folder
from scratchlm.cli.judgement_view import show_judgement
from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.cli.progress import work_progress
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import read_utf8
from scratchlm.core.protocols import Judge
from scratchlm.evaluation.judge.grade_all import Graded, file_records, grade_all
from scratchlm.evaluation.judge.grading import OFFLINE, Grader, JudgeGrader, OfflineGrader
from scratchlm.evaluation.judge.items import ANSWER_KEY, Item, fingerprint, read_items, with_others
from scratchlm.evaluation.judge.open_judge import judge_named, judge_parts
from scratchlm.evaluation.judge.prompt_files import packaged_prompt, read_prompt
from scratchlm.evaluation.judge.protocols import PROTOCOLS
from scratchlm.evaluation.judge.reply_store import ReplyCache, ReplyStore
from scratchlm.evaluation.judge.result_file import Header, Journal, remove_results
from scratchlm.evaluation.judge.scored_files import SCORE_KEY, agreement, read_earlier_scores
from scratchlm.evaluation.judge.service import DEFAULT_JUDGE_PATIENCE, JudgePatience
from scratchlm.training.interrupts import StoppedBySignal

ProtocolName = Literal["score", "rubric", "pairwise", "checklist"]


@dataclass(frozen=True, kw_only=True)
class EvaluateJudge(Common):
    """Score a model's answers with a judge: the mean score with its 95 % interval; every answer is accounted for.

    Each reply is kept in the result file; after an interruption the same command resumes without repeating a question.
    The judge also scores controls, answers of known quality, which show how reliable its scores are.

    Example: scratchlm evaluate judge --answers answers.json --judge ollama:llama3
    """

    seed: int | None = None  # ollama, openai: the judge's seed; default: 123, as in the book
    answers: Path | None = None  # JSON or JSONL of instruction, input, output and answer; or a run folder
    judge: str | None = None  # ollama:MODEL, openai:MODEL, local:PATH of a model, or offline (words only)
    base_url: str | None = None  # URL of the judge's server; default: OLLAMA_HOST or OPENAI_BASE_URL
    out: Path | None = None  # the result file; default: next to the answers (offline: no file)
    fresh: bool = False  # start over, replacing an existing result file
    answer_key: str = ANSWER_KEY  # key of the answer in each entry
    protocol: ProtocolName = "score"  # score 0-100; rubric 1-10; two answers in both orders; yes/no questions
    other_answers: Path | None = None  # pairwise: the file of the other model's answers
    other_key: str | None = None  # pairwise: the key of the other answer, in that file or in the same
    prompt: Path | None = None  # your own prompt file
    show_prompt: bool = False  # print the protocol's prompt file, to copy and edit
    workers: int = 4  # number of parallel requests; a local judge always has one
    no_controls: bool = False  # leave out the controls that test the judge
    control_items: int = 5  # number of items with controls, 13 controls for each
    no_cache: bool = False  # neither use replies of earlier runs nor keep replies for later ones
    num_ctx: int | None = None  # ollama: context length for question and reply, in tokens; default: 2048
    patience: JudgePatience = DEFAULT_JUDGE_PATIENCE  # timeouts and retries
    calibrate: Path | None = None  # earlier scores for the same answers, to correlate with the judge's
    calibrate_key: str = SCORE_KEY  # key of the score in --calibrate's entries

    def __post_init__(self) -> None:
        check_at_least(1, workers=self.workers, num_ctx=self.num_ctx)
        check_at_least(0, control_items=self.control_items)
        if self.judge not in (None, OFFLINE):
            judge_parts(self.judge)

    @property
    def is_local(self) -> bool:
        """Whether the judge is a model in this process, which answers one question at a time."""
        return (self.judge or "").strip().startswith("local:")

    @property
    def n_controls(self) -> int:
        """Number of items with controls."""
        return 0 if self.no_controls else self.control_items


@command_line(EvaluateJudge)
def main(command: EvaluateJudge, console: Console) -> dict[str, Any]:
    """Judge the answers and print the scores; returns the `--json` keys."""
    if command.show_prompt:
        own = command.prompt
        text = packaged_prompt(command.protocol) if own is None else read_utf8(own, error=ConfigError)
        print(text, end="")
        return {"protocol": command.protocol, "prompt": text}
    answers, judge = required(command, "evaluate judge needs answers and a judge", "answers", "judge")
    items = _items(command, answers)
    earlier = None
    if command.calibrate is not None:  # read before the first request, so that an error costs nothing
        keys = {"key": command.calibrate_key, "answer_key": command.answer_key}
        earlier = read_earlier_scores(command.calibrate, items, **keys)
    graded, out = _graded(command, judge, items, console)
    agreed, problem = None, None
    if earlier is not None:
        try:
            agreed = agreement([grade.score for _, grade in graded.items], earlier)
        except DataError as error:  # shown first, since the judgement may have cost money
            problem = error
    show_judgement(graded.judgement, name=judge, agreed=agreed)
    if out is not None:
        print(f"all replies: {out}")
    if problem is not None:
        raise problem
    return {
        "judge": judge,
        "out": None if out is None else str(out),
        **graded.judgement.record(),
        "control_items": command.n_controls,
        "calibration": None if agreed is None else asdict(agreed),
    }


def _items(command: EvaluateJudge, answers: Path) -> list[Item]:
    is_pair = command.protocol == "pairwise"
    has_other = command.other_answers is not None or command.other_key is not None
    if is_pair and not has_other:
        raise ConfigError("pairwise needs a second answer to each task; add --other-answers or --other-key.")
    if has_other and not is_pair:
        raise ConfigError(
            f"only pairwise takes a second answer, got {command.protocol!r}; add --protocol pairwise, or leave "
            "out --other-answers and --other-key."
        )
    if command.other_answers is None:
        return read_items(answers, answer_key=command.answer_key, other_key=command.other_key)
    others = read_items(command.other_answers, answer_key=command.other_key or command.answer_key)
    return with_others(read_items(answers, answer_key=command.answer_key), others)


def _graded(
    command: EvaluateJudge, judge_name: str, items: list[Item], console: Console
) -> tuple[Graded, Path | None]:
    """Grade all items, and write the result file; the offline judge writes one only with --out."""
    judge = None if judge_name == OFFLINE else _judge(command, judge_name)
    if judge is None:
        _check_offline(command)
        prompt, out = None, command.out
    else:
        prompt = read_prompt(command.protocol, command.prompt)
        out = command.out or _default_out(command, judge)
    if out is None:
        return _grade(command, items, OfflineGrader(), console), None
    header = Header(
        judge=OFFLINE if judge is None else judge.name,
        identity=OFFLINE if judge is None else judge.identity,
        protocol=command.protocol,
        prompt_sha256="" if prompt is None else prompt.sha256,
        answers_sha256=fingerprint(items),
        n_items=len(items),
    )
    if command.fresh:
        remove_results(out)
    with Journal(out, header) as journal:
        grader: Grader = OfflineGrader()
        if judge is not None and prompt is not None:
            cache = None if command.no_cache else ReplyCache(cache_folder() / "judge_replies")
            replies = ReplyStore(judge, known=journal.known, journal=journal, cache=cache)
            grader = JudgeGrader(replies, PROTOCOLS[command.protocol], prompt)
        try:
            graded = _grade(command, items, grader, console)
        except KeyboardInterrupt:
            raise StoppedBySignal(
                signal.SIGINT,
                f"stopped; every reply so far is kept in {out}, and the same command resumes from there.",
            ) from None
        journal.finish(file_records(header, graded, known=journal.known))
    return graded, out


def _judge(command: EvaluateJudge, name: str) -> Judge:
    settings: dict[str, Any] = {"base_url": command.base_url, "num_ctx": command.num_ctx}
    if not command.is_local:
        return judge_named(name, patience=command.patience, seed=command.seed, **settings)
    patience = None if command.patience == DEFAULT_JUDGE_PATIENCE else command.patience
    return judge_named(name, patience=patience, device=command.device, **settings)


def _check_offline(command: EvaluateJudge) -> None:
    """Reject flags without effect on the offline judge."""
    is_given = {
        "--protocol": command.protocol != "score",
        "--prompt": command.prompt is not None,
        "--base-url": command.base_url is not None,
        "--num-ctx": command.num_ctx is not None,
        "--patience": command.patience != DEFAULT_JUDGE_PATIENCE,
    }
    if flags := " and ".join(flag for flag, is_there in is_given.items() if is_there):
        raise ConfigError(f"the offline judge does not use {flags}; leave it out, or name another judge.")


def _grade(command: EvaluateJudge, items: list[Item], grader: Grader, console: Console) -> Graded:
    with work_progress(console)("judging") as report:
        return grade_all(
            items,
            grader,
            protocol=PROTOCOLS[command.protocol],
            n_control_items=command.n_controls,
            n_workers=1 if command.is_local else command.workers,
            report=report,
        )


def _default_out(command: EvaluateJudge, judge: Judge) -> Path:
    """`answers-by-ollama-llama3-score.jsonl` next to the answers, or in their run folder; with any other answer key."""
    assert command.answers is not None
    folder = command.answers if command.answers.is_dir() else command.answers.parent
    stem = "answers" if command.answers.is_dir() else command.answers.stem
    keys = [key for key in (command.answer_key, command.other_key) if key not in (None, ANSWER_KEY)]
    stem = "-".join([stem, *(_plain(str(key)) for key in keys)])
    return folder / f"{stem}-by-{_plain(judge.name)}-{command.protocol}.jsonl"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
