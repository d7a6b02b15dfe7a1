"""Out-of-memory errors become advice; other errors stay what they are; training keeps the memory that it frees."""

import errno
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from scratchlm.core.errors import CheckpointError, OutOfMemoryError
from scratchlm.core.memory import memory_errors_explained

ADVICE = "halve batch_size"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def numpy_error() -> MemoryError:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, dtype=np.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        numpy_error(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        SystemError("error return without exception set"),
        OSError(errno.ENOMEM, "Cannot allocate memory", "file"),
        ImportError("libtorch.so: failed to map segment from shared object"),
        ImportError("libtorch.so: cannot allocate memory in static TLS block"),
        caused(CheckpointError("model.safetensors cannot be read"), OSError(errno.ENOMEM, "no memory")),
    ],
)
def test_every_way_of_running_out_names_what_to_lower(error):
    message = r"^memory ran out.*; halve batch_size\.$"
    with pytest.raises(OutOfMemoryError, match=message) as caught, memory_errors_explained(ADVICE):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        CheckpointError("damaged"),
        caused(CheckpointError("a header that is no literal"), MemoryError("nested too deep")),
        OutOfMemoryError("the inner advice"),
        KeyError("cat"),
    ],
)
def test_other_errors_are_left_alone(error):
    with pytest.raises(type(error)) as caught, memory_errors_explained(ADVICE):
        raise error
    assert caught.value is error


AT_THE_LIMIT = """
import resource, sys
from scratchlm.core.errors import OutOfMemoryError
from scratchlm.core.memory import memory_errors_explained

size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))
try:
    blocks = []
    while "full" in sys.argv:
        blocks.append(bytearray(1 << 20))
except MemoryError:  # as a library that imports others may do
    del blocks
try:
    with memory_errors_explained("halve batch_size"):
        raise ImportError("cannot import name 'MODULES'")
except (OutOfMemoryError, ImportError) as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("use", "kind"), [("full", "OutOfMemoryError"), ("little", "ImportError")])
def test_an_error_of_a_process_that_reached_its_limit_counts_whatever_its_class(use, kind):
    command = [sys.executable, "-c", AT_THE_LIMIT, use]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == [kind]


COUNT_FAULTS = """
import resource
import torch
from scratchlm.core.memory import freed_memory_kept

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [torch.zeros(5_000_000) for _ in range(5)]  # 20 MB each
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = page_faults()
with freed_memory_kept():
    page_faults()
    kept = page_faults()
print(without, kept, page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_new_page_faults():
    counts = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS], check=True, capture_output=True, text=True
    ).stdout
    without, kept, after = map(int, counts.split())
    assert without > 10_000  # 100 MB in pages of 4 KB, twenty times: up to half a million
    assert kept < without / 50
    assert after > 10_000  # the memory was given back
