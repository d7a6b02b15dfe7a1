"""Render what happened inside a model for one text: a self-contained page of `Inspection.as_json`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from markupsafe import Markup
from matplotlib.axes import Axes

from scratchlm.core.printable import printable
from scratchlm.reports.canvas import WIDE, Colours, Drawing, style_axes
from scratchlm.reports.formats import decimal, percent, visible
from scratchlm.reports.page_shell import render_page

Data: TypeAlias = Mapping[str, Any]

LONGEST_TOKEN = 24  # characters of a token that are shown
N_PARTS = 8  # largest contributions in words
# Key of a head's summary: its name on the page.
SUMMARIES = {
    "previous": "previous token",
    "first": "first token",
    "itself": "itself",
    "induction": "induction",
}
NORM_LINES = (("run1", "residual", "residual stream"), ("run2", "attention", "attention adds"),
              ("run3", "feed_forward", "feed-forward network adds"))  # fmt: skip


def render_inspection(data: Data, *, model: str, text: str) -> str:
    """Render the page of an inspection; `model` is the model's name, `text` the text that it read.

    Raises: KeyError when the data is not that of `Inspection.as_json`.
    """
    data = _visible(data)
    choices = [explained(choice, data) for choice in data["choices"]]
    heads = {name: [head[name] for layer in data["heads"] for head in layer] for name in SUMMARIES}
    heads = {name: values for name, values in heads.items() if values[0] is not None}
    shown = head_to_show(data["heads"])
    n_heads = len(data["heads"][0])
    return render_page(
        "inspection.html.jinja",
        styles=("page.css", "inspection.css"),
        scripts=("inspection.js",),
        page_data={
            "plots": {},
            "tokens": data["tokens"],
            "choices": choices,
            "lens": data["lens"],
            "heads": heads,
            "attention": [
                [[[round(1000 * weight) for weight in row] for row in head] for head in layer]
                for layer in data["attention"]
            ],
        },
        data=data,
        model=model,
        text=text,
        is_classifier=data["kind"] == "classification",
        lead=_lead(data),
        facts=_facts(data),
        choices=choices,
        part_columns=part_columns(data),
        heads=heads,
        summaries=SUMMARIES,
        n_heads=n_heads,
        shown=shown,
        shown_map=data["attention"][shown // n_heads][shown % n_heads],
        norm_lines=NORM_LINES,
        norms=norms_plot(data["norms"]),
    )


def _lead(data: Data) -> str:
    """The prediction in one sentence.

    Example:
        >>> _lead({"kind": "classification", "choices": [{"text": "spam", "prob": 0.98}]})
        'The model predicts spam (98.0%).'
    """
    best = data["choices"][0]
    if data["kind"] == "classification":
        return f"The model predicts {best['text']} ({percent(best['prob'])})."
    return f"The most likely next token is “{best['text']}” ({percent(best['prob'])})."


def _facts(data: Data) -> list[tuple[str, str]]:
    losses = [token["loss"] for token in data["tokens"] if token["loss"] is not None]
    found = [
        (f"{len(data['tokens'])}", "tokens"),
        (f"{len(data['heads'])}", "blocks"),
        (f"{len(data['heads'][0])}", "attention heads in each"),
    ]
    if losses:
        found.append((decimal(sum(losses) / len(losses)), "mean loss, nats per token"))
    return found


def part_columns(data: Data) -> list[str]:
    """The columns of the table of contributions: heads, attention's bias where there is one, feed-forward network."""
    columns = [str(head) for head in range(len(data["heads"][0]))]
    parts = [data["mean_parts"], *(choice["parts"] for choice in data["choices"])]
    if any(any(part["attention_bias"]) for part in parts):
        columns.append("bias")
    return [*columns, "FFN"]


def explained(choice: Data, data: Data) -> dict[str, Any]:
    """A choice with its contributions above the mean logit: a table, the rest of the sum, the largest in words."""
    parts, mean = choice["parts"], data["mean_parts"]
    columns = part_columns(data)
    rows = []
    for layer in range(len(data["heads"])):
        row = [a - b for a, b in zip(parts["heads"][layer], mean["heads"][layer])]
        if "bias" in columns:
            row.append(parts["attention_bias"][layer] - mean["attention_bias"][layer])
        rows.append([*row, parts["feed_forward"][layer] - mean["feed_forward"][layer]])
    rest = {name: parts[name] - mean[name] for name in ("embedding", "position", "constant")}
    named = [*_named(rows, columns), *rest.items()]
    largest = sorted(named, key=lambda part: abs(part[1]), reverse=True)[:N_PARTS]
    return {
        **{key: choice[key] for key in ("id", "text", "prob", "logit", "saliency")},
        "above_mean": choice["logit"] - data["mean_logit"],
        "rows": rows,
        "rest": rest,
        "largest": [[name, value] for name, value in largest if value],
        "scale": max((abs(value) for _, value in named), default=0) or 1.0,
        "saliency_scale": max((abs(value) for value in choice["saliency"]), default=0) or 1.0,
    }


def _named(rows: Sequence[Sequence[float]], columns: Sequence[str]) -> Iterator[tuple[str, float]]:
    for layer, row in enumerate(rows):
        for column, value in zip(columns, row):
            what = {"bias": "attention bias", "FFN": "feed-forward"}.get(column, f"head {column}")
            yield f"block {layer}, {what}", value


def head_to_show(heads: Sequence[Sequence[Data]]) -> int:
    """The number, row by row, of the head that most clearly does one thing: induction, else the previous token."""
    flat = [head for layer in heads for head in layer]
    name = "previous" if flat[0]["induction"] is None else "induction"
    return max(range(len(flat)), key=lambda number: flat[number][name])


def norms_plot(norms: Data) -> Markup:
    """Norms at the last token, block by block, on a logarithmic scale."""

    def draw(axes: Axes, colours: Colours, is_wide: bool) -> Mapping[str, float]:  # noqa: ARG001
        for role, key, _ in NORM_LINES:
            values = [row[-1] for row in norms[key]]
            first = 0 if key == "residual" else 1  # block 0 adds to the stream after the embedding
            axes.plot(
                range(first, first + len(values)), values, color=colours[role], linewidth=2,
                marker="o", markersize=4,
            )  # fmt: skip
        axes.set_yscale("log")
        style_axes(axes, colours, pad=5)
        axes.minorticks_off()
        n_layers = len(norms["attention"])
        stride = -(-(n_layers + 1) // 12)
        ticks = range(0, n_layers + 1, stride)
        axes.set_xticks(ticks, ["emb." if tick == 0 else str(tick - 1) for tick in ticks])
        return {}

    drawing = Drawing(name="norms", draw=draw, margins=(56, 16, 14, 32))
    return drawing.on_page(WIDE) + drawing.on_page()


def _visible(value: Any) -> Any:
    """The data with white space and control characters of all texts made visible."""
    if isinstance(value, Mapping):
        return {
            key: visible(printable(item), LONGEST_TOKEN) if key == "text" else _visible(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (Mapping, list)):
        return [_visible(item) for item in value]
    return value
