"""`scratchlm verify`: the book's figures, recomputed on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from scratchlm.book.ledger.table import choose, read_table
from scratchlm.book.ledger.verifying import Finding, verify_entries
from scratchlm.cli.parsing import Common, run_command
from scratchlm.core.errors import ConfigError

DIFFERS_EXIT_CODE = 1  # nothing is wrong with the command or a file, but a figure is not the book's
MARKS = {"agrees": "agrees ", "differs": "DIFFERS", "not run": "not run"}


@dataclass(frozen=True, kw_only=True)
class Verify(Common):
    """Recompute the book's figures here: each with its value, what is expected, and a verdict.

    What needs weights or texts that are not on this machine is not run, and says how to get them. It computes on
    the CPU, where the same seed draws the same numbers everywhere.
    Example: scratchlm verify --chapter 4
    """

    chapter: tuple[str, ...] = ()  # 2 to 7, D or E; default: all
    quick: bool = False  # only what takes seconds
    slow: bool = False  # also what takes hours on two CPU cores
    list: bool = False  # show the entries and what they need, compute nothing


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run; 0 only when every figure that could be recomputed agrees."""
    n_different = 0

    def act(command: Verify, console: Console) -> dict[str, Any]:
        nonlocal n_different
        result = _act(command, console)
        n_different = result.get("differ", 0)
        return result

    return run_command(Verify, act, args, prog=prog) or (DIFFERS_EXIT_CODE if n_different else 0)


def _act(command: Verify, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Judge and print entry by entry; returns the `--json` keys."""
    if command.device not in ("auto", "cpu"):
        raise ConfigError(
            f"verify computes on the CPU, whose random numbers the figures are of, got --device {command.device}; "
            "leave it out."
        )
    if command.seed is not None:
        raise ConfigError(
            f"verify draws with the seeds that the book names, got --seed {command.seed}; leave it out."
        )
    if command.quick and command.slow:
        raise ConfigError("--quick leaves out what takes long and --slow adds it, got both; say one of them.")
    entries = choose(read_table(), chapters=command.chapter)
    if command.quick:
        entries = [entry for entry in entries if entry.effort == "seconds"]
        if not entries:
            raise ConfigError(
                f"--quick should leave some figures, found none in {', '.join(command.chapter)} that takes "
                "seconds; leave --quick out."
            )
    if command.list:
        if not command.json:
            for entry in entries:
                needs = f"  (needs {', '.join(entry.needs)})" if entry.needs else ""
                print(f"{entry.id:32} {entry.effort:8} {entry.what}{needs}")
        return {"entries": [{"id": e.id, "what": e.what, "needs": list(e.needs)} for e in entries]}
    findings = []
    for finding in verify_entries(entries, with_hours=command.slow):
        findings.append(finding)
        if not command.json:
            _print(finding)
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in MARKS}
    summary = f"{counts['agrees']} agree, {counts['differs']} differ, {counts['not run']} not run"
    if not command.json:
        print(f"\n{summary}")
    return {
        "agree": counts["agrees"],
        "differ": counts["differs"],
        "not_run": counts["not run"],
        "entries": [finding.to_json() for finding in findings],
    }


def _print(finding: Finding) -> None:
    entry = finding.entry
    print(f"{MARKS[finding.verdict]}  {entry.id:30} {entry.what}", flush=True)
    if finding.verdict == "not run":
        print(f"         {finding.reason}")
        return
    nearness = f" +- {entry.tolerance:g}" if entry.tolerance else ""
    print(
        f"         value {finding.value!r}, expected {entry.shown_expectation()}{nearness}  ({finding.seconds:.1f} s)"
    )
    if finding.reason:
        print(f"         perhaps: {finding.reason}")
