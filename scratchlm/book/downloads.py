"""The book's download functions: known files on this machine are copied, and errors are those its scripts catch."""

import contextlib
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from scratchlm.assets.archive_members import read_member
from scratchlm.assets.download import HUGGING_FACE_HOST, Progress, download
from scratchlm.assets.known_datasets import ASSETS, Asset
from scratchlm.assets.known_weights import GPT2_ASSETS
from scratchlm.assets.registry import asset_path, find_assets, find_file
from scratchlm.core.errors import DownloadError
from scratchlm.core.files import read_bytes, write_bytes

BOOK = "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch"
BOOK_COMMIT = f"{BOOK}/28c65cdfbc3338e2e040016eea4b7fdf556e4d57"  # of our copies
BOOK_MAIN = f"{BOOK}/main"  # used by the book's scripts
MESSAGES = "SMSSpamCollection"
MAX_MESSAGES_BYTES = 1 << 26  # the real file has half a megabyte; a zip file may state anything


@contextlib.contextmanager
def errors_of_the_book() -> Iterator[None]:
    """Make a DownloadError also an instance of the errors that the book's scripts catch.

    These are URLError of urllib, TimeoutError, and RequestException if the script has imported requests.
    """
    try:
        yield
    except DownloadError as cause:
        bases: list[type[BaseException]] = [DownloadError, urllib.error.URLError, TimeoutError]
        if "requests" in sys.modules:
            bases.append(sys.modules["requests"].exceptions.RequestException)
        raise type("DownloadError", tuple(bases), {})(*cause.args) from cause


def download_file(url: str, destination: str | Path, backup_url: str | None = None) -> None:
    """Download a file from its address or the backup address; `file:` addresses work too.

    A failure raises an error, where the book's function prints a message and continues. A known asset that is on this
    machine is copied. For the address of a known asset the sha256 is checked: a correct file is kept without a request,
    and a damaged one is replaced.

    Raises: DownloadError when both addresses fail.
    """
    if urllib.parse.urlsplit(url).scheme == "file":
        write_bytes(destination, read_bytes(urllib.request.url2pathname(urllib.parse.urlsplit(url).path)))
        return
    asset = _known(url)
    if asset is not None and asset.archive is None and find_file(asset.id) is not None:
        write_bytes(destination, asset_path(asset.id).read_bytes())
        return
    urls = [url] if backup_url is None else [url, backup_url]
    known = asset if asset is not None and asset.archive is None and url in asset.urls else None
    with errors_of_the_book():
        download(
            urls,
            destination,
            sha256=known.sha256 if known else None,
            size_bytes=known.size_bytes if known else None,
            progress=progress_in_a_terminal(Path(destination).name),
        )


def download_and_unzip_spam_data(
    url: str, zip_path: str | Path, extracted_path: str | Path, data_file_path: str | Path
) -> None:
    """Download the zip file and write its messages to `data_file_path`, unless that file exists.

    For the two known addresses the sha256 of the zip file is checked, and messages that are on this machine as an asset
    are copied. Only the messages are extracted, not the readme, so `extracted_path` is created but stays empty unless
    `data_file_path` is in it, as in the book.

    Raises: DownloadError when the download fails, or without a valid zip file with the messages.
    """
    target = Path(data_file_path)
    if target.exists():
        sys.stdout.write(f"{target} already exists. Skipping download and extraction.\n")
        return
    (asset,) = find_assets(f"sms_spam_collection/{MESSAGES}")
    if url in asset.urls and find_file(asset.id) is not None:
        data = asset_path(asset.id).read_bytes()
    else:
        with errors_of_the_book():
            if url in asset.urls and asset.archive is not None:
                download([url], zip_path, sha256=asset.archive.sha256, size_bytes=asset.archive.size_bytes)
            else:
                download([url], zip_path)
            data = read_member(Path(zip_path), MESSAGES, max_bytes=MAX_MESSAGES_BYTES)
    Path(extracted_path).mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, data)
    sys.stdout.write(f"File downloaded and saved as {target}\n")


def progress_in_a_terminal(name: str) -> Progress | None:
    """Show progress in one line that is overwritten; None when the output is not a terminal."""
    if not sys.stdout.isatty():
        return None
    shown = ""

    def show(done: int, total: int | None) -> None:
        nonlocal shown
        text = f"{done >> 20:,} MB" if not total else f"{done / total:.0%}"
        if text != shown:
            sys.stdout.write(f"\r{name}: {text:>9}" + ("\n" if done == total else ""))
            sys.stdout.flush()
            shown = text

    return show


def _known(url: str) -> Asset | None:
    """The asset at an address, if known; the book's newest version of a file counts as the pinned one."""
    pinned = url.replace(BOOK_MAIN, BOOK_COMMIT)
    return next((a for a in (*ASSETS, *GPT2_ASSETS) if pinned in a.urls and a.sha256 is not None), None)


def download_from_huggingface(
    repo_id: str, filename: str, local_dir: str | Path, revision: str = "main"
) -> str:
    """Download a file from a repository on Hugging Face into a folder, unless it exists there.

    Raises: DownloadError when the download fails.
    """
    target = Path(local_dir) / filename
    if target.exists():
        sys.stdout.write(f"File already exists: {target}\n")
    else:
        url = f"https://{HUGGING_FACE_HOST}/{repo_id}/resolve/{revision}/{filename}"
        sys.stdout.write(f"Downloading {url} to {target}...\n")
        download_file(url, target)
    return str(target)
