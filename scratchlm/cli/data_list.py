"""`scratchlm data list`: list known data sets, and which are on this machine."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from scratchlm.assets.known_datasets import ASSETS, DATASETS, Asset
from scratchlm.assets.registry import asset_path, find_file
from scratchlm.cli.parsing import Common, command_line
from scratchlm.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DataList(Common):
    """List the data sets with a known name, their licences, and whether they are on this machine.

    Example: scratchlm data list
    """


def _row(asset: Asset) -> dict[str, Any]:
    try:
        # Computing a checksum takes too long for large files; they are checked when they are used.
        path = asset_path(asset.id) if asset in ASSETS else find_file(asset.id)
    except DataError:
        path = None
    names = ("id", "size_bytes", "sha256", "licence", "purpose")
    return {name: getattr(asset, name) for name in names} | {"path": None if path is None else str(path)}


@command_line(DataList)
def main(command: DataList, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Print the table; returns the `--json` keys."""
    rows = []
    for asset in (*ASSETS, *DATASETS):
        rows.append(row := _row(asset))
        known = "sha256 known" if asset.sha256 else "sha256 unknown"
        print(f"{asset.id}  ({'available' if row['path'] else 'not downloaded'}, {asset.size}, {known})")
        print(f"    {asset.purpose}\n    licence: {asset.licence}")
    print("`scratchlm data fetch NAME` downloads one; SCRATCHLM_ASSETS names a folder to look in first.")
    return {"assets": rows}
