"""`scratchlm data fetch`: download a known data set, with checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from scratchlm.cli.parsing import Common, run_command
from scratchlm.core.assets import ASSETS, fetch_asset, find_assets
from scratchlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DataFetch(Common):
    """Download known data sets into the cache: resumed when interrupted, checked before they appear.

    Example: scratchlm data fetch gpt2_bpe wikitext_2
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()  # ids or folders of `scratchlm data list`
    all: bool = False  # every small one (of at most 2 MB); larger ones are fetched by name


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(DataFetch, _act, args, prog=prog)


def _act(command: DataFetch, console: Console) -> dict[str, Any]:
    """Say what will be fetched, fetch it; returns the `--json` keys."""
    if not command.names and not command.all:
        raise ConfigError(
            "fetch needs a name, found none; `scratchlm data list` shows them, --all takes every small one."
        )
    assets = list(ASSETS) if command.all else [asset for name in command.names for asset in find_assets(name)]
    fetched = []
    for asset in assets:
        console.print(f"{asset.id}: {asset.size}, {asset.licence}", markup=False)
        with Progress(
            *Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn(), console=console
        ) as bar:
            task = bar.add_task(asset.id, total=asset.size_bytes)

            def show(done: int, total: int | None, *, bar: Progress = bar, task: Any = task) -> None:
                bar.update(task, completed=done, total=total)

            path = fetch_asset(asset.id, progress=show)
        fetched.append({"id": asset.id, "path": str(path)})
        if not command.json:
            print(path)
    return {"fetched": fetched}
