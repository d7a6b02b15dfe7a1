"""The Large Movie Review Dataset as Stanford packs it: one small file per review, in folders named after the label.

The archive is read from front to back and never unpacked: no name inside it becomes a path, and only regular files
with a review's exact kind of name are looked at.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from scratchlm.core.errors import DataError

Side = Literal["train", "test", "both"]
READ_BYTES = 1 << 20
LONGEST_REVIEW_BYTES = 1 << 20  # no real one comes near it
_REVIEW = re.compile(r"(?:\./)?aclImdb/(train|test)/(pos|neg)/\d+_\d+\.txt")


def read_imdb(path: str | Path, *, side: Side = "both") -> Iterator[tuple[str, str]]:
    """Each review and its label, `pos` or `neg`, in the archive's order; reviews without a label are left out.

    Raises: DataError for a file that is no whole tar.gz, holds no review, or one that is too long or no UTF-8.
    Source: https://ai.stanford.edu/~amaas/data/sentiment/, Maas and others 2011.
    """
    n_reviews = 0
    try:
        # tarfile's own reader of .gz takes a file that was cut short for a whole one; gzip's does not.
        with gzip.open(path, "rb") as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as archive:
            for member in archive:
                named = _REVIEW.fullmatch(member.name)
                if named is None or not member.isfile() or side not in ("both", named[1]):
                    continue
                n_reviews += 1
                yield _review(archive, member, f"{path}, {member.name}"), named[2]
            while unzipped.read(READ_BYTES):
                pass  # to the end, where the checksum stands
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise DataError(f"{path} should be a whole .tar.gz, got: {cause}; download it again.") from cause
    except OSError as cause:
        raise DataError(
            f"{path} should be a readable .tar.gz, got: {cause.strerror or cause}; check it."
        ) from cause
    if n_reviews == 0:
        raise DataError(
            f"{path} should hold reviews such as aclImdb/train/pos/0_9.txt, found none for side={side}; it is some "
            "other archive."
        )


def _review(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> str:
    if member.size > LONGEST_REVIEW_BYTES:
        raise DataError(
            f"{where} should be a review of at most {LONGEST_REVIEW_BYTES:,} bytes, found {member.size:,}; download "
            "the archive again."
        )
    file = archive.extractfile(member)
    assert file is not None, "a regular file has content"
    try:
        return file.read().decode("utf-8")
    except UnicodeDecodeError as cause:
        raise DataError(f"{where} must be UTF-8, found: {cause}; download the archive again.") from cause
