"""Checksums of files: sha256, which downloads and model folders are compared with."""

import hashlib
from pathlib import Path

from scratchlm.core.errors import DataError, ScratchLMError


def sha256_of_file(path: str | Path, *, error: type[ScratchLMError] = DataError) -> str:
    """Hex sha256 of a file's bytes, read in pieces; another thread can work meanwhile."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while piece := file.read(16 << 20):
                digest.update(piece)
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror}; check the path.") from cause
    return digest.hexdigest()
