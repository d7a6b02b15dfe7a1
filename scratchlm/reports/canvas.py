"""The canvas of every plot: the same drawing for the page, whose colours follow it, and for files, in fixed colours."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scratchlm.core.files import new_file
from scratchlm.reports.svg import ROLES, page_svg

WIDE, NARROW = (760, 330), (350, 270)  # CSS pixels: a desktop column, and half a column or a phone
TITLE, KEY = 34, 24  # CSS pixels above a plot in a file, for what the page writes as text
FILE_DPI = 200  # of a PNG; one CSS pixel is a 72nd of an inch

# What each role looks like on white paper: the light colours of the page.
PRINTED = {
    "ink": "#1d2422", "muted": "#5a6461", "grid": "#e3ddd0", "train": "#c2611f", "val": "#0b6e66",
    "run1": "#0b6e66", "run2": "#c2611f", "run3": "#3f5bb5", "run4": "#a8327a", "run5": "#7a6a00", "run6": "#55606a",
}  # fmt: skip

Colours: TypeAlias = Mapping[str, str]  # a role's colour
# Draws onto the axes; gives back what the page's script must know, such as the first and the last step.
Draw: TypeAlias = Callable[
    [Axes, Colours, bool], Mapping[str, float]
]  # the last argument: is there much room?


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A plot that is not drawn yet: what it shows, and the room around it."""

    name: str  # keeps its ids apart from those of other plots; the name of its file
    draw: Draw
    margins: tuple[int, int, int, int]  # left, right, top, bottom, CSS pixels
    size: tuple[int, int] = WIDE  # in a file, CSS pixels
    title: str = ""  # in a file; on the page stands a heading
    keys: Sequence[tuple[str, str, Any]] = ()  # in a file: role, words and dashes of each line

    def on_page(self, size: tuple[int, int]) -> Markup:
        """The drawing as SVG for the page; text stays text, and the same data gives the same bytes."""
        width, height = size
        left, right, top, bottom = self.margins
        name = f"{self.name}-{width}"
        with _figure(name, size, self.margins) as (figure, axes):
            told = self.draw(axes, ROLES, size == WIDE)
            file = io.StringIO()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        frame = {"left": left, "right": width - right, "top": top, "bottom": height - bottom, **told}
        attributes = "".join(f' data-{key}="{value:g}"' for key, value in frame.items()) if told else ""
        css_class = "plot-wide" if size == WIDE else "plot-narrow"
        drawn = page_svg(file.getvalue(), name=name, css_class=css_class, attributes=attributes)
        return Markup(drawn)  # noqa: S704

    def narrow(self) -> Markup:
        """The drawing as wide as half a column, or a phone."""
        return self.on_page(NARROW)

    def save(self, path: Path) -> None:
        """The drawing as a file of its own, PNG or SVG by the path's ending, with title and key.

        Raises: DataError when the file cannot be written.
        """
        width, height = self.size
        left, right, top, bottom = self.margins
        heading = TITLE + (KEY if self.keys else 0)
        margins = (left + 12, right + 12, top + heading, bottom + 12)
        whole = (width + 24, height + heading + 12)
        with _figure(self.name, whole, margins) as (figure, axes):
            self.draw(axes, PRINTED, self.size == WIDE)
            figure.text(
                0.02, 1 - 8 / whole[1], self.title, va="top", fontsize=14, color=PRINTED["ink"], weight="bold"
            )
            lines = [
                Line2D([], [], color=PRINTED[role], linestyle=dashes, linewidth=2)
                for role, _, dashes in self.keys
            ]
            if lines:
                figure.legend(
                    lines, [words for _, words, _ in self.keys],
                    loc="upper left", bbox_to_anchor=(0.01, 1 - TITLE / whole[1]),
                    ncols=min(4, len(lines)), frameon=False, fontsize=11, labelcolor=PRINTED["ink"],
                )  # fmt: skip
            kind = path.suffix.removeprefix(".")
            metadata = {"Date": None} if kind == "svg" else {}
            with new_file(path) as partial:
                figure.savefig(partial, format=kind, facecolor="white", dpi=FILE_DPI, metadata=metadata)


@contextmanager
def _figure(
    name: str, size: tuple[int, int], margins: tuple[int, int, int, int]
) -> Iterator[tuple[Figure, Axes]]:
    """A figure of that size in CSS pixels, with axes, which no user's settings can change."""
    (width, height), (left, right, top, bottom) = size, margins
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the page
        # Text stays text, and ids come from the name instead of from chance: same data, same bytes.
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 12})
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # 72 dpi: one unit is one CSS pixel
        box = (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
        yield figure, figure.add_axes(box)


def quiet(
    axes: Axes, colours: Colours, *, grid: Literal["x", "y", "both"] = "y", label_size: int = 12, pad: int = 7
) -> None:
    """Axes that stay behind the data: pale lines, no frame, small labels."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(visible=True, axis=grid, color=colours["grid"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=label_size, labelcolor=colours["muted"], pad=pad)
