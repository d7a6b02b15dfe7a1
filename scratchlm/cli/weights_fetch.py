"""`scratchlm weights fetch`: download pretrained weights, with checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from scratchlm.assets.known_weights import Source, gpt2_files, gpt2_size
from scratchlm.assets.registry import Asset, find_assets, find_file, recorded_sha256
from scratchlm.checkpoints.tensorflow.gpt2_fetching import fetch_gpt2_file
from scratchlm.cli.parsing import Common, run_command
from scratchlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WeightsFetch(Common):
    """Download pretrained weights into the cache or a folder: resumed when interrupted, checked before they appear.

    A folder named by SCRATCHLM_ASSETS is looked in first, then the cache; both hold files as
    gpt2/124M/model.safetensors. SCRATCHLM_MIRROR=http://host/path names an address that is asked before all
    others, where files lie under the same paths: one machine can serve a class with `python -m http.server`.
    HF_TOKEN goes to huggingface.co only. HTTPS_PROXY and SSL_CERT_FILE are respected.

    Example: scratchlm weights fetch gpt2-small --source openai --dir gpt2
    """

    names: tyro.conf.Positional[
        tuple[str, ...]
    ] = ()  # gpt2-small, gpt2-medium, gpt2-large, gpt2-xl; or 124M ...
    source: Source = "hf"  # hf: safetensors; openai: the TensorFlow checkpoint that the book reads
    dir: Path | None = None  # where to put 124M/..., as in the book; without it the cache


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(WeightsFetch, _act, args, prog=prog)


def _act(command: WeightsFetch, console: Console) -> dict[str, Any]:
    """Say what will be fetched, fetch it; returns the `--json` keys."""
    if not command.names:
        raise ConfigError("fetch needs a name, found none; `scratchlm weights list` shows them.")
    fetched = []
    for size in [gpt2_size(name) for name in command.names]:
        for asset in gpt2_files(size, command.source):
            target = None if command.dir is None else command.dir / asset.id.removeprefix("gpt2/")
            row = _fetch(asset, target, console)
            fetched.append(row)
            if not command.json:
                print(row["path"])
    if command.source == "hf" and any(find_file(asset.id) is None for asset in find_assets("gpt2_bpe")):
        console.print("The tokenizer is not here yet: `scratchlm data fetch gpt2_bpe`", markup=False)
    return {"fetched": fetched}


def _fetch(asset: Asset, target: Path | None, console: Console) -> dict[str, Any]:
    console.print(f"{asset.id}: {asset.size}, {asset.licence}", markup=False, soft_wrap=True)
    with Progress(
        *Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn(), console=console
    ) as bar:
        task = bar.add_task(escape(asset.id), total=asset.size_bytes)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        path = fetch_gpt2_file(asset, target=target, progress=show)
    sha256 = asset.sha256 or recorded_sha256(path)
    if asset.sha256 is None:
        remembered = "from now on only these bytes are accepted" if sha256 else "nothing could be compared"
        console.print(
            f"{asset.id}: no published sha256 is known, so only its structure and its own checksums could be "
            f"checked; its sha256 is {sha256 or 'not recorded'}, {remembered}.",
            markup=False,
            soft_wrap=True,
        )
    return {
        "id": asset.id,
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": sha256,
        "verified": "published sha256" if asset.sha256 else "first use",
    }
