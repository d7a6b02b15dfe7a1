"""A signal is a request, and a second one an order."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from scratchlm.training.interrupts import StoppedBySignal, stop_requests


def test_no_signal_is_no_request():
    with stop_requests() as stop:
        assert not stop.is_made
    assert stop.signal_number is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_sets_the_request(number):
    with stop_requests() as stop:
        os.kill(os.getpid(), number)
        assert stop.is_made
    assert stop.signal_number == number


def test_earlier_handlers_come_back_even_after_an_error():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError, match="oops"), stop_requests():
        raise RuntimeError("oops")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_can_train_without_signals():
    seen = []

    def work():
        with stop_requests() as stop:
            seen.append(stop.is_made)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes_are_those_of_shells(number, code):
    assert StoppedBySignal(number, "stopped").exit_code == code
    assert not isinstance(StoppedBySignal(number, "stopped"), Exception)  # no careless handler swallows it


def run_script(*lines: str) -> subprocess.CompletedProcess[str]:
    begin = [
        "import ctypes, os, signal, sys, time",
        "from scratchlm.training import interrupts",
        "from scratchlm.training.interrupts import process_signals, stop_requests",
        "interrupts.GRACE_S = 0.2",
        "process_signals.install()",
        "def kill(): os.kill(os.getpid(), signal.SIGTERM)",
    ]
    script = "\n".join([*begin, *lines])
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


SWALLOWED = """
class Trap:
    def __del__(self): kill()
with process_signals.unwinding():
    Trap()
    time.sleep(60)
"""


@pytest.mark.parametrize(
    "script",
    [
        "kill()",
        "try: kill()\nexcept BaseException: pass",  # outside the block nothing is raised that could be caught
        "with process_signals.unwinding(): kill()",
        "with process_signals.unwinding():\n    try: kill()\n    except BaseException: time.sleep(60)",
        SWALLOWED,
        "with stop_requests() as stop:\n    os.kill(os.getpid(), signal.SIGINT)\n    kill()",  # the second one's code
        # The second signal comes from another thread while the main one is in C code that never returns to Python.
        "import threading\nwith stop_requests() as stop:\n    kill()\n    threading.Timer(0.5, kill).start()\n"
        "    ctypes.CDLL(None).sleep(30) or ctypes.CDLL(None).sleep(30)",
    ],
)
def test_a_process_ends_with_143_even_where_the_exception_is_swallowed(script):
    started_at_s = time.monotonic()
    result = run_script(script)
    assert result.returncode == 143, result.stderr
    assert time.monotonic() - started_at_s < 25


def test_a_request_that_comes_with_the_last_step_is_not_lost():
    result = run_script(
        "with process_signals.unwinding():",
        "    with stop_requests() as stop: kill()",
        "    print(stop.signal_number, process_signals.received)",
    )
    assert result.stdout.split() == ["15", "None"]


def test_the_watch_for_a_second_signal_ends_with_the_block():
    result = run_script(
        "with stop_requests() as stop: kill()",
        "with stop_requests() as stop: kill()",  # another first one, not a second
        "print(signal.set_wakeup_fd(-1))",
    )
    assert (result.returncode, result.stdout) == (0, "-1\n")
