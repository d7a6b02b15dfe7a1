"""Replace files and folders atomically, and clean up after writers that were killed.

A folder is replaced by exchanging two names in one system call (Linux, `renameat2`). Where the system or the file
system cannot do that, the older folder is set aside under a hidden name that readers know, and renamed back by the next
writer if its process was killed in between. Each hidden name holds host and process, so that no process deletes what
another is still writing.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PARTIAL_MARK = ".partial-"  # in the name of every unfinished file or folder, and of what is being deleted
ASIDE_MARK = ".replaced-"  # in the name of an older folder, moved aside while it is replaced
COMPLETE_MARK = ".complete"  # suffix of a folder whose files are being moved into place
FOREIGN_AGE_S = 2 * 86_400  # a partial of another host is deleted after this time without a change
MAX_NAME_BYTES = 100  # of the target's name in a partial's name; file systems allow 255 in total
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_CANNOT_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV, errno.EPERM}
# Host and process; earlier versions wrote no host.
_OWNER = re.compile(r"(?:old-)?(?:(?P<host>.+)-)?(?P<pid>\d+)(?:\.\d+)?")
_in_use: set[Path] = set()  # partials of this process


@contextlib.contextmanager
def partial_beside(target: Path) -> Iterator[Path]:
    """Yield a hidden path beside target for this thread alone; stale paths of the same target are removed."""
    remove_partials(target.parent, of=target.name)
    plain = target.with_name(f".{_short(target.name)}{PARTIAL_MARK}{_owner_mark()}")
    partial, number = plain, 1
    while partial in _in_use:  # another thread writes the same target
        number += 1
        partial = plain.with_name(f"{plain.name}.{number}")
    _in_use.add(partial)
    try:
        yield partial
    finally:
        _in_use.discard(partial)


def replace_folder(new: Path, target: Path) -> None:
    """Replace target by a finished folder, and delete the older one.

    At any time target is the older folder or the new one; without `renameat2` the older one can briefly be
    found only by `standing`. When a call fails, target is unchanged.
    Raises: OSError.
    """
    older = None
    if not os.path.lexists(target):
        new.rename(target)
        undo: Callable[[], object] = functools.partial(target.rename, new)
    elif _exchange(new, target):
        older = new
        undo = functools.partial(_exchange, new, target)
    else:
        older = target.with_name(f".{target.name}{ASIDE_MARK}{_owner_mark()}")
        discard(older)
        target.rename(older)
        undo = functools.partial(_rename_back, new, older, target)
        try:
            new.rename(target)
        except BaseException:
            undo()
            raise
    try:
        fsync_folder(target.parent)  # before the older one is deleted
    except OSError:
        undo()
        raise
    if older is not None:
        discard(older)


def place_files(filled: Path, target: Path) -> None:
    """Move the files of a finished folder to target and its siblings, as one atomic step for readers.

    Once the folder has its final hidden name, all of them will be moved: `standing` completes an interrupted move.
    Raises: OSError.
    """
    journal = _journal(target)
    filled.rename(journal)
    try:
        fsync_folder(target.parent)
    except OSError:
        journal.rename(filled)
        raise
    finish_files(target)


def finish_files(target: Path) -> None:
    """Complete a move that `place_files` began, if there is one.

    Raises: OSError.
    """
    journal = _journal(target)
    if journal.is_dir():
        for file in sorted(journal.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # another process is completing it too
                file.replace(target.with_name(file.name))
        fsync_folder(target.parent)
        with contextlib.suppress(OSError):
            journal.rmdir()


def remove_folder(folder: Path) -> None:
    """Delete a folder atomically for readers; a process killed meanwhile leaves only a hidden partial.

    Raises: OSError when it cannot be renamed.
    """
    with partial_beside(folder) as aside:
        discard(aside)
        folder.rename(aside)
        discard(aside)


def discard(path: Path) -> None:
    """Delete a file, folder or link as far as possible; the next writer removes the rest."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def standing(folder: Path) -> Path:
    """Return the current path of a folder: its own, or a hidden one while it is being replaced.

    Also for a file. A move that a killed writer had begun is completed first.
    """
    if folder.name in ("", ".."):  # the working folder, or one above it: nobody replaces it under that name
        return folder
    with contextlib.suppress(OSError):  # a read-only disk
        finish_files(folder)
    for _ in range(3):  # a writer may finish between the two checks
        if folder.exists() or not folder.parent.is_dir():
            return folder
        found = standing_in(folder.parent).get(folder.name, folder)
        if found.exists():
            return found
    return folder


