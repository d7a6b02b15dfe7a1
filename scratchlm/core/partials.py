"""Unfinished and replaced files and folders: their names, the exchange with the finished one, and what kills leave.

A folder is replaced by exchanging two names in one system call (Linux, `renameat2`). Where the system or the file
system cannot do that, the older folder is set aside under a hidden name that readers know, and renamed back by the next
writer if its process was killed in between. Each hidden name carries host and process, so that nobody deletes what
another process is still writing.
"""

from __future__ import annotations

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
ASIDE_MARK = ".replaced-"  # in the name of a folder that stepped aside for its successor
COMPLETE_MARK = ".complete"  # ends the name of a folder whose files are on their way to their places
FOREIGN_AGE_S = 2 * 86_400  # a partial of another host is left alone until it has not changed for so long
MAX_NAME_BYTES = 100  # of the target's name in a partial name; file systems allow 255 in all
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_CANNOT_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV, errno.EPERM}
_OWNER = re.compile(
    r"(?:old-)?(?:(?P<host>.+)-)?(?P<pid>\d+)(?:\.\d+)?"
)  # without a host: of earlier versions
_in_use: set[Path] = set()  # partials of this process


@contextlib.contextmanager
def partial_beside(target: Path) -> Iterator[Path]:
    """A hidden neighbour of target to write, ours alone; stale ones of the same target are removed first."""
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
    """Put a finished folder in target's place; what stood there is deleted.

    At every instant target is the older folder or the new one; without `renameat2`, the older one is for a moment
    found by `standing` only. When a call fails, target is as before.
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
        fsync_folder(target.parent)  # before the older one goes
    except OSError:
        undo()
        raise
    if older is not None:
        discard(older)


def place_files(filled: Path, target: Path) -> None:
    """Move the files of a finished folder beside each other, target among them, as if at one instant.

    Once the folder has its final hidden name, they are decided: `standing` finishes what a kill interrupts.
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
    """Move what `place_files` had not moved yet, if anything.

    Raises: OSError.
    """
    journal = _journal(target)
    if journal.is_dir():
        for file in sorted(journal.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # another process is finishing too
                file.replace(target.with_name(file.name))
        fsync_folder(target.parent)
        with contextlib.suppress(OSError):
            journal.rmdir()


def remove_folder(folder: Path) -> None:
    """Delete a folder so that others see it go at once; a kill in between leaves only a hidden partial.

    Raises: OSError when it may not be renamed.
    """
    with partial_beside(folder) as aside:
        discard(aside)
        folder.rename(aside)
        discard(aside)


def discard(path: Path) -> None:
    """Delete a file, folder or link as far as possible; what stays is removed by the next writer."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def standing(folder: Path) -> Path:
    """The folder, or the hidden name under which it stands while it is replaced, or was when the writer was killed.

    Also of a file: what a killed writer had decided to put there is put there first.
    """
    with contextlib.suppress(OSError):  # a read-only disk
        finish_files(folder)
    for _ in range(3):  # a writer may finish between two looks
        if folder.exists() or not folder.parent.is_dir():
            return folder
        found = standing_in(folder.parent).get(folder.name, folder)
        if found.exists():
            return found
    return folder


def standing_in(folder: Path) -> dict[str, Path]:
    """What is in a folder, by name; what is set aside while it is replaced goes by its own name."""
    paths = list(folder.iterdir()) if folder.is_dir() else []
    aside = {path.name.rpartition(ASIDE_MARK)[0][1:]: path for path in paths if ASIDE_MARK in path.name}
    return {**aside, **{path.name: path for path in paths if path not in aside.values()}}


def remove_partials(folder: Path, *, of: str | None = None) -> None:
    """Delete what killed writers left in a folder, and rename back what they had set aside.

    of: only what belongs to the target of that name.
    Partials of living processes stay, and those of another host until they have not changed for two days.
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
                is_asked = partial_of is None or path.name.lstrip(".").startswith(
                    partial_of
                )  # or a partial's own
                owner = path.name.rpartition(PARTIAL_MARK)[2].partition(ASIDE_MARK)[0]
                if is_asked and _is_stale(path, owner):
                    discard(path)


def fsync_folder(folder: Path) -> None:
    """Make the disk keep a folder's list of names; systems that cannot (Windows) are left alone."""
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
    """A folder that was set aside comes back when its successor never came."""
    if target.exists():
        if _is_stale(aside, owner):
            discard(aside)
    elif not _is_at_work(owner, changed_at_s=aside.lstat().st_ctime):
        aside.rename(target)


def _rename_back(new: Path, older: Path, target: Path) -> None:
    if target.exists():
        target.rename(new)
    older.rename(target)


def _is_stale(path: Path, owner: str) -> bool:
    """Was this left by a process that is gone, or by another host long ago?"""
    try:
        inside = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
        changed_at_s = max(one.lstat().st_mtime for one in (path, *inside))
    except OSError:  # it is being written, or deleted
        return False
    match = _OWNER.fullmatch(owner)
    if match is None or match["host"] not in (None, _host()):
        return time.time() - changed_at_s > FOREIGN_AGE_S
    return not _is_at_work(owner, changed_at_s=changed_at_s)


def _is_at_work(owner: str, *, changed_at_s: float) -> bool:
    """Is the process that a hidden name carries alive here? One that began after the last change is another."""
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
    """A name that leaves room for marks; a long one is cut, and told apart by a hash."""
    data = os.fsencode(name)
    if len(data) <= MAX_NAME_BYTES:
        return name
    return f"{data[:60].decode('utf-8', errors='ignore')}~{hashlib.sha256(data).hexdigest()[:12]}"


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one instant; False where that is not possible.

    Raises: OSError for any other trouble; nothing has changed then.
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
