"""Record the versions, threads and system that results can depend on."""

import contextlib
import importlib.metadata
import platform

import torch

LIBRARIES = ("numpy", "safetensors", "tiktoken", "tokenizers")  # beside torch


def versions() -> dict[str, str]:
    """Library versions, threads and system; an optional library that is not installed is left out."""
    libraries = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            libraries[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **libraries,
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def device_name(device: torch.device) -> str:
    """The kind of device, with a GPU's name."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
