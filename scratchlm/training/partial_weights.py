"""Checkpoints of a model of which only a part learns, and which is saved in another form than it is trained in.

With LoRA the saved model holds merged weights, so that anyone can load it. Sums cannot be taken apart again to the
last bit, so the learning weights themselves lie in the training state; the frozen rest comes from the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from scratchlm.core.errors import CheckpointError

PREFIX = "weights."


def learning_weights(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The learning weights as named tensors of a training state, e.g. `weights.out_head.lora.A`."""
    return {f"{PREFIX}{name}": weight for name, weight in weights.items()}


@torch.no_grad()
def restore_learning_weights(
    weights: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], *, where: Path
) -> None:
    """Take up what `learning_weights` saved, in place.

    Raises: CheckpointError when other weights learned then than do now, or of other shapes; nothing is changed.
    """
    saved = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
    then = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    now = {name: tuple(weight.shape) for name, weight in weights.items()}
    if then != now:
        differing = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        raise CheckpointError(
            f"{where} should hold the weights that learn here, found {differing[0]} to be {then.get(differing[0])} "
            f"there and {now.get(differing[0])} here ({len(differing)} differ); resume with the settings of the "
            "first start."
        )
    for name, weight in weights.items():
        weight.copy_(saved[name])
