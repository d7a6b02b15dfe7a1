"""Does a judge agree with somebody who scored the same answers before: a human, or another judge?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.evaluation.correlation import Correlation, kendall, pearson, spearman


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Three correlations over the answers that both scored, and both means there."""

    n: int
    mean: float
    earlier_mean: float
    pearson: Correlation
    spearman: Correlation
    kendall: Correlation

    def record(self) -> dict[str, Any]:
        """As in `--json`."""
        return asdict(self)


def agreement(scores: Sequence[float | None], earlier: Sequence[float | None]) -> Agreement:
    """Compare two lists of scores for the same answers; an answer that one of them lacks is left out.

    Raises: DataError when fewer than two are in both.
    """
    both = [(x, y) for x, y in zip(scores, earlier, strict=True) if x is not None and y is not None]
    if len(both) < 2:
        raise DataError(
            f"a calibration needs 2 answers or more that both scored, found {len(both)}; score more answers."
        )
    ours, theirs = [x for x, _ in both], [y for _, y in both]
    return Agreement(
        n=len(both),
        mean=sum(ours) / len(ours),
        earlier_mean=sum(theirs) / len(theirs),
        pearson=pearson(ours, theirs),
        spearman=spearman(ours, theirs),
        kendall=kendall(ours, theirs),
    )
