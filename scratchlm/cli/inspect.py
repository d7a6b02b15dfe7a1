"""`scratchlm inspect`: what happens inside a model while it reads a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.cli.streams import read_piped_prompt
from scratchlm.cli.terminal import print_columns
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import write_text
from scratchlm.inspection.inspect_prompt import MAX_TOKENS, inspect_prompt
from scratchlm.reports.formats import decimal, percent, signed, visible
from scratchlm.reports.inspection_figure import save_inspection_figure
from scratchlm.reports.inspection_page import SUMMARIES, explained, render_inspection
from scratchlm.serving.language_model import load

N_HEADS = 3  # shown for each summary
N_LENS_ROWS = 12  # shown at most; the page shows all


@dataclass(frozen=True, kw_only=True)
class Inspect(Common):
    """Show how a model arrives at its prediction: attention heads, logit lens, contributions to the logit, losses.

    For a language model the prediction is the next token, for a classifier the class.

    Example: scratchlm inspect --model runs/quickstart --prompt "Once upon a time" --html inspection.html
    """

    model: Path | None = None  # a model folder or run folder
    prompt: str | None = None  # text to read; "-" reads it from standard input
    target: tuple[str, ...] = ()  # also explain these next tokens or classes, besides the most likely
    choices: int = 3  # number of most likely next tokens or classes to explain
    top: int = 5  # number of alternatives and similar tokens in each list
    max_tokens: int = MAX_TOKENS  # maximum length of the text in tokens; the output grows with its square
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None  # write everything as a page
    png: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None  # write attention and lens as a picture

    def __post_init__(self) -> None:
        check_at_least(1, choices=self.choices, top=self.top, max_tokens=self.max_tokens)


@command_line(Inspect)
def main(command: Inspect, console: Console) -> dict[str, Any]:
    """Inspect, print a summary, and write page and picture; returns the `--json` keys."""
    model, prompt = required(command, "inspect needs a model and a prompt", "model", "prompt")
    for flag, path in (("--html", command.html), ("--png", command.png)):
        if path is not None and path.is_dir():
            raise ConfigError(f"{flag} must name a file to write, got a folder: {path}; choose another name.")
    lm = load(model, device=command.device)
    text = read_piped_prompt() if prompt == "-" else prompt
    data = inspect_prompt(
        lm.model,
        lm.tokenizer,
        text,
        task=lm.task,
        targets=command.target,
        n_choices=command.choices,
        n_top=command.top,
        max_tokens=command.max_tokens,
    ).as_json()
    _print(data)
    written = {"html": command.html, "png": command.png}
    if command.html is not None:
        write_text(command.html, render_inspection(data, model=str(model), text=text))
        console.print(f"page: {command.html}")
    if command.png is not None:
        save_inspection_figure(data, command.png, text=text)
        console.print(f"picture: {command.png}")
    return {**data, **{name: str(path) for name, path in written.items() if path is not None}}


def _print(data: Mapping[str, Any]) -> None:
    is_classifier = data["kind"] == "classification"
    choices = [explained(choice, data) for choice in data["choices"]]
    best = choices[0]
    name = repr(visible(best["text"]))
    print("class:" if is_classifier else "next token:")
    rows = [[visible(c["text"]), percent(c["prob"]), f"logit {decimal(c['logit'])}"] for c in choices]
    print_columns(rows, right=[1, 2], indent="  ")
    print(f"\ntokens, with gradient times input for {name}:")
    header = ["token", "effect"] if is_classifier else ["token", "effect", "loss", "rank", "expected"]
    rows = [_token_row(data, i, effect) for i, effect in enumerate(best["saliency"])]
    print_columns([header, *rows], right=[1, 2, 3], indent="  ")
    print("\nlogit lens: the prediction after each block" + ("" if is_classifier else ", at the last token"))
    print_columns(_lens_rows(data), right=[2], indent="  ")
    print("\nheads with the highest mean attention to:")
    print_columns(_head_rows(data), indent="  ")
    print(f"\nlargest contributions to the logit of {name}, {signed(best['above_mean'])} above the mean:")
    print_columns([[part, signed(value)] for part, value in best["largest"]], right=[1], indent="  ")


def _token_row(data: Mapping[str, Any], i: int, effect: float) -> list[str]:
    token = data["tokens"][i]
    row = [visible(token["text"], 24), signed(effect)]
    if data["kind"] == "classification":
        return row
    if token["loss"] is None:
        return [*row, "", "", ""]
    expected = " ".join(visible(other["text"], 16) for other in token["alternatives"][:3])
    return [*row, decimal(token["loss"]), f"{token['rank'] + 1:,}", expected]


def _lens_rows(data: Mapping[str, Any]) -> list[list[str]]:
    lens = data["lens"]
    stride = -(-len(lens) // N_LENS_ROWS)
    shown = [i for i in range(len(lens)) if (len(lens) - 1 - i) % stride == 0]  # ends with the last
    tops = [(f"block {i - 1}" if i else "embedding", lens[i][-1]["top"][0]) for i in shown]
    return [[name, visible(top["text"], 24), percent(top["prob"])] for name, top in tops]


def _head_rows(data: Mapping[str, Any]) -> list[list[str]]:
    heads = [
        (layer, head, values) for layer, row in enumerate(data["heads"]) for head, values in enumerate(row)
    ]
    rows = []
    for name, words in SUMMARIES.items():
        if heads[0][2][name] is None:
            rows.append([words, "the text repeats no token"])
            continue
        best = sorted(heads, key=lambda entry: -entry[2][name])[:N_HEADS]
        shown = [f"block {layer} head {head} ({percent(v[name], 0)})" for layer, head, v in best]
        rows.append([words, ", ".join(shown)])
    return rows
