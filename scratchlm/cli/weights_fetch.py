"""`scratchlm weights fetch`: download pretrained weights and check them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from scratchlm.assets.known_datasets import Asset
from scratchlm.assets.known_weights import Source, gpt2_files, gpt2_size
from scratchlm.assets.registry import find_assets, find_file, recorded_sha256
from scratchlm.checkpoints.tensorflow.gpt2_fetching import fetch_gpt2_file
from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.progress import download_bar
from scratchlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WeightsFetch(Common):
    """Download pretrained weights into the cache or a folder. Interrupted downloads resume; files are checked first.

    Files are looked for in the folder named by SCRATCHLM_ASSETS, then in the cache, under paths such as
    gpt2/124M/model.safetensors. SCRATCHLM_MIRROR=http://host/path is tried before all other addresses and has the same
    paths, so one machine can serve a class with `python -m http.server`. HF_TOKEN is sent to huggingface.co only.
    HTTPS_PROXY and SSL_CERT_FILE are respected.

    Example: scratchlm weights fetch gpt2-small --source openai --dir gpt2
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()  # gpt2-small, -medium, -large, -xl; or 124M, 355M, ...
    source: Source = "hf"  # hf: safetensors; openai: the TensorFlow checkpoint that the book reads
    dir: Path | None = None  # folder for 124M/..., as in the book; default: the cache


@command_line(WeightsFetch)
def main(command: WeightsFetch, console: Console) -> dict[str, Any]:
    """Print and fetch each file; returns the `--json` keys."""
    if not command.names:
        raise ConfigError("weights fetch needs the name of a model; `scratchlm weights list` shows them.")
    fetched = []
    for size in [gpt2_size(name) for name in command.names]:
        for asset in gpt2_files(size, command.source):
            target = None if command.dir is None else command.dir / asset.id.removeprefix("gpt2/")
            row = _fetch(asset, target, console)
            fetched.append(row)
            print(row["path"])
    brings_tokenizer = command.source == "openai"
    tokenizer_here = brings_tokenizer or all(find_file(asset.id) for asset in find_assets("gpt2_bpe"))
    return {"fetched": fetched, "tokenizer_here": tokenizer_here}


def _fetch(asset: Asset, target: Path | None, console: Console) -> dict[str, Any]:
    console.print(f"{asset.id}: {asset.size}, {asset.licence}")
    with download_bar(console, asset) as show:
        path = fetch_gpt2_file(asset, target=target, progress=show)
    sha256 = asset.sha256 or recorded_sha256(path)
    if asset.sha256 is None:
        recorded = "; from now on only this file is accepted" if sha256 else ""
        console.print(
            f"{asset.id}: no published sha256 is known, so only its structure and its own checksums were checked. "
            f"Its sha256 is {sha256 or 'not recorded'}{recorded}."
        )
    return {
        "id": asset.id,
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": sha256,
        "verified": "published sha256" if asset.sha256 else "first use",
    }
