"""`scratchlm doctor`: what is here, and what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import psutil
import torch
from rich.console import Console

from scratchlm import __version__
from scratchlm.assets.registry import ASSETS, asset_path, cache_folder
from scratchlm.cli.parsing import Common, run_command
from scratchlm.core.errors import DataError

OPTIONAL = {
    "pyarrow": "hub",
    "sklearn": "eval",
    "ollama": "eval",
    "openai": "eval",
    "gguf": "gguf",
    "onnx": "onnx",
    "pandas": "book",
    "wandb": "track",
    "mlflow": "track",
    "trackio": "track",
}  # module: the extra that brings it


@dataclass(frozen=True, kw_only=True)
class Doctor(Common):
    """Show versions, devices, threads, caches, and which optional parts are missing.

    Example: scratchlm doctor
    """


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(Doctor, _act, args, prog=prog)


def _act(command: Doctor, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Look around and print; returns the `--json` keys."""
    memory = psutil.virtual_memory()
    found: dict[str, Any] = {
        "scratchlm": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": psutil.cpu_count(logical=True),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory.total / 2**30, 1),
        "memory_free_gib": round(memory.available / 2**30, 1),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cache": str(cache_folder()),
        "assets_folder": os.environ.get("SCRATCHLM_ASSETS"),
        "assets_here": [asset.id for asset in ASSETS if _is_here(asset.id)],
        "assets_missing": [asset.id for asset in ASSETS if not _is_here(asset.id)],
        "missing_extras": sorted(
            {extra for module, extra in OPTIONAL.items() if importlib.util.find_spec(module) is None}
        ),
    }
    if not command.json:
        for name, value in found.items():
            shown = ", ".join(value) or "none" if isinstance(value, list) else value
            print(f"{name.replace('_', ' '):>16}: {shown}")
        if found["missing_extras"]:
            print(f"install what is missing: pip install 'scratchlm[{','.join(found['missing_extras'])}]'")
        if found["assets_missing"]:
            print("fetch missing data: scratchlm data fetch --all")
    return found


def _is_here(name: str) -> bool:
    try:
        asset_path(name)
    except DataError:
        return False
    return True
