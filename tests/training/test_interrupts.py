"""A signal is a request, and a second one an order."""

from __future__ import annotations

import os
import signal
import threading

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


def test_a_second_signal_ends_the_process_with_its_own_code(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert codes == [128 + signal.SIGTERM]
    assert stop.is_made


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
