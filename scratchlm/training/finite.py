"""Find numbers that are not finite, which are never saved: they end a training, or their step is skipped."""

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from scratchlm.core.errors import NonFiniteLossError
from scratchlm.training.sharded_tensors import own_rows


def find_not_finite(tensors: Mapping[str, Tensor]) -> tuple[str, float] | None:
    """The name of the first tensor with NaN or infinity, and that value; None when all are finite.

    Of a sharded tensor this rank's rows are checked.
    """
    for name, tensor in ((name, own_rows(tensor)) for name, tensor in tensors.items()):
        if tensor.is_floating_point() and not bool((is_finite := tensor.isfinite()).all()):
            return name, float(tensor[~is_finite].flatten()[0])
    return None


def describe(what: str, value: float, *, step: int, where: str) -> str:
    """Say what is not finite: a loss, gradient or state of a step."""
    return f"the {what} of step {step} is not finite: {value} at {where}"


def training_stops(
    problem: str, *, run: Path | None, advice: str = "look at that batch"
) -> NonFiniteLossError:
    """The error for what `describe` says; `run` is the folder of the run."""
    kept = f"; the files in {run} are unchanged" if run else ""
    return NonFiniteLossError(f"{problem}. Training stopped{kept}. Lower the learning rate or {advice}.")


def check_finite(what: str, value: float, step: int, where: str, *, run: Path | None) -> None:
    """Stop the training at a number that is not finite.

    Raises: NonFiniteLossError.
    """
    if not math.isfinite(value):
        raise training_stops(describe(what, value, step=step, where=where), run=run)


def check_finite_state(tensors: Mapping[str, Tensor], *, step: int, run: Path | None) -> None:
    """Stop the training before weights or moments that are not finite are saved.

    Raises: NonFiniteLossError.
    """
    if found := find_not_finite(tensors):
        check_finite("state", found[1], step, found[0], run=run)
