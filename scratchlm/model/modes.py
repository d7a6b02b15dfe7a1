"""Looking at a model without disturbing it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off and no gradients inside the block; afterwards every module is in the mode it was in before.

    Example:
        >>> layer = nn.Dropout(0.5)
        >>> with evaluation_mode(layer):
        ...     print(layer.training, torch.is_grad_enabled())
        False False
        >>> layer.training
        True
    """
    were_training = [module for module in model.modules() if module.training]
    for module in were_training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in were_training:
            module.training = True
