"""Evaluate a model without changing its training mode."""

import contextlib
import threading
import weakref
from collections.abc import Iterator

import torch
from torch import nn

_lock = threading.Lock()
# Number of open blocks that keep each module in evaluation mode; modules that were already in it are not listed.
_n_users: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Turn dropout and gradients off inside the block, and restore every module's mode afterwards.

    Blocks for one model may be nested and may overlap in several threads: the last one to end restores the modes.

    Example:
        >>> layer = nn.Dropout(0.5)
        >>> with evaluation_mode(layer):
        ...     print(layer.training, torch.is_grad_enabled())
        False False
        >>> layer.training
        True
    """
    modules = list(model.modules())
    with _lock:
        held = [module for module in modules if module.training or module in _n_users]
        for module in held:
            _n_users[module] = _n_users.get(module, 0) + 1
            module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        with _lock:
            for module in held:
                _n_users[module] -= 1
                if _n_users[module] == 0:
                    del _n_users[module]
                    module.training = True
