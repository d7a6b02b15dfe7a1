"""Choose the device to compute on, and measure memory."""

import sys
from typing import Literal

import psutil
import torch

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.core.memory import status_bytes

if sys.platform != "win32":  # this module does not exist on Windows
    import resource

MAX_THREADS = 1024  # of more, a system may refuse some, and PyTorch then ends the process without a message
DeviceName = Literal["auto", "cpu", "cuda", "mps"]


def pick_device(name: str = "auto") -> torch.device:
    """Return the named device; `auto` chooses CUDA, else Apple's MPS, else the CPU.

    Raises: ConfigError when the named device is not on this machine.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if name.partition(":")[0] not in available:
        raise ConfigError(f"device must be one of auto, cpu, cuda, mps, got {name!r}; choose one of them.")
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise ConfigError(f"device must be a kind and a number such as cuda:0, got {name!r}.") from cause
    if not available[device.type]:
        here = ", ".join(kind for kind, is_here in available.items() if is_here)
        raise ConfigError(f"device {name!r} is not available here, only {here}; use --device auto.")
    return device


def set_threads(n: int) -> None:
    """Set the number of CPU threads; results differ in rounding between numbers of threads.

    Raises: ConfigError for a number below 1, or above MAX_THREADS.
    """
    check_at_least(1, threads=n)
    if n > MAX_THREADS:
        raise ConfigError(f"threads must be at most {MAX_THREADS}, got {n}; the number of cores is usual.")
    torch.set_num_threads(n)


def peak_memory_bytes() -> int:
    """Peak memory of this process so far (resident set), in bytes; on Windows the current value."""
    if sys.platform == "win32":
        return memory_bytes()
    # getrusage also counts the program that started this one
    if sys.platform == "linux" and (found := status_bytes("VmHWM")):
        return found
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit_bytes


def memory_bytes() -> int:
    """Current memory of this process (resident set), in bytes."""
    return int(psutil.Process().memory_info().rss)
