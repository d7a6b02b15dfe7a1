"""Which linear layers of a model get a correction: chosen by name."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError

EVERY_LINEAR = ("*",)
EVERY_LINEAR_IN_BLOCKS = ("trf_blocks.*",)  # all but the output head, as most people do it
REGEX = "re:"  # begins a pattern that is a regular expression


class Place(NamedTuple):
    """A linear layer, and where it stands in its model."""

    parent: nn.Module
    attribute: str  # the layer's name in its parent
    name: str  # its dotted name in the model
    linear: nn.Module


def is_linear(module: object) -> bool:
    """Does it say how many numbers it takes and gives, as `nn.Linear` and quantized layers do?"""
    return all(isinstance(getattr(module, side, None), int) for side in ("in_features", "out_features"))


def widths(linear: nn.Module) -> tuple[int, int]:
    """How many numbers a linear layer takes and gives.

    Raises: ConfigError for a module that does not say.
    """
    if not is_linear(linear):
        raise ConfigError(
            f"a correction needs a layer with in_features and out_features, found {type(linear).__name__}; "
            "choose linear layers."
        )
    sides = linear.in_features, linear.out_features
    assert isinstance(sides[0], int)
    assert isinstance(sides[1], int)
    return sides[0], sides[1]


def chosen_places(model: nn.Module, targets: Sequence[str]) -> list[Place]:
    """The linear layers whose names match one of the patterns, in the model's own order.

    A pattern is the end of a dotted name, with `*` and `?` for what is left open: `W_query` takes those of
    all blocks, `trf_blocks.0.*` all of one block. After `re:` it is a regular expression for the whole name.
    Raises: ConfigError for a model without linear layers, no pattern, a broken expression, and a pattern that
        matches nothing, with the nearest name that there is.
    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> [place.name for place in chosen_places(model, ["2"])]
        ['2']
    """
    places = list(_linear_layers(model))
    if not places:
        raise ConfigError("the model should hold linear layers, found none; give the whole model.")
    if not targets:
        raise ConfigError("LoRA needs layers to correct, found no target named; '*' takes all of them.")
    chosen: set[str] = set()
    for pattern in targets:
        found = {place.name for place in places if _matches(pattern, place.name)}
        if not found:
            raise ConfigError(
                f"a LoRA target must name linear layers of the model, found none for {pattern!r}; "
                f"{nearest(pattern, {place.attribute for place in places})}"
            )
        chosen |= found
    return [place for place in places if place.name in chosen]


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith(REGEX):
        try:
            return re.fullmatch(pattern.removeprefix(REGEX), name) is not None
        except re.error as cause:
            raise ConfigError(
                f"a LoRA target after {REGEX} must be a regular expression, got {pattern!r} ({cause}); repair it."
            ) from cause
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")


def _linear_layers(parent: nn.Module, prefix: str = "") -> Iterator[Place]:
    """Each linear layer with its place, depth first: the book's order of random draws."""
    for attribute, child in parent.named_children():
        name = f"{prefix}{attribute}"
        if is_linear(child):
            yield Place(parent, attribute, name, child)
        else:
            yield from _linear_layers(child, f"{name}.")
