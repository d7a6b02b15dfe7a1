"""Lock a run folder, so that only one process at a time writes to it.

It is a lock of the operating system on an open file in the folder, so it is released when the process ends
for any reason. The file's text only records which process holds it.
"""

import contextlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scratchlm.core.errors import ConfigError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_FILE = ".lock"
_WAIT_S, _POLL_S = 1.0, 0.05  # for a process that is ending, or only reads the holder's id
_WINDOWS_BYTE = 1 << 20  # locked byte, far beyond the text: Windows cannot read a locked byte
_held: dict[str, int] = {}  # folders that this process has locked, and the open files


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder during the block; the same process may take it again. The folder is made if needed.

    Raises: ConfigError naming the process that holds it, or when the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key, owner = str(folder.resolve()), os.getpid()
        is_ours = key in _held and is_at(_held[key], folder / LOCK_FILE)
        descriptor = None if is_ours else _open_locked(folder)
    except OSError as cause:
        raise ConfigError(
            f"{folder} is not a writable folder: {cause.strerror}; choose another folder (--out)."
        ) from cause
    if descriptor is None:
        yield
        return
    earlier = _held.get(key)  # of a folder of that name that this process has deleted
    _held[key] = descriptor
    try:
        yield
    finally:
        if os.getpid() == owner:  # and not in a child process forked in the block
            _held.pop(key)
            _held.update({} if earlier is None else {key: earlier})
            if is_at(descriptor, folder / LOCK_FILE):
                with contextlib.suppress(OSError):  # Windows cannot delete an open file
                    (folder / LOCK_FILE).unlink()
            os.close(descriptor)


def running_process(folder: Path) -> int | None:
    """The id of the process that holds the lock of a folder; None when none does."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return None
    try:
        if _held.get(str(folder.resolve())) is not None:
            return os.getpid()
        return None if lock_file(descriptor, is_shared=True) else _holder(descriptor)
    finally:
        os.close(descriptor)


def ask_to_stop(folder: Path) -> bool:
    """Ask the process that holds the lock of a folder to stop, with SIGTERM; False when no other process holds it.

    A training saves a checkpoint and ends; on Windows it ends at once.
    Raises: ConfigError when the process is another machine's or another user's.
    """
    process = running_process(folder)
    if process is None or process == os.getpid():
        return False
    try:
        host = json.loads((folder / LOCK_FILE).read_text(encoding="utf-8"))["host"]
    except (OSError, ValueError, KeyError, TypeError):  # it has just ended
        return False
    if host != platform.node():
        raise ConfigError(f"{folder.name} is in use by process {process} of {host}; stop it on that machine.")
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended
        return False
    except PermissionError as cause:
        raise ConfigError(
            f"{folder.name} is in use by process {process} of another user; ask its owner to stop it."
        ) from cause
    return True


def lock_file(descriptor: int, *, is_shared: bool = False) -> bool:
    """Lock an open file until it is closed; False when another process holds it.

    On a file system without locks the file counts as free.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _WINDOWS_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _open_locked(folder: Path) -> int:
    """Open and lock the folder's lock file, and write this process's id into it."""
    path, give_up_at_s = folder / LOCK_FILE, time.monotonic() + _WAIT_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if lock_file(descriptor) and is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
            return descriptor
        holder = _holder(descriptor)
        os.close(descriptor)
        if time.monotonic() >= give_up_at_s:
            raise ConfigError(
                f"{folder} is in use by process {holder or '(unknown)'}; stop it or choose another folder."
            )
        time.sleep(_POLL_S)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at this path: the folder may have been deleted and recreated."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _holder(descriptor: int) -> int | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return int(json.loads(os.read(descriptor, 1000))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _forget_in_child() -> None:
    """Close the parent's lock files in a forked child, which must not keep them locked."""
    for descriptor in _held.values():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
