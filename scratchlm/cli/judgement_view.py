"""Show a judgement, or a comparison of two, in the terminal: the result first, then the details."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scratchlm.cli import terminal
from scratchlm.evaluation.correlation import Correlation
from scratchlm.evaluation.judge.scored_files import Agreement
from scratchlm.evaluation.judge.summary import Judgement
from scratchlm.evaluation.paired import PairedComparison


def show_judgement(judgement: Judgement, *, name: str, agreed: Agreement | None) -> None:
    """Print the mean with its interval, the counts, the controls, and whether the scores are reliable."""
    console = terminal.console()
    console.print(_headline(judgement, name))
    console.print(_counts(judgement))
    if judgement.median is not None:
        deviation = "" if judgement.deviation is None else f", standard deviation {judgement.deviation:.1f}"
        console.print(f"median {judgement.median:.1f}{deviation}")
    _show_figures(console, judgement)
    _show_pairs(console, judgement)
    _show_controls(console, judgement)
    if agreed is not None:
        show_agreement(console, agreed)
    console.print(_verdict(judgement), style="bold red" if judgement.is_unreliable else "bold")


def show_agreement(console: Console, agreed: Agreement) -> None:
    """Print the judge's agreement with earlier scores."""
    console.print(
        f"compared with earlier scores of {agreed.n:,} of these answers: mean {agreed.mean:.1f} now, "
        f"{agreed.earlier_mean:.1f} then"
    )
    table = Table("correlation", "value", "95 % interval")
    for name in ("pearson", "spearman", "kendall"):
        found: Correlation = getattr(agreed, name)
        value = "none: all scores are equal" if found.value is None else f"{found.value:.3f}"
        table.add_row(name.capitalize(), value, _ends(found.low, found.high))
    console.print(table)


def show_comparison(result: PairedComparison, *, name_a: str, name_b: str) -> None:
    """Print both means, the difference with its interval, and the verdict."""
    console = terminal.console()
    table = Table("", "file", f"mean over {result.n:,} items")
    table.add_row("A", Text(name_a), f"{result.mean_a:.2f}")
    table.add_row("B", Text(name_b), f"{result.mean_b:.2f}")
    console.print(table)
    interval = f"95 % interval {result.low:+.2f} to {result.high:+.2f}"
    interval = interval if result.n > 1 else "one item has no interval"
    console.print(
        f"B - A: {result.difference:+.2f} ({interval}); B is higher on "
        f"{result.higher:,} items, equal on {result.equal:,}, lower on {result.lower:,} (sign test p = "
        f"{result.p_value:.3g})"
    )
    names = {"A": "A scores higher than B.", "B": "B scores higher than A."}
    verdict = names.get(result.verdict, "A and B do not differ significantly on these items.")
    console.print(verdict, style="bold")


def show_doubts(doubts: Sequence[str], *, of: str) -> None:
    """Print the reasons why scores are unreliable, if there are any."""
    if doubts:
        terminal.console().print(f"{of}{_unreliable(doubts)}", style="bold red")


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
            " (an empty answer gets the lowest score)" if judgement.protocol != "pairwise" else " (they lose)"
        )
    if judgement.unparsed or judgement.failed:
        line += (
            f"; with the lowest or highest score for the missing ones, the mean would be {judgement.least:.2f} or "
            f"{judgement.most:.2f}"
        )
    if judgement.failed:
        line += "; the same command retries the failed ones"
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
    console.print(
        "a pair scores 100 if won in both orders, 0 if lost in both; 50 is a tie, or a choice by order alone"
    )
    console.print(
        f"same verdict in both orders: {pairs.wins:,} won, {pairs.ties:,} tied, {pairs.losses:,} lost; {pairs.split:,} "
        "depend on the order"
    )
    if pairs.first_chosen is not None:
        console.print(
            f"position bias: the answer shown first was chosen {pairs.first_chosen:.0%} of the time (95 % interval "
            f"{pairs.first_low:.0%} to {pairs.first_high:.0%}; 50% is no bias)"
        )


def _show_controls(console: Console, judgement: Judgement) -> None:
    if not judgement.controls:
        console.print("no controls were judged, so it is unknown how reliable these scores are")
        return
    table = Table(
        f"control (on {max(c.n for c in judgement.controls)} items)", "expected", "mean", "unparsed", "failed"
    )
    for control in judgement.controls:
        mean = "none" if control.mean is None else f"{control.mean:.1f}"
        expected = "low" if control.is_null else "high"
        table.add_row(
            Text(control.name), expected, mean, str(control.unparsed or ""), str(control.failed or "")
        )
    console.print(table)


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    has_none = low is None or high is None
    return "one answer has no interval" if has_none else f"95 % interval {low:.2f} to {high:.2f}"


def _unreliable(doubts: Sequence[str]) -> str:
    more = f"; and {len(doubts) - 3} more" if len(doubts) > 3 else ""
    return f"UNRELIABLE: {'; '.join(doubts[:3])}{more}"


def _verdict(judgement: Judgement) -> str:
    if judgement.is_unreliable:
        return _unreliable(judgement.doubts)
    if judgement.mean is None:
        return "no score"
    checked = ", controls passed" if judgement.controls else ", controls left out"
    ends = "" if judgement.low is None else f" [{judgement.low:.2f}, {judgement.high:.2f}]"
    return f"score {judgement.mean:.2f}{ends}{checked}"
