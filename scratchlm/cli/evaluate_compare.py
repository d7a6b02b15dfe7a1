"""`scratchlm evaluate compare`: compare two models' scores on the same items."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from scratchlm.cli.judgement_view import show_comparison, show_doubts
from scratchlm.cli.parsing import Common, command_line
from scratchlm.core.errors import ConfigError
from scratchlm.evaluation.judge.items import ANSWER_KEY
from scratchlm.evaluation.judge.scored_files import read_scored, scores_in_common
from scratchlm.evaluation.paired import compare_paired


@dataclass(frozen=True, kw_only=True)
class EvaluateCompare(Common):
    """Compare two result files of `evaluate judge`, or two files of answers, which are scored by their words.

    The comparison is paired, item by item: the 95 % bootstrap interval of the mean difference, and a sign
    test. One of the two is called better only when both show a difference.

    Example: scratchlm evaluate compare before.jsonl after.jsonl
    """

    files: tyro.conf.Positional[tuple[Path, ...]] = ()  # A and B: result files, answer files or run folders
    shared_only: bool = False  # compare only the items that have a score in both files
    answer_key: str = ANSWER_KEY  # key of the answer in files of answers


@command_line(EvaluateCompare)
def main(command: EvaluateCompare, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Compare the files and print the result; returns the `--json` keys."""
    if len(command.files) != 2:
        raise ConfigError(
            f"evaluate compare needs two files, got {len(command.files)}; e.g. evaluate compare a.jsonl b.jsonl."
        )
    a, b = (read_scored(path, answer_key=command.answer_key) for path in command.files)
    scores_a, scores_b = scores_in_common(a, b, shared_only=command.shared_only)
    result = compare_paired(scores_a, scores_b)
    n_left_out = len(a.ids | b.ids) - result.n
    show_comparison(result, name_a=str(a.path), name_b=str(b.path))
    if n_left_out:
        print(f"left out: {n_left_out:,} of {len(a.ids | b.ids):,} items, which have no score in one file")
    for name, scored in (("A", a), ("B", b)):
        show_doubts(scored.doubts, of=f"{name} is ")
    return {
        **asdict(result),
        "verdict": result.verdict,
        "left_out": n_left_out,
        "unreliable": {"A": list(a.doubts), "B": list(b.doubts)},
    }
