"""Read Stanford's archive of the Large Movie Review Dataset (IMDb): one file per review, in folders named by label.

The archive is read as a stream and never unpacked: no name in it becomes a path, and only regular files whose name is
exactly that of a review are read.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from scratchlm.core.errors import DataError

READ_BYTES = 1 << 20
MAX_REVIEW_BYTES = 1 << 20  # well above the longest review
_REVIEW = re.compile(r"(?:\./)?aclImdb/(?:train|test)/(pos|neg)/\d+_\d+\.txt")


def read_imdb(path: str | Path) -> Iterator[tuple[str, str]]:
    """Yield each review and its label, `pos` or `neg`, in the archive's order; unlabelled reviews are left out.

    Raises: DataError for a file that is not a complete tar.gz or has no review, and for a review that is too long or
        not UTF-8.
    Source: https://ai.stanford.edu/~amaas/data/sentiment/, Maas and others 2011.
    """
    n_reviews = 0
    try:
        # tarfile's own gzip reader, unlike the gzip module, accepts a truncated file.
        with gzip.open(path, "rb") as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as archive:
            for member in archive:
                named = _REVIEW.fullmatch(member.name)
                if named is None or not member.isfile():
                    continue
                n_reviews += 1
                yield _review(archive, member, f"{path}, {member.name}"), named[1]
            while unzipped.read(READ_BYTES):
                pass  # read to the end, where the checksum is
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise DataError(f"{path} is not a complete .tar.gz ({cause}); download it again.") from cause
    except OSError as cause:
        raise DataError(f"{path} cannot be read ({cause.strerror or cause}); check it.") from cause
    if n_reviews == 0:
        raise DataError(f"{path} has no reviews such as aclImdb/train/pos/0_9.txt; it is another archive.")


def _review(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> str:
    if member.size > MAX_REVIEW_BYTES:
        raise DataError(
            f"{where} must be a review of at most {MAX_REVIEW_BYTES:,} bytes, got {member.size:,}; download the "
            "archive again."
        )
    file = archive.extractfile(member)
    assert file is not None, "a regular file has content"
    try:
        return file.read().decode("utf-8")
    except UnicodeDecodeError as cause:
        raise DataError(f"{where} is not UTF-8 ({cause}); download the archive again.") from cause
