"""Stop at every system call that changes a folder: let it happen, make it fail, or kill the process before it.

Linux hands each such call of a forked process, whichever of its threads makes it, to this one first: seccomp's user
notification, seccomp(2) and seccomp_unotify(2). Unlike `failing_calls` it sees what libraries in C and Rust do.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

CALLS = {  # x86-64: numbers by name
    "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "sendfile": 40, "copy_file_range": 326,
    "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "fallocate": 285, "creat": 85,
    "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266,
    "unlink": 87, "unlinkat": 263, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "chmod": 90, "fchmod": 91,
    "fchmodat": 268, "utimensat": 280, "open": 2, "openat": 257,
}  # fmt: skip
NAMES = {number: name for name, number in CALLS.items()}
FLAGS_ARGUMENT = {"open": 1, "openat": 2}  # which argument holds the flags; opening to read changes nothing
TO_A_DESCRIPTOR = {  # the first argument
    "write", "pwrite64", "writev", "pwritev", "sendfile", "ftruncate", "fallocate", "fsync", "fdatasync", "fchmod",
}  # fmt: skip
CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SECCOMP, _PR_SET_NO_NEW_PRIVS = 317, 38
_SET_FILTER, _NEW_LISTENER = 1, 8
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # instructions of BPF
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1


class Call(NamedTuple):
    """A call that is about to change a folder."""

    name: str
    in_background: bool  # made by another thread than the first
    number: int  # from 1


def why_not() -> str:
    """Why calls cannot be watched here; "" if they can."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return "needs Linux on x86-64"
    try:
        run_watched(lambda: None, lambda call: None)
    except OSError as problem:
        return f"seccomp's notifications are not permitted here: {problem}"
    return ""


def run_watched(
    work: Callable[[], object], at_call: Callable[[Call], int | None], *, within: Path = Path("/")
) -> tuple[int, list[Call]]:
    """Do the work in a child, and ask `at_call` before each call that changes something in the folder `within`.

    Its answer is None to let the call happen, or the number of the error that it shall end with, e.g. ENOSPC; SIGKILL,
    as a negative number, kills the process before the call. Returns the child's exit code and the calls.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        code = 1
        with suppress(SystemExit):
            try:
                _hand_over_calls(theirs)
                work()
                code = 0
            except BaseException as error:  # noqa: BLE001  (a forked process must not return to its parent's tests)
                traceback.print_exc()
                code = getattr(error, "exit_code", 1)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    theirs.close()
    calls: list[Call] = []
    with ours:
        message, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    try:
        if descriptors:
            _answer_calls(descriptors[0], child, at_call, within, calls)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ProcessLookupError):
            if sys.exc_info()[0] is not None:
                os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if not descriptors:
        raise OSError(int(message or b"0"), os.strerror(int(message or b"0")))
    return os.waitstatus_to_exitcode(status), calls


def _hand_over_calls(parent: socket.socket) -> None:
    """Install the filter in this process and send its listener to the parent."""
    program = [(_LOAD, 0, 0, 0)]  # the call's number
    for name, number in CALLS.items():
        if name in FLAGS_ARGUMENT:
            at = 16 + 8 * FLAGS_ARGUMENT[name]
            program += [(_IF_EQUAL, 0, 4, number), (_LOAD, 0, 0, at), (_IF_ANY_BIT, 0, 1, CHANGES)]
            program += [(_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ALLOW)]
        else:
            program += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _NOTIFY)]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = libc.syscall(_SECCOMP, _SET_FILTER, _NEW_LISTENER, head)
    if listener < 0:
        parent.send(str(ctypes.get_errno()).encode())
        os._exit(1)
    socket.send_fds(parent, [b"0"], [listener])
    os.close(listener)
    parent.close()


def _answer_calls(
    listener: int, child: int, at_call: Callable[[Call], int | None], within: Path, calls: list[Call]
) -> None:
    """Answer each call until the process has ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN | select.POLLHUP)
    while True:
        [(_, event)] = poll.poll()
        if event & select.POLLHUP:
            return
        received = bytearray(80)  # struct seccomp_notif
        try:
            fcntl.ioctl(listener, _RECEIVE, received)
        except OSError as problem:
            if problem.errno in (errno.ENOENT, errno.EINTR):  # the thread was killed meanwhile
                continue
            raise
        identity, thread, _, call_number, _, _, *arguments = struct.unpack("QIIiIQ6Q", received)
        answer = None
        if _is_within(within, NAMES[call_number], child, arguments):
            calls.append(Call(NAMES[call_number], thread != child, len(calls) + 1))
            answer = at_call(calls[-1])
        if answer is not None and answer < 0:
            os.kill(child, -answer)
            return
        flags, error = (_CONTINUE, 0) if answer is None else (0, -answer)
        with suppress(FileNotFoundError):  # the process has been killed by somebody else
            fcntl.ioctl(listener, _SEND, bytearray(struct.pack("QqiI", identity, 0, error, flags)))


def _is_within(folder: Path, name: str, child: int, arguments: list[int]) -> bool:
    """Whether the call's first path or descriptor is in the folder; yes if that cannot be read."""
    process = Path(f"/proc/{child}")
    with suppress(OSError):
        if name in TO_A_DESCRIPTOR:
            return (process / "fd" / str(arguments[0])).readlink().is_relative_to(folder)
        has_folder = name.endswith(("at", "at2"))  # the first argument is the descriptor of one, or AT_FDCWD
        start = ctypes.c_int(arguments[0] & 0xFFFFFFFF).value if has_folder else -1
        base = process / "cwd" if start < 0 else process / "fd" / str(start)
        return (base.readlink() / _text_at(process, arguments[has_folder])).is_relative_to(folder)
    return True


def _text_at(process: Path, address: int) -> str:
    with (process / "mem").open("rb", 0) as memory:
        memory.seek(address)
        return os.fsdecode(memory.read(4096 - address % 4096).split(b"\0")[0])  # the page after may not exist
