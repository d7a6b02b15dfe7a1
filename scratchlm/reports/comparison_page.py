"""Render a comparison of several runs as a self-contained HTML page, and compute its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scratchlm.core.errors import ConfigError
from scratchlm.recipes.recipe import flat_settings
from scratchlm.reports.canvas import Drawing
from scratchlm.reports.figures import Bar, Claim, Data, claims, ends_of
from scratchlm.reports.formats import count, decimal, is_number
from scratchlm.reports.learning_curves import Plot, even_choice, look_of, overlay_plot
from scratchlm.reports.page_shell import render_page
from scratchlm.reports.paired_items import Paired, browser_data
from scratchlm.reports.plots import score_plot, tallest_bar
from scratchlm.reports.run_page import MAX_SAMPLE_STEPS, Shown, prompt_and_text

MAX_RUNS = 12  # more lines in a plot cannot be distinguished

CURVES = (  # name of the plot, stage, key of its history, key while training, heading, is it a share?
    ("pretrain", "pretrain", "val_loss", "train_loss", "Pre-training: validation loss", False),
    ("classify_loss", "classify", "val_loss", "train_loss", "Classifier: validation loss", False),
    ("classify_accuracy", "classify", "val_accuracy", None, "Classifier: validation accuracy", True),
    ("instruct", "instruct", "val_loss", "train_loss", "Instruction tuning: validation loss", False),
    ("prefer", "prefer", "val_loss", "train_loss", "Preference tuning: validation loss", False),
)
SHARES = (  # stage, key, heading, explanation
    ("classify", "test_accuracy", "Classifier accuracy", "Share of held-out texts classified correctly."),
    ("instruct", "exact_match", "Exact match", "Share of answers that equal the reference exactly."),
    ("prefer", "test_accuracy", "Preference accuracy", "Share of pairs whose chosen answer gains more."),
)


def render_comparison(data: Mapping[str, Any], paired: Paired | None = None) -> str:
    """Render a comparison: overlaid curves, metrics with intervals, samples, answers, settings that differ.

    `data["runs"]` has for each run its `label` and the data of `render_report`; `paired` has the answers item by item.
    Raises: ConfigError for no run or more than MAX_RUNS; DataError for an inconsistent figure.
    """
    runs: Sequence[Mapping[str, Any]] = data["runs"]
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ConfigError(f"a comparison shows 1 to {MAX_RUNS} runs, got {len(runs)}; name fewer.")
    plots = comparison_plots(runs)
    paired = paired if paired is not None and paired.items else None
    return render_page(
        "comparison.html.jinja",
        scripts=() if paired is None else ("items.js",),
        page_data={
            "plots": {name: plot.points for name, plot in plots.items()},
            **({} if paired is None else {"items": browser_data(paired)}),
        },
        data=data,
        runs=runs,
        looks=[look_of(number) for number in range(len(runs))],
        figures=figure_rows(runs),
        bars=[
            (heading, words, rows)
            for stage, key, heading, words in SHARES
            if (rows := share_bars(runs, stage, key))
        ],
        curves=[
            (plots[name], heading, _drawn(runs, stage))
            for name, stage, _, _, heading, _ in CURVES
            if name in plots
        ],
        judged=[(run, drawing) for run, drawing in zip(runs, score_drawings(runs)) if drawing is not None],
        samples=samples_beside(runs),
        skills=skill_rows(runs),
        settings=setting_rows(runs),
        paired=paired,
        differences=[] if paired is None else paired.differences,
        vocabularies={(run.get("pretrain") or {}).get("vocab_size") for run in runs} - {None},
    )


def _drawn(runs: Sequence[Mapping[str, Any]], stage: str) -> list[tuple[str, tuple[str, Any]]]:
    """The legend of a plot: the runs with a history of that stage, each with its line style."""
    return [
        (str(run.get("label")), look_of(number))
        for number, run in enumerate(runs)
        if (run.get(stage) or {}).get("history")
    ]


def comparison_plots(runs: Sequence[Mapping[str, Any]]) -> dict[str, Plot]:
    """The overlaid curves by name."""
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
    """Each run's histogram of a judge's scores; None for a run without a judge."""
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


STAGES = {"pretrain", "classify", "instruct", "prefer"}
DATA_OF = {"data.messages": "classify", "data.instructions": "instruct", "data.preferences": "prefer"}
NOT_SETTINGS = {"description", "needs"}  # keys of a recipe that do not affect results


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One metric of each run; None where a run does not have it."""

    name: str
    note: str
    cells: list[Claim | None]


@dataclass(frozen=True, kw_only=True)
class SettingRow:
    """One setting of each run; None where a run does not have it."""

    name: str
    values: list[Any]
    differs: bool


