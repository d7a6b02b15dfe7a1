"""Compile `decode.c` for this machine's processor, once, into the cache folder."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from scratchlm.assets.cache_folder import cache_folder
from scratchlm.core.atomic_replace import remove_partials
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import make_parent, new_file

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("decode.c")
# No -ffast-math: it would let the compiler reorder sums, which must be the same in every batch.
NATIVE = "-march=native"
FLAGS = ("-O3", NATIVE, "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
LINK = ("-shared", "-fPIC", "-lm", "-lpthread")
SECONDS_TO_COMPILE = 120
KERNELS = ("auto", "native", "torch")


class NoKernelError(Exception):
    """Why the C kernel cannot be used here; the text is shown to the user by `scratchlm doctor`."""


def chosen_kernel() -> str:
    """`$SCRATCHLM_KERNEL`: auto (the default), native or torch.

    Raises: ConfigError for another value.
    """
    name = os.environ.get("SCRATCHLM_KERNEL", "auto") or "auto"
    if name not in KERNELS:
        raise ConfigError(
            f"SCRATCHLM_KERNEL must be auto, native or torch, got {name!r}; choose one of them."
        )
    return name


@functools.cache
def kernel_library() -> ctypes.CDLL:
    """Load the compiled kernel, after compiling it if this machine has not done so yet.

    Raises: NoKernelError without a compiler, on Windows, or when compiling or loading fails.
    """
    if os.name == "nt":
        raise NoKernelError("the C kernel is built with a Unix compiler")
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(compiler[0]) is None:
        raise NoKernelError(f"there is no C compiler ({compiler[0]!r} is not on PATH)")
    try:
        return ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, DataError) as cause:
        raise NoKernelError(f"the compiled kernel could not be used: {cause}") from cause


def _compiled(compiler: list[str]) -> Path:
    """The path of the compiled library, named by everything that decides its content."""
    source = SOURCE.read_bytes()
    key = hashlib.sha256(source + repr((compiler, FLAGS, LINK, _processor())).encode()).hexdigest()[:20]
    target = cache_folder() / "kernels" / f"decode-{key}.so"
    if not target.is_file():
        make_parent(target)
        logger.info("compiling the decoding kernel for this processor (once, a few seconds)")
        with new_file(target) as partial:  # another process sees a whole library or none
            try:
                _compile([*compiler, *FLAGS], partial)
            except NoKernelError:  # some compilers do not know this processor
                _compile([*compiler, *(flag for flag in FLAGS if flag != NATIVE)], partial)
    remove_partials(target.parent, of=target.name)  # of a compiler that outlived its killed parent
    return target


def _compile(command: list[str], target: Path) -> None:
    command = [*command, str(SOURCE), "-o", str(target), *LINK]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS_TO_COMPILE)
    except subprocess.CalledProcessError as cause:
        first = cause.stderr.strip().splitlines()[:1] or [f"exit status {cause.returncode}"]
        raise NoKernelError(f"{command[0]} failed: {first[0]}") from cause
    except subprocess.TimeoutExpired as cause:
        raise NoKernelError(f"{command[0]} took over {SECONDS_TO_COMPILE} s") from cause


def _processor() -> str:
    """What tells processors apart: the cache folder may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kept)}))
