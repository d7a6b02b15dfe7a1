"""`scratchlm weights list`: list known pretrained weights, and which are on this machine."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from scratchlm.assets.known_weights import FILES, GPT2_SIZES, LICENCE, GPT2Size, Source, gpt2_files
from scratchlm.assets.registry import find_file
from scratchlm.cli import terminal
from scratchlm.cli.parsing import Common, command_line


@dataclass(frozen=True, kw_only=True)
class WeightsList(Common):
    """List the pretrained weights that scratchlm knows by name, and whether they are on this machine.

    Example: scratchlm weights list
    """


def _row(size: GPT2Size, source: Source) -> dict[str, Any]:
    assets = gpt2_files(size, source)
    places = [find_file(asset.id) for asset in assets]
    sizes = [asset.size_bytes for asset in assets]
    folders = {place.parent for place in places if place is not None}
    is_here = None not in places
    return {
        "name": size.name,
        "names": list(size.names),
        "source": source,
        "parameters": size.n_parameters,
        "files": [asset.id for asset in assets],
        "size_bytes": None if None in sizes else sum(n for n in sizes if n is not None),
        "n_with_sha256": sum(asset.sha256 is not None for asset in assets),
        "licence": LICENCE,
        "path": str(folders.pop()) if is_here and len(folders) == 1 else None,
        "here": is_here,
    }


@command_line(WeightsList)
def main(command: WeightsList, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Print the table; returns the `--json` keys."""
    rows = [_row(size, source) for size in GPT2_SIZES for source in FILES]
    table = Table("name", "or", "source", "here", "bytes", "sha256 known")
    for row in rows:
        table.add_row(
            row["name"],
            ", ".join(row["names"][1:]),
            row["source"],
            "yes" if row["here"] else "no",
            "unknown" if row["size_bytes"] is None else f"{row['size_bytes']:,}",
            f"{row['n_with_sha256']} of {len(row['files'])} files",
        )
    terminal.console().print(table)
    print(f"Licence: {LICENCE}. `scratchlm weights fetch NAME --source hf|openai` downloads one.")
    return {"weights": rows}
