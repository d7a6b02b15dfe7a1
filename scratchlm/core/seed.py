"""Seed random generators, and save and restore their state."""

import random

import numpy as np
import torch
from torch import Tensor

from scratchlm.core.errors import CheckpointError, ConfigError


def seed_everything(seed: int) -> None:
    """Seed torch's, NumPy's and Python's global generators; only commands and tests call this."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def check_seed(seed: int) -> int:
    """Check a seed and return it.

    Raises: ConfigError for a seed below 0 or above 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed must be a whole number from 0 to 2**63 - 1, got {seed}; choose another.")
    return seed


def generator(seed: int) -> torch.Generator:
    """A new generator, so that drawing from it does not change other random numbers."""
    return torch.Generator().manual_seed(seed)


def rng_state() -> dict[str, Tensor]:
    """The state of torch's generators, CPU and every CUDA device, on which dropout depends."""
    state = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state |= {f"rng.cuda.{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return state


def restore_rng_state(state: dict[str, Tensor]) -> None:
    """Restore what `rng_state` returned; states of devices that this machine lacks are ignored.

    Raises: CheckpointError when the CPU's state is missing.
    """
    if "rng.cpu" not in state:
        raise CheckpointError("the training state has no rng.cpu; use another checkpoint.")
    torch.set_rng_state(state["rng.cpu"])
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"rng.cuda.{i}" in state:
            torch.cuda.set_rng_state(state[f"rng.cuda.{i}"], device=i)
