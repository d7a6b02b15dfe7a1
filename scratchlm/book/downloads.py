"""Downloads under the book's names: files that are on this machine are copied, failures are what its code catches."""

from __future__ import annotations

import contextlib
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from scratchlm.assets.archive_members import read_member
from scratchlm.assets.download import HUGGING_FACE_HOST, Progress, download
from scratchlm.assets.known_datasets import BOOK_COMMIT, Asset
from scratchlm.assets.known_weights import GPT2_ASSETS
from scratchlm.assets.registry import ASSETS, asset_path, find_assets, find_file
from scratchlm.core.errors import DownloadError
from scratchlm.core.files import read_bytes, write_bytes

BOOK_MAIN = (
    f"{BOOK_COMMIT.rpartition('/')[0]}/main"  # where the book's scripts look; our copies are of one commit
)
MESSAGES = "SMSSpamCollection"
MAX_MESSAGES_BYTES = 1 << 26  # the real file has half a megabyte; a zip file may claim anything


@contextlib.contextmanager
def errors_of_the_book() -> Iterator[None]:
    """Let a failed download also be what the book's scripts catch around one.

    That is requests' RequestException where a script uses requests, urllib's URLError, and TimeoutError.
    """
    try:
        yield
    except DownloadError as cause:
        bases: list[type[BaseException]] = [DownloadError, urllib.error.URLError, TimeoutError]
        if "requests" in sys.modules:  # a script that names its errors has imported it
            bases.append(sys.modules["requests"].exceptions.RequestException)
        raise type("DownloadError", tuple(bases), {})(*cause.args) from cause


def download_file(url: str, destination: str | Path, backup_url: str | None = None) -> None:
    """Fetch a file from its address, or from the backup's; the address may be `file:` too.

    The file appears whole or not at all, and a failure is an error, where the book's prints and carries on. A
    known file that lies among our assets is copied from there. An address of one of our assets comes with its
    sha256: then a file that is right already is left as it is without asking the server, and a wrong one is
    replaced.

    Raises: DownloadError when no address delivers.
    """
    if urllib.parse.urlsplit(url).scheme == "file":
        write_bytes(destination, read_bytes(urllib.request.url2pathname(urllib.parse.urlsplit(url).path)))
        return
    asset = _known(url)
    if asset is not None and asset.archive is None and find_file(asset.id) is not None:
        write_bytes(destination, asset_path(asset.id).read_bytes())
        return
    urls = [url] if backup_url is None else [url, backup_url]
    promised = asset if asset is not None and asset.archive is None and url in asset.urls else None
    with errors_of_the_book():
        download(
            urls,
            destination,
            sha256=promised.sha256 if promised else None,
            size_bytes=promised.size_bytes if promised else None,
            progress=progress_in_a_terminal(Path(destination).name),
        )


def download_and_unzip_spam_data(
    url: str, zip_path: str | Path, extracted_path: str | Path, data_file_path: str | Path
) -> None:
    """Fetch the zip file and put the messages at `data_file_path`; nothing happens when they lie there already.

    A failure is an error. From one of the two known addresses the bytes of the zip file are checked by sha256, and
    messages that lie among our assets are copied from there. Of the archive only the messages are taken, not the
    readme beside them, so `extracted_path` is created and stays empty, unless `data_file_path` lies in it as in the
    book.

    Raises: DownloadError when the address does not deliver, or no sound zip file with the messages.
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
    """Show how much has come, in one line that is written over; None where nobody looks."""
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
    """The asset that an address is of; the newest version of a file of the book's counts as ours."""
    pinned = url.replace(BOOK_MAIN, BOOK_COMMIT)
    return next((a for a in (*ASSETS, *GPT2_ASSETS) if pinned in a.urls and a.sha256 is not None), None)


def download_from_huggingface(
    repo_id: str, filename: str, local_dir: str | Path, revision: str = "main"
) -> str:
    """Fetch one file of a repository on Hugging Face into a folder, unless it is there.

    Raises: DownloadError when it cannot be had.
    """
    target = Path(local_dir) / filename
    if target.exists():
        sys.stdout.write(f"File already exists: {target}\n")
    else:
        url = f"https://{HUGGING_FACE_HOST}/{repo_id}/resolve/{revision}/{filename}"
        sys.stdout.write(f"Downloading {url} to {target}...\n")
        download_file(url, target)
    return str(target)
