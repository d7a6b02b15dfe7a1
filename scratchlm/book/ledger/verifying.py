"""Recompute the book's figures on this machine and compare each with the printed value."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from scratchlm.assets.known_weights import FILES, gpt2_files, gpt2_size
from scratchlm.assets.registry import asset_path, find_file, is_here
from scratchlm.book.ledger import chapters_2_to_4, chapters_5_and_d, chapters_6_to_e
from scratchlm.book.ledger.table import REASONS, Entry, Verdict
from scratchlm.core.errors import DataError, ScratchLMError
from scratchlm.core.memory import memory_errors_explained

FIGURES: dict[str, Callable[[], Any]] = {
    **chapters_2_to_4.FIGURES,
    **chapters_5_and_d.FIGURES,
    **chapters_6_to_e.FIGURES,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result for one entry."""

    entry: Entry
    verdict: Verdict
    value: Any = None  # None when it was not run
    reason: str = ""  # why it was not run, or may differ
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The keys of `scratchlm verify --json`."""
        expected = self.entry.expected
        expected = self.entry.shown_expectation() if expected is None else expected
        return {
            "id": self.entry.id,
            "chapter": self.entry.chapter,
            "what": self.entry.what,
            "value": _for_json(self.value),
            "expected": expected,
            "tolerance": self.entry.tolerance,
            "verdict": self.verdict,
            "reason": self.reason,
            "provenance": self.entry.provenance,
            "seconds": round(self.seconds, 3),
        }


def verify_entries(entries: Iterable[Entry], *, with_hours: bool = False) -> Iterator[Finding]:
    """Recompute entries in order; one that cannot run gives the reason and the command that helps.

    `with_hours` includes entries that take hours on two CPU cores. Nothing is downloaded.
    """
    for entry in entries:
        missing = _why_not(entry, with_hours=with_hours)
        if missing is not None:
            yield Finding(entry=entry, verdict="not run", reason=missing)
            continue
        started_at_s = time.perf_counter()
        try:
            with memory_errors_explained("close other programs, or choose entries with --chapter"):
                value = FIGURES[entry.id]()
        except ScratchLMError as cause:  # a figure that fails must not hide the others
            yield Finding(entry=entry, verdict="not run", reason=str(cause))
            continue
        elapsed_s = time.perf_counter() - started_at_s
        if entry.agrees(value):
            yield Finding(entry=entry, verdict="agrees", value=value, seconds=elapsed_s)
        else:
            known = "; ".join(REASONS[name] for name in entry.differs_by)
            reason = known or "no reason is known: this is a fault, please report it"
            yield Finding(entry=entry, verdict="differs", value=value, reason=reason, seconds=elapsed_s)


def _why_not(entry: Entry, *, with_hours: bool) -> str | None:
    """The reason why an entry cannot run here; None when it can."""
    for need in entry.needs:
        if not need.startswith("gpt2/") and find_file(need) is not None:
            try:
                asset_path(need)
            except DataError as damaged:
                return str(damaged)
        elif not _is_here(need):
            return f"{need} is missing or incomplete on this machine; `{_fetch_command(need)}` fetches it"
    if entry.effort == "hours" and not with_hours:
        return "it takes hours on two CPU cores; --slow runs it"
    return None


def _is_here(need: str) -> bool:
    """Whether the asset is here; for weights, every file of one of the two formats."""
    if need.startswith("gpt2/"):
        size = gpt2_size(need.partition("/")[2])
        return any(all(is_here(asset.id) for asset in gpt2_files(size, source)) for source in FILES)
    return is_here(need)


def _for_json(value: Any) -> Any:
    """The value with nan and infinity as text, since JSON has no such numbers."""
    if isinstance(value, (list, tuple)):
        return [_for_json(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _fetch_command(need: str) -> str:
    if need.startswith("gpt2/"):
        return f"scratchlm weights fetch {gpt2_size(need.partition('/')[2]).name}"
    return f"scratchlm data fetch {need}"