def standing_in(folder: Path) -> dict[str, Path]:
    """The entries of a folder by name; a folder that is being replaced is listed under its own name."""
    paths = list(folder.iterdir()) if folder.is_dir() else []
    aside = {path.name.rpartition(ASIDE_MARK)[0][1:]: path for path in paths if ASIDE_MARK in path.name}
    return {**aside, **{path.name: path for path in paths if path not in aside.values()}}


def remove_partials(folder: Path, *, of: str | None = None) -> None:
    """Delete what killed writers left in a folder, and rename back what they had moved aside.

    of: only what belongs to the target of that name.
    Partials of running processes stay, and those of another host until they have not changed for two days.
    """
    partial_of = None if of is None else _short(of).lstrip(".") + PARTIAL_MARK
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            name, mark, owner = path.name.rpartition(ASIDE_MARK)
            if not path.name.startswith("."):
                continue
            if mark and of in (None, name[1:]):
                _settle(path, path.with_name(name[1:]), owner)
            elif PARTIAL_MARK in path.name and path not in _in_use:
                plain = path.name.lstrip(".")  # a partial can have a partial of its own
                owner = path.name.rpartition(PARTIAL_MARK)[2].partition(ASIDE_MARK)[0]
                if (partial_of is None or plain.startswith(partial_of)) and _is_stale(path, owner):
                    discard(path)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk; does nothing on Windows, which cannot."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _journal(target: Path) -> Path:
    return target.with_name(f".{_short(target.name)}{COMPLETE_MARK}")


def _settle(aside: Path, target: Path, owner: str) -> None:
    """Rename back a folder that was moved aside and not replaced; delete one that was replaced."""
    if target.exists():
        if _is_stale(aside, owner):
            discard(aside)
    elif not _is_running(owner, changed_at_s=aside.lstat().st_ctime):
        aside.rename(target)


def _rename_back(new: Path, older: Path, target: Path) -> None:
    if target.exists():
        target.rename(new)
    older.rename(target)


def _is_stale(path: Path, owner: str) -> bool:
    """Whether a process that has ended, or another host long ago, left this partial."""
    try:
        inside = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
        changed_at_s = max(one.lstat().st_mtime for one in (path, *inside))
    except OSError:  # it is being written, or deleted
        return False
    match = _OWNER.fullmatch(owner)
    if match is None or match["host"] not in (None, _host()):
        return time.time() - changed_at_s > FOREIGN_AGE_S
    return not _is_running(owner, changed_at_s=changed_at_s)


def _is_running(owner: str, *, changed_at_s: float) -> bool:
    """Whether the process in a hidden name still runs here; one started after the last change is another."""
    match = _OWNER.fullmatch(owner)
    if match is None or match["host"] not in (None, _host()):
        return False
    if int(match["pid"]) == os.getpid():
        return False  # what this process is writing is in _in_use
    try:
        started_at_s: float = psutil.Process(int(match["pid"])).create_time()
    except psutil.Error:
        return False
    return started_at_s < changed_at_s + 2


def _owner_mark() -> str:
    return f"{_host()}-{os.getpid()}"


@functools.cache
def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", platform.node())[:32] or "host"


def _short(name: str) -> str:
    """A name that leaves room for marks; a long one is cut, and a hash keeps it unique."""
    data = os.fsencode(name)
    if len(data) <= MAX_NAME_BYTES:
        return name
    return f"{data[:60].decode('utf-8', errors='ignore')}~{hashlib.sha256(data).hexdigest()[:12]}"


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; False where the system does not support it.

    Raises: OSError for any other failure; nothing is changed then.
    """
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return found
