"""`scratchlm verify`: recompute the book's figures on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from scratchlm.book.ledger.table import choose, read_table
from scratchlm.book.ledger.verifying import Finding, verify_entries
from scratchlm.cli.parsing import Common, run_command
from scratchlm.core.errors import ConfigError

DIFFERS_EXIT_CODE = 1  # exit code when the command worked but a figure differs from the book's
MARKS = {"agrees": "agrees ", "differs": "DIFFERS", "not run": "not run"}


@dataclass(frozen=True, kw_only=True)
class Verify(Common):
    """Recompute the book's figures on this machine and compare each with the value in the book.

    Figures that need weights or texts that are not on this machine are not run, and the reason says how to get them.
    Everything is computed on the CPU, where the same seed draws the same numbers everywhere.

    Example: scratchlm verify --chapter 4
    """

    chapter: tuple[str, ...] = ()  # 2 to 7, D or E; default: all
    quick: bool = False  # only the figures that take seconds
    slow: bool = False  # also the figures that take hours on two CPU cores
    list: bool = False  # list the figures and what they need, without computing


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run; returns 0 only if every figure that could be recomputed agrees."""
    n_different = 0

    def act(command: Verify, console: Console) -> dict[str, Any]:
        nonlocal n_different
        result = _act(command, console)
        n_different = result.get("differ", 0)
        return result

    return run_command(Verify, act, args, prog=prog) or (DIFFERS_EXIT_CODE if n_different else 0)


def _act(command: Verify, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Compute and print the figures one by one; returns the `--json` keys."""
    if command.device not in ("auto", "cpu"):
        raise ConfigError(
            f"verify computes on the CPU, because the figures depend on its random numbers, got --device "
            f"{command.device}; leave it out."
        )
    if command.seed is not None:
        raise ConfigError(f"verify uses the seeds of the book, got --seed {command.seed}; leave it out.")
    if command.quick and command.slow:
        raise ConfigError(
            "--quick leaves out slow figures and --slow adds more of them, got both; choose one."
        )
    entries = choose(read_table(), chapters=command.chapter)
    if command.quick:
        entries = [entry for entry in entries if entry.effort == "seconds"]
        if not entries:
            raise ConfigError(
                f"no figure of chapter {', '.join(command.chapter)} takes only seconds; leave --quick out."
            )
    if command.list:
        for entry in entries:
            needs = f"  (needs {', '.join(entry.needs)})" if entry.needs else ""
            print(f"{entry.id:32} {entry.effort:8} {entry.what}{needs}")
        return {"entries": [{"id": e.id, "what": e.what, "needs": list(e.needs)} for e in entries]}
    findings = []
    for finding in verify_entries(entries, with_hours=command.slow):
        findings.append(finding)
        _print(finding)
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in MARKS}
    print(f"\n{counts['agrees']} agree, {counts['differs']} differ, {counts['not run']} not run")
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
    tolerance = f" +- {entry.tolerance:g}" if entry.tolerance else ""
    print(
        f"         value {finding.value!r}, expected {entry.shown_expectation()}{tolerance}  ({finding.seconds:.1f} s)"
    )
    if finding.reason:
        print(f"         possible reason: {finding.reason}")
