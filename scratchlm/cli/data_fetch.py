"""`scratchlm data fetch`: download a known data set, with checks."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from scratchlm.assets.fetch import fetch_asset
from scratchlm.assets.http_requests import check_reachable
from scratchlm.assets.known_datasets import ASSETS
from scratchlm.assets.registry import find_assets
from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.progress import download_bar
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.data.hub import export_hub_dataset
from scratchlm.data.row_files import parse_columns

HUB = "hf:"  # prefix for data sets of the Hugging Face hub


@dataclass(frozen=True, kw_only=True)
class DataFetch(Common):
    """Download known data sets into the cache; interrupted downloads resume, and every file is checked.

    hf:NAME downloads a data set of the Hugging Face hub as a .jsonl file for training; name its columns.

    Example: scratchlm data fetch gpt2_bpe wikitext_2
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()  # ids or folders of `scratchlm data list`
    all: bool = False  # all data sets of at most 2 MB; larger ones must be named
    columns: tuple[str, ...] = ()  # for hf:NAME: OURS=THEIRS, e.g. text=sentence label
    split: str = "train"  # for hf:NAME: the split to download
    config: str | None = None  # for hf:NAME: the configuration to download
    revision: str | None = None  # for hf:NAME: a commit, for reproducible downloads
    most_rows: int | None = None  # for hf:NAME: maximum number of rows
    out: Path | None = None  # for hf:NAME: the .jsonl file to write

    def __post_init__(self) -> None:
        check_at_least(1, most_rows=self.most_rows)


@command_line(DataFetch)
def main(command: DataFetch, console: Console) -> dict[str, Any]:
    """Announce and download the data sets; returns the `--json` keys."""
    if not command.names and not command.all:
        raise ConfigError(
            "fetch needs a name, got none; `scratchlm data list` shows the names, --all fetches all small data sets."
        )
    if any(name.startswith(HUB) for name in command.names):
        return _fetch_from_hub(command, console)
    assets = list(ASSETS) if command.all else [asset for name in command.names for asset in find_assets(name)]
    fetched = []
    for asset in assets:
        console.print(f"{asset.id}: {asset.size}, {asset.licence}")
        with download_bar(console, asset) as show:
            path = fetch_asset(asset.id, progress=show)
        fetched.append({"id": asset.id, "path": str(path)})
        print(path)
    return {"fetched": fetched}


def _fetch_from_hub(command: DataFetch, console: Console) -> dict[str, Any]:
    """Download one data set of the hub into one file; returns the `--json` keys."""
    if len(command.names) != 1 or command.out is None:
        raise ConfigError(
            f"a data set of the hub is fetched alone and into a file, got {len(command.names)} names and "
            f"--out {command.out}; e.g. `scratchlm data fetch hf:NAME --columns text label --out data.jsonl`."
        )
    columns = parse_columns(command.columns)
    if not columns:
        raise ConfigError(
            "a data set of the hub needs its columns named, got none; e.g. --columns text=sentence."
        )
    name = command.names[0].removeprefix(HUB)
    is_offline = bool(os.environ.get("HF_HUB_OFFLINE"))  # in this case the library uses only its cache
    if not is_offline and not Path(name).exists():
        check_reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    with Progress(*Progress.get_default_columns(), console=console) as bar:
        task = bar.add_task(escape(f"{name} ({command.split})"), total=command.most_rows)
        n_rows = export_hub_dataset(
            name,
            command.out,
            columns=columns,
            split=command.split,
            config=command.config,
            revision=command.revision,
            most_rows=command.most_rows,
            progress=lambda n: bar.update(task, completed=n),
        )
    print(f"{command.out}  ({n_rows:,} rows; for its licence see the data set's card)")
    return {"fetched": [{"id": command.names[0], "path": str(command.out), "rows": n_rows}]}
