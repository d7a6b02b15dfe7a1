"""Draw an inspection as one picture: the attention maps of all heads, and the logit lens."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from scratchlm.core.files import new_file
from scratchlm.core.printable import printable
from scratchlm.reports.canvas import FILE_DPI, PRINTED
from scratchlm.reports.formats import percent, visible

Data: TypeAlias = Mapping[str, Any]

N_COLUMNS = 10  # of the logit lens; the last tokens of the text
SHADES = LinearSegmentedColormap.from_list("teal", ["#f4f1ea", PRINTED["val"]])
ROW_INCHES, MARGIN_INCHES = 0.27, 1.6


def save_inspection_figure(data: Data, path: Path, *, text: str) -> None:
    """Save the picture as PNG; `data` is that of `Inspection.as_json`, `text` the text that the model read.

    Raises: DataError when the file cannot be written.
    """
    best = data["choices"][0]
    n_rows = len(data["lens"])
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's matplotlibrc
        figure = Figure(figsize=(13, max(4.5, ROW_INCHES * n_rows + MARGIN_INCHES)), layout="constrained")
        figure.suptitle(
            f"{_shown(text, 90)}  →  {_shown(best['text'], 24)} ({percent(best['prob'])})",
            fontsize=14, weight="bold", color=PRINTED["ink"], parse_math=False,
        )  # fmt: skip
        maps, lens = figure.subplots(1, 2, width_ratios=(5, 7))
        _draw_maps(maps, data)
        _draw_lens(lens, data)
        with new_file(path) as partial, warnings.catch_warnings():
            # A missing glyph is drawn as a box; the page shows every script.
            warnings.filterwarnings("ignore", "Glyph .* missing")
            figure.savefig(partial, format="png", facecolor="white", dpi=FILE_DPI)


def _draw_maps(axes: Axes, data: Data) -> None:
    """Every head's map as a small square: blocks downwards, heads to the right."""
    attention, n_tokens = data["attention"], len(data["tokens"])
    size = n_tokens + max(1, n_tokens // 12)  # with the gap to the next
    mosaic = np.full((len(attention) * size, len(attention[0]) * size), np.nan)
    for layer, heads in enumerate(attention):
        for head, rows in enumerate(heads):
            square = np.zeros((n_tokens, n_tokens))
            for i, row in enumerate(rows):
                square[i, : len(row)] = row
            mosaic[layer * size : layer * size + n_tokens, head * size : head * size + n_tokens] = square**0.5
    axes.imshow(mosaic, cmap=SHADES, vmin=0, vmax=1, interpolation="nearest")
    axes.set_anchor("E")  # beside the lens
    _label(axes, "Attention of each head", "head", "block")
    for set_ticks, n in ((axes.set_xticks, len(attention[0])), (axes.set_yticks, len(attention))):
        set_ticks([(i + 0.5) * size for i in range(n)], [str(i) for i in range(n)])


def _draw_lens(axes: Axes, data: Data) -> None:
    """The most likely prediction after each block, shaded by its probability."""
    rows = [row[-N_COLUMNS:] for row in data["lens"]]
    probs = [[cell["top"][0]["prob"] for cell in row] for row in rows]
    axes.imshow(probs, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            best = cell["top"][0]
            words = _shown(best["text"], 10)
            words += f" {percent(best['prob'])}" if len(row) == 1 else ""
            axes.text(
                x, y, words, ha="center", va="center", fontsize=8, parse_math=False,
                color="white" if best["prob"] > 0.6 else PRINTED["ink"],
                weight="bold" if cell["rank"] == 0 else "normal",
            )  # fmt: skip
    is_classifier = data["kind"] == "classification"
    x_name = "class" if is_classifier else "token"
    _label(axes, "Logit lens: the prediction after each block", x_name, "after")
    names = [""] if is_classifier else [_shown(token["text"], 10) for token in data["tokens"][-N_COLUMNS:]]
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.set_yticks(range(len(rows)), ["emb.", *map(str, range(len(rows) - 1))])


def _label(axes: Axes, title: str, x_name: str, y_name: str) -> None:
    axes.set_title(title, fontsize=11, color=PRINTED["ink"])
    axes.set_xlabel(x_name, fontsize=9, color=PRINTED["muted"])
    axes.set_ylabel(y_name, fontsize=9, color=PRINTED["muted"])
    axes.tick_params(length=0, labelsize=8, labelcolor=PRINTED["muted"])
    for side in axes.spines.values():
        side.set_visible(False)


def _shown(text: str, longest: int) -> str:
    return visible(printable(text), longest) if longest < 40 else printable(text).replace("\n", "⏎")[:longest]
