"""A judgement and a comparison in the terminal: the figure first, then what stands behind it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scratchlm.cli import terminal
from scratchlm.evaluation.correlation import Correlation
from scratchlm.evaluation.judge.agreement import Agreement
from scratchlm.evaluation.judge.summary import Judgement
from scratchlm.evaluation.paired import PairedComparison


def show_judgement(judgement: Judgement, *, name: str, agreed: Agreement | None) -> None:
    """Print the mean with its interval, the counts, the controls, and last whether the judge can be relied on."""
    console = terminal.console()
    _say(console, _headline(judgement, name))
    _say(console, _counts(judgement))
    if judgement.median is not None:
        deviation = "" if judgement.deviation is None else f", standard deviation {judgement.deviation:.1f}"
        _say(console, f"median {judgement.median:.1f}{deviation}")
    _show_figures(console, judgement)
    _show_pairs(console, judgement)
    _show_controls(console, judgement)
    if agreed is not None:
        show_agreement(console, agreed)
    _say(console, _verdict(judgement), style="bold red" if judgement.is_unreliable else "bold")


def show_agreement(console: Console, agreed: Agreement) -> None:
    """How far the judge goes with earlier scores."""
    _say(
        console,
        f"beside earlier scores of {agreed.n:,} of these answers: mean {agreed.mean:.1f} here, "
        f"{agreed.earlier_mean:.1f} there",
    )
    table = Table("correlation", "value", "95 % interval")
    for name in ("pearson", "spearman", "kendall"):
        found: Correlation = getattr(agreed, name)
        value = "none: all scores are equal" if found.value is None else f"{found.value:.3f}"
        table.add_row(name.capitalize(), value, _ends(found.low, found.high))
    console.print(table)


def show_comparison(result: PairedComparison, *, name_a: str, name_b: str) -> None:
    """Print both means, the difference with its interval, and last what can be said."""
    console = terminal.console()
    table = Table("", "file", f"mean over {result.n:,} items")
    table.add_row("A", Text(name_a), f"{result.mean_a:.2f}")
    table.add_row("B", Text(name_b), f"{result.mean_b:.2f}")
    console.print(table)
    _say(
        console,
        f"B - A: {result.difference:+.2f} ({_interval_of_difference(result)}); B is higher on "
        f"{result.higher:,} items, equal on {result.equal:,}, lower on {result.lower:,} (sign test p = "
        f"{result.p_value:.3g})",
    )
    names = {"A": "A scores higher than B.", "B": "B scores higher than A."}
    said = names.get(result.verdict, "A and B cannot be told apart on these items.")
    _say(console, said, style="bold")


def show_doubts(doubts: Sequence[str], *, of: str) -> None:
    """Say of whom the controls make the scores unreliable; nothing without doubts."""
    if doubts:
        _say(terminal.console(), f"{of}{_doubted(doubts)}", style="bold red")


def _say(console: Console, line: str, *, style: str = "") -> None:
    console.print(Text(line, style=style), soft_wrap=True)


def _headline(judgement: Judgement, name: str) -> str:
    low, high = judgement.scale
    if judgement.mean is None:
        return f"{name}: no score for any of {judgement.n_items:,} answers"
    return (
        f"{name}: {judgement.mean:.2f} on {low}..{high} ({_interval(judgement.low, judgement.high)}) "
        f"over {judgement.n_counted:,} of {judgement.n_items:,} answers"
    )


def _counts(judgement: Judgement) -> str:
    line = (
        f"{judgement.scored:,} scored, {judgement.unparsed:,} unparsed, {judgement.failed:,} failed, "
        f"{judgement.empty:,} empty"
    )
    if judgement.empty:
        line += (
            " (an empty answer counts, at the lowest point)"
            if judgement.protocol != "pairwise"
            else " (they lose)"
        )
    if judgement.unparsed or judgement.failed:
        line += (
            f"; had those without a score got the lowest or the highest, the mean would be {judgement.least:.2f} or "
            f"{judgement.most:.2f}"
        )
    if judgement.failed:
        line += "; the same command asks the failed ones again"
    return line


def _show_figures(console: Console, judgement: Judgement) -> None:
    if not judgement.figures:
        return
    table = Table("figure", "mean", "95 % interval")
    for name, figure in judgement.figures.items():
        note = " (0 is the same text)" if name == "edit_distance" else ""
        table.add_row(name.replace("_", " ") + note, f"{figure.mean:.3f}", _ends(figure.low, figure.high))
    console.print(table)


def _show_pairs(console: Console, judgement: Judgement) -> None:
    pairs = judgement.pairs
    if pairs is None:
        return
    _say(
        console,
        "a pair won in both orders scores 100, lost 0; 50 is even, or a judge that only sees the order",
    )
    _say(
        console,
        f"in both orders alike: {pairs.wins:,} won, {pairs.ties:,} tied, {pairs.losses:,} lost; {pairs.split:,} differ "
        "with the order",
    )
    if pairs.first_chosen is not None:
        _say(
            console,
            f"position: the answer shown first was chosen {pairs.first_chosen:.0%} of the time (95 % interval "
            f"{pairs.first_low:.0%} to {pairs.first_high:.0%}; 50% is no bias)",
        )


def _show_controls(console: Console, judgement: Judgement) -> None:
    if not judgement.controls:
        _say(console, "no controls were judged: what these scores are worth is not known")
        return
    table = Table(
        f"control (on {max(c.n for c in judgement.controls)} items)",
        "should be",
        "mean",
        "unparsed",
        "failed",
    )
    for control in judgement.controls:
        mean = "none" if control.mean is None else f"{control.mean:.1f}"
        should = "low" if control.is_null else "high"
        table.add_row(
            Text(control.name), should, mean, str(control.unparsed or ""), str(control.failed or "")
        )
    console.print(table)


def _interval_of_difference(result: PairedComparison) -> str:
    return (
        "one item has no interval"
        if result.n < 2
        else f"95 % interval {result.low:+.2f} to {result.high:+.2f}"
    )


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return (
        "one answer has no interval"
        if low is None or high is None
        else f"95 % interval {low:.2f} to {high:.2f}"
    )


def _doubted(doubts: Sequence[str]) -> str:
    more = f"; and {len(doubts) - 3} more" if len(doubts) > 3 else ""
    return f"UNRELIABLE: {'; '.join(doubts[:3])}{more}"


def _verdict(judgement: Judgement) -> str:
    if judgement.is_unreliable:
        return _doubted(judgement.doubts)
    if judgement.mean is None:
        return "no score"
    checked = ", controls passed" if judgement.controls else ", controls left out"
    ends = "" if judgement.low is None else f" [{judgement.low:.2f}, {judgement.high:.2f}]"
    return f"score {judgement.mean:.2f}{ends}{checked}"
