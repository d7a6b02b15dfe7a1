"""`scratchlm data list`: known data sets, and which are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from scratchlm.cli.parsing import Common, run_command
from scratchlm.core.assets import ASSETS, asset_path
from scratchlm.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DataList(Common):
    """List the data sets that scratchlm knows by name, their licence, and whether they are here.

    Example: scratchlm data list
    """


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(DataList, _act, args, prog=prog)


def _act(command: DataList, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Print the table; returns the `--json` keys."""
    rows = []
    for asset in ASSETS:
        try:
            path: str | None = str(asset_path(asset.id))
        except DataError:
            path = None
        rows.append(
            {
                "id": asset.id,
                "size_bytes": asset.size_bytes,
                "licence": asset.licence,
                "purpose": asset.purpose,
                "path": path,
            }
        )
    if not command.json:
        table = Table("name", "here", "bytes", "licence", "for")
        for row in rows:
            here = "yes" if row["path"] else "no"
            table.add_row(
                str(row["id"]), here, f"{row['size_bytes']:,}", str(row["licence"]), str(row["purpose"])
            )
        Console(highlight=False).print(table)
        print("`scratchlm data fetch NAME` downloads one; SCRATCHLM_ASSETS names a folder to look in first.")
    return {"assets": rows}
