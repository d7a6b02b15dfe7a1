"""Draw plots with matplotlib: as SVG for a page, in the page's colours, or as PNG and SVG files in fixed colours.

matplotlib writes `style` attributes, a `<style>` element, and ids that repeat in every figure. The page's
Content-Security-Policy blocks the first two, and dark mode needs other colours. So a plot for a page is drawn in
placeholder colours, one per role, which are replaced with classes: `f-NAME` for fills, `s-NAME` for strokes.
"""

import io
import re
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
from matplotlib.ticker import MaxNLocator

from scratchlm.core.files import new_file

WIDE, NARROW = (760, 330), (350, 270)  # CSS pixels: a desktop column, and half a column or a phone
TITLE, KEY = 34, 24  # CSS pixels above a plot in a file, for title and legend
FILE_DPI = 200  # of a PNG; one CSS pixel is a 72nd of an inch

# The colour of each role in files: the light colours of the page.
PRINTED = {
    "ink": "#1d2422", "muted": "#5a6461", "grid": "#e3ddd0", "train": "#c2611f", "val": "#0b6e66",
    "run1": "#0b6e66", "run2": "#c2611f", "run3": "#3f5bb5", "run4": "#a8327a", "run5": "#7a6a00", "run6": "#55606a",
}  # fmt: skip

Colours: TypeAlias = Mapping[str, str]  # a role's colour
# Draws on the axes; the last argument is whether the plot is wide. Returns values for the page's script.
Draw: TypeAlias = Callable[[Axes, Colours, bool], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A plot that can be drawn for a page or into a file."""

    name: str  # prefix of its ids on the page, and name of its file
    draw: Draw
    margins: tuple[int, int, int, int]  # left, right, top, bottom, CSS pixels
    size: tuple[int, int] = WIDE  # in a file, CSS pixels
    title: str = ""  # in a file; the page has a heading
    keys: Sequence[tuple[str, str, Any]] = ()  # legend in a file: role, label and dashes of each line

    def on_page(self, size: tuple[int, int] = NARROW) -> Markup:
        """Draw as SVG for the page, for half a column or a phone unless `size` is WIDE.

        Text remains text, and the same data gives the same bytes.
        """
        width, height = size
        left, right, top, bottom = self.margins
        name = f"{self.name}-{width}"
        with _figure(name, size, self.margins) as (figure, axes):
            data = self.draw(axes, ROLES, size == WIDE)
            file = io.StringIO()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        frame = {"left": left, "right": width - right, "top": top, "bottom": height - bottom, **data}
        attributes = "".join(f' data-{key}="{value:g}"' for key, value in frame.items()) if data else ""
        css_class = "plot-wide" if size == WIDE else "plot-narrow"
        drawn = page_svg(file.getvalue(), name=name, css_class=css_class, attributes=attributes)
        return Markup(drawn)  # noqa: S704

    def save(self, path: Path) -> None:
        """Save the drawing as PNG or SVG, by the path's suffix, with title and legend.

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
    """Create a figure of this size in CSS pixels, with axes; the user's matplotlib settings are ignored."""
    (width, height), (left, right, top, bottom) = size, margins
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's matplotlibrc
        # Text remains text, and ids depend on the name, so that the same data gives the same bytes.
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 12})
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # 72 dpi: one unit is one CSS pixel
        inner = ((width - left - right) / width, (height - bottom - top) / height)
        yield figure, figure.add_axes((left / width, bottom / height, *inner))


def ticks_within(
    low: float,
    high: float,
    *,
    n_max: int,
    steps: Sequence[float] | None = (1, 2, 5, 10),
    integer: bool = True,
) -> list[float]:
    """Round tick values from low to high."""
    locator = MaxNLocator(nbins=n_max, integer=integer, **({} if steps is None else {"steps": list(steps)}))
    return [tick for tick in locator.tick_values(low, high) if low <= tick <= high]


def style_axes(
    axes: Axes, colours: Colours, *, grid: Literal["x", "y", "both"] = "y", label_size: int = 12, pad: int = 7
) -> None:
    """Style the axes: pale grid lines, no frame, small labels."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(visible=True, axis=grid, color=colours["grid"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=label_size, labelcolor=colours["muted"], pad=pad)


# Placeholders: the page's CSS gives each role its colour in light and in dark mode.
ROLES = {name: f"#{number:06x}" for number, name in enumerate(PRINTED, start=1)}
_NAME_OF = {colour: name for name, colour in ROLES.items()}
_UNSEEN = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL
)
_STYLE = re.compile(r' style="([^"]*)"')
_FONT_SIZE = re.compile(r"([\d.]+)px")
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r"(url\(#|href=\"#)([\w.-]+)")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def page_svg(drawn: str, *, name: str, css_class: str, attributes: str = "") -> str:
    """Turn matplotlib's SVG file into one `<svg>` element for the page.

    `name` makes this figure's ids unique; `attributes` go into the opening tag.
    """
    body = _UNSEEN.sub("", drawn)
    view_box = re.search(r'viewBox="([^"]+)"', body)
    assert view_box is not None, "matplotlib writes a viewBox"
    body = body[body.index(">", body.index("<svg")) + 1 : body.rindex("</svg>")]
    body = _STYLE.sub(_as_attributes, body).replace("xlink:href", "href")
    body = _own_ids(body, name)
    body = _NUMBER.sub(lambda match: f"{float(match[0]):.2f}", body)  # a hundredth of a pixel is enough
    body = re.sub(r"\s*\n\s*", " ", body).strip()
    return (
        f'<svg class="{css_class}" viewBox="{view_box[1]}" aria-hidden="true" focusable="false"'
        f"{attributes}>{body}</svg>"
    )


def _as_attributes(match: re.Match[str]) -> str:
    """`style="fill: #000004; stroke-width: 2"` -> `class="f-train" stroke-width="2"`."""
    classes: list[str] = []
    attributes: list[str] = []
    for declaration in match[1].split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in ("fill", "stroke") and value in _NAME_OF:
            classes.append(f"{key[0]}-{_NAME_OF[value]}")
        elif key in ("font", "font-size"):
            size = _FONT_SIZE.search(value)
            attributes.append(f'font-size="{size[1]}"' if size else "")
        elif key and not key.startswith("font"):  # the page sets the family
            attributes.append(f'{key}="{value}"')
    if classes:
        attributes.insert(0, f'class="{" ".join(classes)}"')
    return "".join(f" {attribute}" for attribute in attributes if attribute)


def _own_ids(body: str, name: str) -> str:
    """Remove unused ids, and prefix the others with the figure's name."""
    used = {reference[1] for reference in _REFERENCE.findall(body)}
    body = _ID.sub(lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", body)
    return _REFERENCE.sub(lambda match: f"{match[1]}{name}-{match[2]}", body)
