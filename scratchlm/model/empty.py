"""Build a model without numbers: only names, shapes and types, in no time and no memory."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def empty_weights() -> Iterator[None]:
    """Inside the block new layers have no numbers (torch's meta device), and initialisation is skipped.

    Torch computes even the random numbers of empty tensors, through a compiler that takes seconds to import.
    """
    with torch.device("meta"), _NoInitialisation():
        yield


class _NoInitialisation(TorchFunctionMode):
    """Skips the functions of torch.nn.init."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
