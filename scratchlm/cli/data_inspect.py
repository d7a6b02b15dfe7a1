"""`scratchlm data inspect`: audit a data set before training on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from scratchlm.assets.registry import find_assets, find_file
from scratchlm.cli import terminal
from scratchlm.cli.audit_view import show_data_audit
from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.tokenizer_encode import tokenizer_named
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import write_text
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.audit.data_audit import MAX_COMPARED, inspect_data
from scratchlm.data.row_files import RowSettings
from scratchlm.reports.data_report_page import render_data_report
from scratchlm.training.settings import resolve_data

ASSET_FOLDERS = ("text", "sms_spam_collection", "instruction")
Kind = Literal["auto", "text", "classification", "instruction", "preference", "shards"]


@dataclass(frozen=True, kw_only=True)
class DataInspect(Common):
    """Audit data: lengths, class balance, duplicates, unusual characters, tokens with loss, leaks between FILEs.

    Example: scratchlm data inspect train.tsv test.tsv --context-length 120 --html data-report.html
    """

    files: tyro.conf.Positional[tuple[str, ...]] = ()  # each is one split: a file, folder, glob or known name
    kind: Kind = "auto"  # kind of data; auto detects it from names and first rows
    tokenizer: str | None = None  # gpt2, a tokenizer.json or a model folder; default gpt2
    context_length: int | None = None  # in tokens; texts that exceed it are counted
    template: str = "alpaca"  # prompt template, as in finetune instruct
    rows: Annotated[RowSettings, tyro.conf.arg(name="")] = field(default_factory=RowSettings)
    document_separator: str = ""  # text between documents of plain text, e.g. <|endoftext|>
    compare_at_most: int = MAX_COMPARED  # maximum number of texts to search for near-duplicates
    show: int = 3  # number of instruction rows to show token by token
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None  # also write the data report as a page

    def __post_init__(self) -> None:
        check_at_least(1, context_length=self.context_length)
        check_at_least(0, compare_at_most=self.compare_at_most, show=self.show)


@command_line(DataInspect)
def main(command: DataInspect, console: Console) -> dict[str, Any]:
    """Inspect, print, and write the page; returns the `--json` keys."""
    if not command.files:
        raise ConfigError(
            "inspect needs a file, got none; name one, or several to check for leaks between them."
        )
    paths = [_resolved(name) for name in command.files]
    if command.html is not None:
        _check_page(command.html, paths)
    tokenizer = _tokenizer(command.tokenizer, console)
    figures = inspect_data(
        paths,
        kind=command.kind,
        tokenizer=tokenizer,
        context_length=command.context_length,
        template_name=command.template,
        settings=command.rows,
        document_separator=command.document_separator,
        most_compared=command.compare_at_most,
        n_shown=command.show,
    )
    show_data_audit(figures, terminal.console())
    if command.html is not None:
        write_text(command.html, render_data_report(figures))
        console.print(f"page: {command.html}")
        figures["html"] = str(command.html)
    return figures


def _check_page(page: Path, paths: Sequence[str | Path]) -> None:
    """Reject an --html path that cannot be written or would overwrite the data."""
    if page.is_dir() or any(Path(path).exists() and Path(path).resolve() == page.resolve() for path in paths):
        found = "a folder" if page.is_dir() else "the data to be inspected"
        raise ConfigError(f"--html must name a file to write, got {found}: {page}; choose another name.")


def _resolved(name: str) -> str | Path:
    """Replace a known data set's name with the path of its local copy; a path is unchanged."""
    for kind in ASSET_FOLDERS:
        (found,) = resolve_data([name], kind=kind)
        if found != name:
            return found
    return name


def _tokenizer(name: str | None, console: Console) -> Tokenizer | None:
    """The named tokenizer, else GPT-2's if its files are on this machine, else None with a notice."""
    if name is not None:
        return tokenizer_named(name)
    if all(find_file(asset.id) for asset in find_assets("gpt2_bpe")):
        return tokenizer_named("gpt2")
    console.print(
        "No tokenizer: lengths are in words. `scratchlm data fetch gpt2_bpe` gets GPT-2's, --tokenizer names another."
    )
    return None
