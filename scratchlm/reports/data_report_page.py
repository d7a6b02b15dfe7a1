"""Write the data report: the figures of `inspect_data` as one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from scratchlm.reports.page_shell import render_page
from scratchlm.reports.plots import histogram_plot

Figures = Mapping[str, Any]

KIND_WORDS = {
    "text": "plain text for pre-training",
    "classification": "labelled texts for a classifier",
    "instruction": "instructions with answers for instruction tuning",
    "preference": "pairs of answers, chosen and rejected, for preference tuning",
    "shards": "text as token ids",
}
MAX_CLASSES = 40  # bars on one page


def render_data_report(figures: Figures) -> str:
    """Render the data report of a data set.

    Raises: KeyError when the statistics are not those of `inspect_data`.
    """
    cut = figures.get("truncation")
    context_length = cut["context_length"] if cut else None
    lengths = figures.get("lengths")
    return render_page(
        "data_report.html.jinja",
        page_data={"plots": {}},
        figures=figures,
        title=" and ".join(PurePath(split["path"]).name for split in figures["splits"]),
        lead=lead(figures),
        facts=facts(figures),
        plot=histogram_plot(lengths["histogram"], name="lengths", context_length=context_length)
        if lengths
        else None,
        part_plots={
            name: histogram_plot(part["histogram"], name=f"lengths-{name}")
            for name, part in (figures.get("part_lengths") or {}).items()
            if part and part["max"]
        },
        max_classes=MAX_CLASSES,
    )


def lead(figures: Figures) -> str:
    """Describe the data set in one sentence.

    Example:
        >>> lead({"kind": "text", "rows": 83, "unit": "paragraphs", "splits": [{}]})
        '83 paragraphs of plain text for pre-training.'
    """
    rows = figures["rows"]
    unit = figures["unit"] if rows != 1 else figures["unit"].removesuffix("s")
    n_splits = len(figures["splits"])
    within = f", in {n_splits} splits" if n_splits > 1 else ""
    return f"{rows:,} {unit} of {KIND_WORDS[figures['kind']]}{within}."


def facts(figures: Figures) -> list[tuple[str, str]]:
    """The main statistics, each with its unit."""
    found = [(f"{figures['rows']:,}", figures["unit"])]
    if "distinct_texts" in figures:
        found.append((f"{figures['distinct_texts']:,}", "distinct texts"))
    streams = [split.get("stream") for split in figures["splits"]]
    tokens = [stream["tokens"] for stream in streams if stream and stream["tokens"] is not None]
    lengths = figures.get("lengths")
    if tokens and len(tokens) == len(streams):
        found.append((f"{sum(tokens):,}", "tokens as pre-training reads them"))
    elif lengths:
        found.append((f"{lengths['total']:,}", f"{figures['length_unit']} in all"))
    if figures.get("windows") is not None:
        found.append(
            (f"{figures['windows']:,}", f"windows of {figures['truncation']['context_length']:,} tokens")
        )
    if figures.get("classes"):
        found.append((f"{len(figures['classes']):,}", "classes"))
    loss = figures.get("loss")
    if loss and loss["tokens"]:
        found.append((f"{loss['tokens_with_loss'] / loss['tokens']:.1%}", "of tokens carry loss"))
    return found
