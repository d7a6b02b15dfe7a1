"""The checks of what reading costs can fail: a reader that does harm is caught."""

import mmap
import time

import pytest

from scratchlm.core.errors import CheckpointError
from tests.faults import reading
from tests.faults.reading import attack, measured_growth, read_within_limits


def allocate(n_megabytes: int) -> None:
    with mmap.mmap(-1, n_megabytes << 20) as pages:  # not from the allocator, which may have kept that much
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1
        time.sleep(0.1)  # long enough for a sampler to see it beside other work


@pytest.fixture(params=["high-water mark", "sampling"])
def way(request, monkeypatch):
    if request.param == "sampling":
        monkeypatch.setattr(reading, "_reset_high_water", lambda: False)


@pytest.mark.usefixtures("way")
def test_a_reader_that_takes_300_mb_is_caught_even_after_500_mb(monkeypatch):
    monkeypatch.setattr(reading, "MAX_SECONDS", 60)  # beside other work these pages take seconds
    allocate(500)  # as an earlier test in the same process may have
    with pytest.raises(AssertionError, match=r"a file took (29|30)\d MB"):
        read_within_limits(lambda: allocate(300), size_bytes=1000, what="a file")
    with pytest.raises(AssertionError, match=r"damaged files took (29|30)\d MB"):
        _attack_that_grows()


def _attack_that_grows() -> None:
    def read(data: bytes) -> None:
        if data == b"bad":
            allocate(300)
            raise CheckpointError("damaged")

    attack(read, good=b"good", damage=lambda number: b"bad", n=2)


@pytest.mark.usefixtures("way")
def test_a_small_reader_is_within_the_limits():
    with measured_growth() as growth:
        allocate(30)
    assert 25 << 20 < growth.n_bytes < 60 << 20
    assert read_within_limits(lambda: allocate(30), size_bytes=0, what="a file")


def test_a_reader_that_waits_is_caught():
    with pytest.raises(AssertionError, match=r"a file took 2\.\d s"):
        read_within_limits(lambda: time.sleep(2.1), size_bytes=0, what="a file")


@pytest.mark.parametrize(
    "code", ["exec('1')", "compile('1', 'a', 'eval')", "__import__('os').system('true')"]
)
def test_a_reader_that_runs_code_is_caught(code):
    program = compile(code, "here", "eval")
    with pytest.raises(AssertionError, match="a file caused"):
        read_within_limits(lambda: eval(program), size_bytes=0, what="a file")


def test_a_foreign_error_is_caught():
    with pytest.raises(AssertionError, match="a file raised ZeroDivisionError"):
        read_within_limits(lambda: 1 // 0, size_bytes=0, what="a file")
