"""Convert settings between dataclasses and plain dictionaries, and check every value."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Union

from scratchlm.core.errors import ConfigError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a config dataclass and those in it to plain dictionaries; None is left out (TOML has none)."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            plain[field.name] = to_dict(value)
        elif isinstance(value, tuple):
            plain[field.name] = list(value)
        elif value is not None:
            plain[field.name] = value
    return plain


def from_dict(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build a config dataclass from a dictionary such as a TOML table.

    Raises: ConfigError naming `where` and the field for an unknown name (with the nearest known one), a value
    of the wrong type, or a missing field that has no default.
    """
    hints = _hints(cls)  # type: ignore[arg-type]
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for name, value in with_new_names(cls, values).items():
        if name not in fields:
            raise ConfigError(f"{where} has no setting {name!r}; {nearest(name, fields)}")
        arguments[name] = _convert(hints[name], value, where=f"{where}.{name}")
    for name, field in fields.items():
        is_required = field.default is field.default_factory is dataclasses.MISSING
        if name not in arguments and is_required:
            raise ConfigError(f"{where} needs a value for {name!r}; add it.")
    return cls(**arguments)


def with_new_names(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename settings from files of earlier versions, as the class attribute `OLD_NAMES` lists them."""
    new_names: Mapping[str, str] = getattr(cls, "OLD_NAMES", {})
    return {new_names.get(name, name): value for name, value in values.items()}


def check_at_least(minimum: int, **settings: float | None) -> None:
    """Reject named settings below a minimum; None means that a setting is left out.

    Raises: ConfigError.
    Example:
        >>> check_at_least(1, batch_size=0)
        Traceback (most recent call last):
        ...
        scratchlm.core.errors.ConfigError: batch_size must be at least 1, got 0; raise it.
    """
    for name, value in settings.items():
        if value is not None and not value >= minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {value}; raise it.")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known)}."


@functools.lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)  # compiling the annotations takes time


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    """Check a plain value against a type hint; lists become tuples, tables become dataclasses."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _convert(typing.get_args(hint)[0], value, where=where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table of settings, got {value!r}.")
        return from_dict(hint, value, where=where)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where=where)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{where} must be one of {', '.join(map(repr, choices))}, got {value!r}.")
        return value
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        item_hint = typing.get_args(hint)[0]
        return origin(_convert(item_hint, item, where=f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_bool_for_number = isinstance(value, bool) and hint is not bool
    is_plain = origin is None and isinstance(hint, type)  # on Python 3.10 tuple[str, ...] is a type too
    if hint is Any or (is_plain and isinstance(value, hint) and not is_bool_for_number):
        return value
    wanted = "a list" if origin in (tuple, list) else getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where} must be {wanted}, got {value!r} ({type(value).__name__}).")


def _convert_union(hint: Any, value: Any, *, where: str) -> Any:
    choices = typing.get_args(hint)
    for choice in choices:
        if choice is type(None):
            if value is None:
                return None
            continue
        try:
            return _convert(choice, value, where=where)
        except ConfigError:
            continue
    names = [getattr(choice, "__name__", str(choice)) for choice in choices if choice is not type(None)]
    wanted = " or ".join(names)
    raise ConfigError(f"{where} must be {wanted}, got {value!r}.")
