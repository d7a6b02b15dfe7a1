"""Recompute the ledger's entries on this machine and judge each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from scratchlm.assets.known_weights import FILES, gpt2_files, gpt2_size
from scratchlm.assets.registry import asset_path, find_file
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
    """What became of one entry."""

    entry: Entry
    verdict: Verdict
    value: Any = None  # None when it was not run
    reason: str = ""  # why it was not run, or why it may differ
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The keys that `scratchlm verify --json` promises, and some more."""
        return {
            "id": self.entry.id,
            "chapter": self.entry.chapter,
            "what": self.entry.what,
            "value": _for_json(self.value),
            "expected": self.entry.shown_expectation()
            if self.entry.expected is None
            else self.entry.expected,
            "tolerance": self.entry.tolerance,
            "verdict": self.verdict,
            "reason": self.reason,
            "provenance": self.entry.provenance,
            "seconds": round(self.seconds, 3),
        }


def verify_entries(entries: Iterable[Entry], *, with_hours: bool = False) -> Iterator[Finding]:
    """Judge one entry after the other; what cannot be run says why and how to make it run.

    `with_hours` also runs what takes hours on two CPU cores. Nothing is downloaded.
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
        except ScratchLMError as cause:  # one figure that cannot be had must not hide the others
            yield Finding(entry=entry, verdict="not run", reason=str(cause))
            continue
        elapsed_s = time.perf_counter() - started_at_s
        if entry.agrees(value):
            yield Finding(entry=entry, verdict="agrees", value=value, seconds=elapsed_s)
        else:
            told = "; ".join(REASONS[name] for name in entry.differs_by)
            reason = told or "no honest reason is known: this is a fault, please report it"
            yield Finding(entry=entry, verdict="differs", value=value, reason=reason, seconds=elapsed_s)


def _why_not(entry: Entry, *, with_hours: bool) -> str | None:
    """Why an entry cannot run here, or None when it can."""
    for need in entry.needs:
        if not need.startswith("gpt2/") and find_file(need) is not None:
            try:
                asset_path(need)
            except DataError as damaged:
                return str(damaged)
        elif not _is_here(need):
            return f"{need} is not on this machine in full; `{_fetching(need)}` fetches it"
    if entry.effort == "hours" and not with_hours:
        return "it takes hours on two CPU cores; --slow runs it"
    return None


def _is_here(need: str) -> bool:
    """Is the asset here? For a folder of weights either of its two forms will do, with every file of it."""
    if need.startswith("gpt2/"):
        size = gpt2_size(need.partition("/")[2])
        return any(all(_is_file_here(asset.id) for asset in gpt2_files(size, source)) for source in FILES)
    return _is_file_here(need)


def _for_json(value: Any) -> Any:
    """The value with its nan and infinity as words: JSON has no such numbers."""
    if isinstance(value, (list, tuple)):
        return [_for_json(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_file_here(name: str) -> bool:
    try:
        asset_path(name)
    except DataError:
        return False
    return True


def _fetching(need: str) -> str:
    sizes = {"124M": "gpt2-small", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}
    if need.startswith("gpt2/"):
        return f"scratchlm weights fetch {sizes[need.partition('/')[2]]}"
    return f"scratchlm data fetch {need}"
