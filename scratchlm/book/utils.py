"""The package's helper for files that its tests need."""

from __future__ import annotations

from pathlib import Path

from scratchlm.book import downloads


def download_file(url: str, out_dir: str | Path = ".") -> Path:
    """Fetch a file into a folder, unless a file of its name is there.

    Raises: DownloadError (a RuntimeError, as there) when the address does not deliver.
    """
    target = Path(out_dir) / Path(url).name
    if not target.exists():
        downloads.download_file(url, target)
    return target
