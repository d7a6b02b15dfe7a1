"""Find numbers that are not finite, which end a training before they are saved."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from scratchlm.core.errors import NonFiniteLossError
from scratchlm.training.shards import own_rows


def find_not_finite(tensors: Mapping[str, Tensor]) -> tuple[str, float] | None:
    """The name of the first tensor with NaN or infinity, and that value; None when all are finite.

    Of a sharded tensor this rank's rows are checked.
    """
    for name, tensor in ((name, own_rows(tensor)) for name, tensor in tensors.items()):
        if tensor.is_floating_point() and not bool((is_finite := tensor.isfinite()).all()):
            return name, float(tensor[~is_finite].flatten()[0])
    return None


def not_finite(what: str, value: float, *, step: int, where: str, run: Path | None) -> NonFiniteLossError:
    """The error for a loss, gradient or state of a step; `run` is the folder of the run."""
    kept = f"; the files in {run} are unchanged" if run else ""
    return NonFiniteLossError(
        f"the {what} of step {step} is not finite: {value} at {where}. Training stopped{kept}. "
        "Lower the learning rate or look at that batch."
    )
