"""The page of several runs beside each other: their data in, one self-contained HTML document out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scratchlm.core.errors import ConfigError
from scratchlm.reports import comparison_rows
from scratchlm.reports.canvas import Drawing
from scratchlm.reports.curves import Plot
from scratchlm.reports.overlay_plots import look_of, overlay_plot
from scratchlm.reports.page_shell import render_page
from scratchlm.reports.paired_items import Paired, browser_data
from scratchlm.reports.score_plots import score_plot, tallest_bar

MAX_RUNS = 12  # more lines in a plot than anybody can tell apart

CURVES = (  # name of the plot, stage, key of its history, key while training, heading, is it a share?
    ("pretrain", "pretrain", "val_loss", "train_loss", "Pre-training: validation loss", False),
    ("classify_loss", "classify", "val_loss", "train_loss", "Classifier: validation loss", False),
    ("classify_accuracy", "classify", "val_accuracy", None, "Classifier: validation accuracy", True),
    ("instruct", "instruct", "val_loss", "train_loss", "Instruction tuning: validation loss", False),
    ("prefer", "prefer", "val_loss", "train_loss", "Preference tuning: validation loss", False),
)
SHARES = (  # stage, key, heading, what it says
    ("classify", "test_accuracy", "Classifier accuracy", "Share of held-out texts sorted correctly."),
    ("instruct", "exact_match", "Exact match", "Share of answers that equal the reference exactly."),
    (
        "prefer",
        "test_accuracy",
        "Preference accuracy",
        "Share of pairs in which the chosen answer gains more.",
    ),
)


def render_comparison(data: Mapping[str, Any], paired: Paired | None = None) -> str:
    """Show runs beside each other: curves overlaid, figures with intervals, samples, answers, settings that differ.

    `data["runs"]` holds for each run its `label` and what `render_report` takes; `paired` the answers item by item.
    Raises: ConfigError for no run or more than MAX_RUNS; DataError for a figure that contradicts itself.
    """
    runs: Sequence[Mapping[str, Any]] = data["runs"]
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ConfigError(f"a comparison shows 1 to {MAX_RUNS} runs, found {len(runs)}; name fewer.")
    plots = comparison_plots(runs)
    has_items = paired is not None and bool(paired.items)
    return render_page(
        "comparison.html.jinja",
        scripts=("page.js", "items.js") if has_items else ("page.js",),
        page_data={
            "plots": {name: plot.points for name, plot in plots.items()},
            **({"items": browser_data(paired)} if paired is not None and has_items else {}),
        },
        data=data,
        runs=runs,
        looks=[look_of(number) for number in range(len(runs))],
        figures=comparison_rows.figure_rows(runs),
        bars=[
            (heading, words, rows)
            for stage, key, heading, words in SHARES
            if (rows := comparison_rows.share_bars(runs, stage, key, lambda number: look_of(number)[0]))
        ],
        curves=[
            (plots[name], heading, _drawn(runs, stage))
            for name, stage, _, _, heading, _ in CURVES
            if name in plots
        ],
        judged=[(run, drawing) for run, drawing in zip(runs, score_drawings(runs)) if drawing is not None],
        samples=comparison_rows.samples_beside(runs),
        skills=comparison_rows.skill_rows(runs),
        settings=comparison_rows.setting_rows(runs),
        paired=paired if has_items else None,
        differences=paired.differences if paired is not None and has_items else [],
        vocabularies={(run.get("pretrain") or {}).get("vocab_size") for run in runs if run.get("pretrain")}
        - {None},
    )


def _drawn(runs: Sequence[Mapping[str, Any]], stage: str) -> list[tuple[str, tuple[str, Any]]]:
    """The runs that have a history of that stage, each with its look: the key of a plot."""
    return [
        (str(run.get("label")), look_of(number))
        for number, run in enumerate(runs)
        if (run.get(stage) or {}).get("history")
    ]


def comparison_plots(runs: Sequence[Mapping[str, Any]]) -> dict[str, Plot]:
    """The overlaid curves that there are, by name."""
    plots = {}
    for name, stage, key, training_key, title, is_share in CURVES:
        histories = [(str(run.get("label")), (run.get(stage) or {}).get("history") or []) for run in runs]
        plot = overlay_plot(
            histories, key, name=name, title=title, training_key=training_key, is_share=is_share
        )
        if plot is not None:
            plots[name] = plot
    return plots


def score_drawings(runs: Sequence[Mapping[str, Any]]) -> list[Drawing | None]:
    """Each run's spread of a judge's scores; None where no judge has scored it."""
    judgements = [run.get("judged") or {} for run in runs]
    scales = [(float(judged.get("min", 0)), float(judged.get("max", 100))) for judged in judgements]
    bars = [tallest_bar(judged.get("scores") or [], scale) for judged, scale in zip(judgements, scales)]
    drawings = []
    for number, (run, judged) in enumerate(zip(runs, judgements)):
        low, high = judged.get("low"), judged.get("high")
        drawings.append(
            score_plot(
                judged.get("scores") or [],
                name=f"scores-{number + 1}",
                role=look_of(number)[0],
                title=f"{run.get('label')}: scores by {judged.get('judge')}",
                scale=scales[number],
                tallest=max(bar for bar, scale in zip(bars, scales) if scale == scales[number]),
                interval=None if low is None or high is None else (low, high),
            )
        )
    return drawings


def comparison_drawings(runs: Sequence[Mapping[str, Any]]) -> list[Drawing]:
    """The plots of the page, to be saved as files."""
    curves = [plot.drawing for plot in comparison_plots(runs).values()]
    return [*curves, *(drawing for drawing in score_drawings(runs) if drawing is not None)]
