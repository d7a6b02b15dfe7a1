"""Chapter 6's download: a zip file with the SMS messages in it."""

from __future__ import annotations

import sys
from pathlib import Path

from scratchlm.core.archive_members import read_member
from scratchlm.core.assets import find_assets
from scratchlm.core.download import download
from scratchlm.core.files import write_bytes

MEMBER = "SMSSpamCollection"
MAX_BYTES = 1 << 26  # the real file has half a megabyte; a zip file may claim anything


def download_and_unzip_spam_data(
    url: str, zip_path: str | Path, extracted_path: str | Path, data_file_path: str | Path
) -> None:
    """Fetch the zip file and put the messages at `data_file_path`; nothing happens when they lie there already.

    A failure is an error. From one of the two known addresses the bytes of the zip file are checked by sha256.
    Of the archive only the messages are taken, not the readme beside them, so `extracted_path` is created and
    stays empty, unless `data_file_path` lies in it as in the book.

    Raises: DownloadError when the address does not deliver, or no sound zip file with the messages.
    """
    target = Path(data_file_path)
    if target.exists():
        sys.stdout.write(f"{target} already exists. Skipping download and extraction.\n")
        return
    (asset,) = find_assets(f"sms_spam_collection/{MEMBER}")
    if url in asset.urls and asset.archive is not None:
        download([url], zip_path, sha256=asset.archive.sha256, size_bytes=asset.archive.size_bytes)
    else:
        download([url], zip_path)
    data = read_member(Path(zip_path), MEMBER, max_bytes=MAX_BYTES)
    Path(extracted_path).mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, data)
    sys.stdout.write(f"File downloaded and saved as {target}\n")
