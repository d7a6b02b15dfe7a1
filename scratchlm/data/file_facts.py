"""Remember what was computed from all bytes of a large file, such as its checksum, until the file changes."""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scratchlm.assets.cache_folder import cache_folder
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import DataError
from scratchlm.core.files import make_parent, read_json, write_json

logger = logging.getLogger(__name__)

LARGE_FROM_BYTES = 64 << 20  # a smaller file is read every time: hashing takes a second per 1.5 GB
SETTLED_AFTER_S = 2.0  # within the resolution of a file's times a second change would not show


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes; that of a large file is remembered."""
    return str(remembered(path, "sha256", lambda: sha256_of_file(path)))


def remembered(path: Path, what: str, compute: Callable[[], Any]) -> Any:
    """The value, of JSON's types, that `compute` gets from a file; of a large file it is kept in the cache folder.

    It is computed again when the file was written, replaced, restored or moved: the kept value belongs to an inode, a
    size, and the times at which content and inode changed, of which programs cannot set the latter. Bytes that a
    failing disk changes are not noticed.
    """
    if not path.is_file() or path.stat().st_size < LARGE_FROM_BYTES:
        return compute()
    state, started_at_s = _state(path), time.time()
    name = hashlib.sha256(f"{path.resolve()} {what}".encode()).hexdigest()
    record = cache_folder() / "file_facts" / f"{name[:32]}.json"
    try:
        kept = read_json(record) if record.is_file() else None
    except DataError:  # damaged, or not readable
        kept = None
    if isinstance(kept, dict) and kept.get("state") == state and "value" in kept:
        return kept["value"]
    value = compute()
    if _state(path) == state and max(state["changed_ns"]) < (started_at_s - SETTLED_AFTER_S) * 1e9:
        try:
            make_parent(record)
            write_json(record, {"file": str(path.resolve()), "what": what, "state": state, "value": value})
        except DataError as problem:
            logger.info("%s will be read again at the next start, because %s", path, problem)
    return value


def _state(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "inode": status.st_ino,
        "size_bytes": status.st_size,
        "changed_ns": [status.st_mtime_ns, status.st_ctime_ns],
    }
