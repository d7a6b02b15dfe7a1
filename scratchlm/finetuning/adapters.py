"""Several adapters on one base: the weights are held once, and each request chooses who answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from scratchlm.core.config import nearest
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.finetuning.lora import LinearWithLoRA, home_of
from scratchlm.finetuning.peft_adapter import import_peft, replaced_parts
from scratchlm.model.gpt import GPTModel


class Adapters:
    """A base model and what it may be corrected with, by name.

    Switching exchanges the corrected layers for others around the same weights: nothing is computed or copied,
    and without an adapter the model is the base to the last bit. The model is one object, so that at any moment
    one adapter is in use: answer one request after the other, or give each thread a model of its own.

    Raises: ConfigError for a model that has corrections already.
    Example:
        adapters = Adapters(model)
        adapters.load("poet", "runs/poet/adapter")
        with adapters.using("poet"):
            logits = model(ids)
    """

    def __init__(self, model: GPTModel) -> None:
        if any(isinstance(module, LinearWithLoRA) for module in model.modules()):
            raise ConfigError("the base should have no corrections, found some; call merge_lora first.")
        self.model = model
        self.active: str | None = None  # the adapter in use; None = the base alone
        self._layers: dict[str, dict[str, LinearWithLoRA]] = {}

    @property
    def names(self) -> list[str]:
        """The adapters that can be used, in the order they came."""
        return list(self._layers)

    def load(self, name: str, folder: str | Path) -> int:
        """Read an adapter folder under a name; says how many layers it corrects. What is in use stays so.

        Raises: ConfigError for a name that is taken; CheckpointError for a damaged folder, one of another base, and a
            classifier's, whose head would replace that of all others.
        """
        if name in self._layers:
            raise ConfigError(f"an adapter's name must be new, got {name!r} again; remove the other first.")
        if saved := replaced_parts(folder):
            raise CheckpointError(
                f"{folder} must correct layers only to share the base, got one that replaces {', '.join(saved)}, "
                "such as a classifier's with its own head; load it with import_peft into a model of its own."
            )
        with self.using(None):
            n_layers = import_peft(self.model, folder)
            self._layers[name] = _take_off(self.model)
        return n_layers

    def remove(self, name: str) -> None:
        """Forget an adapter; when it is in use, the base goes on alone.

        Raises: ConfigError for an unknown name.
        """
        self._check(name)
        if self.active == name:
            self.use(None)
        del self._layers[name]

    def use(self, name: str | None) -> None:
        """Answer with this adapter from now on; None for the base alone.

        Raises: ConfigError for an unknown name, with the nearest.
        """
        self._check(name)
        if self.active is not None:
            for path, layer in self._layers[self.active].items():
                _put(self.model, path, layer.linear)
        for path, layer in self._layers.get(name or "", {}).items():
            _follow(layer)
            _put(self.model, path, layer)
        self.active = name

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[GPTModel]:
        """The model with this adapter inside the block, and as before after it.

        Raises: ConfigError for an unknown name, with the nearest.
        """
        earlier = self.active
        self.use(name)
        try:
            yield self.model
        finally:
            self.use(earlier)

    def _check(self, name: str | None) -> None:
        if name is not None and name not in self._layers:
            raise ConfigError(
                f"an adapter must be loaded to be used, got {name!r}; {nearest(name, self._layers)}"
            )


def _follow(layer: LinearWithLoRA) -> None:
    """Go where the base has gone while the adapter was not in use: to its device, and into its mode."""
    device = home_of(layer.linear)[0]
    if layer.lora.A.device != device:
        layer.to(device)
    if layer.training != layer.linear.training:
        layer.train(layer.linear.training)


def _take_off(model: nn.Module) -> dict[str, LinearWithLoRA]:
    """Every corrected layer by its dotted name; the model goes back to its plain layers."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LinearWithLoRA)}
    for path, layer in layers.items():
        _put(model, path, layer.linear)
    return layers


def _put(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, layer)
