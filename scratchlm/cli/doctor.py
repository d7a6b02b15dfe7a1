"""`scratchlm doctor`: show versions, devices, caches, and what is missing."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from scratchlm import __version__
from scratchlm.assets.cache_folder import cache_folder
from scratchlm.assets.known_datasets import ASSETS
from scratchlm.assets.registry import is_here
from scratchlm.cli.parsing import Common, command_line
from scratchlm.core.matrix_product import product_library
from scratchlm.generation.native.compile import NoKernelError, chosen_kernel, kernel_library

EXTRAS = {  # of the package, and the modules that each installs
    "book": ("pandas",),
    "constrained": ("llguidance",),
    "eval": ("sklearn", "ollama", "openai"),
    "gguf": ("gguf",),
    "hub": ("pyarrow",),
    "onnx": ("onnx",),
    "serve": ("fastapi", "uvicorn"),
    "track": ("wandb", "mlflow", "trackio"),
}


@dataclass(frozen=True, kw_only=True)
class Doctor(Common):
    """Show versions, devices, threads, caches, and which optional packages are missing.

    Example: scratchlm doctor
    """


@command_line(Doctor)
def main(command: Doctor, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Collect and print the information; returns the `--json` keys."""
    memory = psutil.virtual_memory()
    found: dict[str, Any] = {
        "scratchlm": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": psutil.cpu_count(logical=True),
        "threads": torch.get_num_threads(),
        "matrix_products": product_library(),
        "decoding_kernel": _decoding_kernel(),
        "memory_gib": round(memory.total / 2**30, 1),
        "memory_free_gib": round(memory.available / 2**30, 1),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cache": str(cache_folder()),
        "assets_folder": os.environ.get("SCRATCHLM_ASSETS"),
        "assets_here": [asset.id for asset in ASSETS if is_here(asset.id)],
        "assets_missing": [asset.id for asset in ASSETS if not is_here(asset.id)],
        "missing_extras": [extra for extra, modules in EXTRAS.items() if not all(map(find_spec, modules))],
    }
    for name, value in found.items():
        shown = ", ".join(value) or "none" if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):>16}: {shown}")
    if found["missing_extras"]:
        print(f"install the missing extras: pip install 'scratchlm[{','.join(found['missing_extras'])}]'")
    if found["assets_missing"]:
        print("fetch the small data files: scratchlm data fetch --all")
    return found


def _decoding_kernel() -> str:
    if chosen_kernel() == "torch":
        return "torch (SCRATCHLM_KERNEL says so)"
    try:
        library = kernel_library()
    except NoKernelError as reason:
        return f"torch, since {reason}"
    return f"native ({Path(library._name).name}, compiled for this processor)"
