"""Download a file into a folder, under the name in the book's package."""

from pathlib import Path

from scratchlm.book import downloads


def download_file(url: str, out_dir: str | Path = ".") -> Path:
    """Download a file into a folder, unless a file of that name exists.

    Raises: DownloadError (also a RuntimeError, as in that package).
    """
    target = Path(out_dir) / Path(url).name
    if not target.exists():
        downloads.download_file(url, target)
    return target