def figure_rows(runs: Sequence[Data]) -> list[FigureRow]:
    """All main metrics that at least one run has, in the order of the stages."""
    found: dict[str, tuple[str, list[Claim | None]]] = {}
    for number, run in enumerate(runs):
        for claim in [*claims(run), *_judge_claims(run)]:
            _, cells = found.setdefault(claim.name, (claim.note, [None] * len(runs)))
            cells[number] = claim
    return [FigureRow(name=name, note=note, cells=cells) for name, (note, cells) in found.items()]


def share_bars(runs: Sequence[Data], stage: str, key: str) -> list[Bar]:
    """A bar with interval for each run that has this metric, in the run's colour."""
    bars = []
    for number, run in enumerate(runs):
        part = run.get(stage) or {}
        if is_number(part.get(key)):
            low, high = ends_of(part)
            note = f"of {count(part['test_n'])}" if is_number(part.get("test_n")) else ""
            label, role = str(run.get("label")), look_of(number)[0]
            bars.append(Bar(label=label, value=part[key], low=low, high=high, note=note, role=role))
    return bars


def setting_rows(runs: Sequence[Data]) -> list[SettingRow]:
    """All settings; for the settings of a stage, runs without that stage do not count as different."""
    tables = [dict(flat_settings(_own_settings(run))) for run in runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    rows = []
    for name in names:
        values = [table.get(name) for table in tables]
        stage = _stage_of(name)
        used = [
            value
            for value, run in zip(values, runs)
            if run.get("settings") and (stage is None or stage in (run.get("stages_planned") or ()))
        ]
        rows.append(SettingRow(name=name, values=values, differs=any(value != used[0] for value in used[1:])))
    return rows


def samples_beside(runs: Sequence[Data]) -> Shown:
    """Each run's latest samples at each step; for many steps an evenly spaced selection."""
    written: list[list[dict[str, Any]]] = []
    for number, run in enumerate(runs):
        samples = (run.get("pretrain") or {}).get("samples") or []
        texts = [
            {"run": number, "step": sample["step"], **prompt_and_text(sample)}
            for sample in samples
            if is_number(sample.get("step"))
        ]
        written.append(sorted(texts, key=lambda text: text["step"]))
    steps = sorted({text["step"] for texts in written for text in texts})
    kept = even_choice(steps, MAX_SAMPLE_STEPS)
    groups = []
    for step in kept:
        until = [[text for text in texts if text["step"] <= step] for texts in written]
        groups.append({"step": step, "texts": [texts[-1] for texts in until if texts]})
    return Shown(items=groups, n_left_out=len(steps) - len(kept))


def skill_rows(runs: Sequence[Data]) -> list[tuple[str, list[Mapping[str, Any] | None]]]:
    """Exact match of each run by skill."""
    found: dict[str, list[Mapping[str, Any] | None]] = {}
    for number, run in enumerate(runs):
        for row in (run.get("instruct") or {}).get("by_skill") or []:
            found.setdefault(str(row.get("skill")), [None] * len(runs))[number] = row
    return list(found.items())


def _stage_of(name: str) -> str | None:
    """The stage of a setting; None for settings of all stages."""
    section = name.partition(".")[0]
    if section in STAGES:
        return section
    if section in ("model", "tokenizer", "sample_prompt", "data"):
        return DATA_OF.get(name, "pretrain")
    return None


def _own_settings(run: Data) -> dict[str, Any]:
    """The settings that the run's stages used, without other stages' sections and empty lists of data."""
    stages = run.get("stages_planned") or ()
    others = STAGES - set(stages)
    if "pretrain" not in stages:
        others |= {"model", "tokenizer", "sample_prompt"}
    settings, others = run.get("settings") or {}, others | NOT_SETTINGS
    own = {name: value for name, value in settings.items() if name not in others}
    if isinstance(own.get("data"), Mapping):
        own["data"] = {name: value for name, value in own["data"].items() if value not in ([], ())}
    return own


def _judge_claims(run: Data) -> list[Claim]:
    judged = run.get("judged") or {}
    if not is_number(judged.get("mean")):
        return []
    low, high = judged.get("low"), judged.get("high")
    ends = f"{decimal(low, 1)}–{decimal(high, 1)}" if is_number(low) and is_number(high) else ""
    counted = sum(judged[key] for key in ("scored", "empty") if is_number(judged.get(key)))
    aside = {"empty": "empty", "unparsed": "more unparsed", "failed": "more failed"}
    parts = [f"{count(judged[key])} {words}" for key, words in aside.items() if judged.get(key)]
    note = f"By {judged.get('judge') or 'a judge'}, on a scale to {judged.get('max', 100):g}."
    over = f"{count(counted)} answers{' (' + ', '.join(parts) + ')' if parts else ''}"
    name = f"Score by {judged.get('judge') or 'a judge'}"
    return [Claim(name=name, value=decimal(judged["mean"], 1), over=over, interval=ends, note=note)]
