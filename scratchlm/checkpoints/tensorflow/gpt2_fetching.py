"""Download GPT-2's TensorFlow files, and verify the data file by the checksums in its index."""

from pathlib import Path

from scratchlm.assets.download import Progress
from scratchlm.assets.fetch import fetch_asset
from scratchlm.assets.known_datasets import Asset
from scratchlm.assets.registry import find_file
from scratchlm.checkpoints.tensorflow.bundle import data_problem

DATA, INDEX = "model.ckpt.data-00000-of-00001", "model.ckpt.index"


def fetch_gpt2_file(asset: Asset, *, target: Path | None = None, progress: Progress | None = None) -> Path:
    """Fetch one file of `gpt2_files`, whose order puts the data file last.

    No source publishes the data file's sha256, so every tensor in it must have its checksum in the index.
    Raises: as `fetch_asset`.
    """
    folder, _, file = asset.id.rpartition("/")
    index = find_file(f"{folder}/{INDEX}") if target is None else target.with_name(INDEX)

    def fits_its_index(path: Path) -> str | None:
        if index is None or not index.is_file():
            return f"{INDEX}, which holds its checksums, is missing: fetch that first"
        return data_problem(path, prefix=index.with_suffix(""))

    check = fits_its_index if file == DATA else None
    return fetch_asset(asset.id, target=target, progress=progress, check=check)
