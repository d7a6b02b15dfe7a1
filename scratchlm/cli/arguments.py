"""Prepare arguments for the parser: merge repeated flags, of which it would keep only the last."""

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

from scratchlm.core.errors import ConfigError

T = TypeVar("T")
Kind = Literal["list", "value", "switch"]  # the number of values a flag takes: any, one, or none
MARK = "\ue000"  # a private-use character put before a value that begins with "-", which looks like a flag
HELP_FLAGS = frozenset({"-h", "--help", "--help-all"})
FLAG = re.compile(r"(--[A-Za-z][\w.-]*)(=.*)?", re.DOTALL)
NUMBER = re.compile(r"-[0-9.]+(e[+-]?[0-9]+)?", re.IGNORECASE)


@dataclass
class _Given:
    """A flag on the command line with the arguments up to the next flag."""

    flag: str  # "" for the arguments before the first flag
    values: list[str]
    is_joined: bool  # `--flag=value`

    def words(self) -> list[str]:
        """The arguments as the user wrote them."""
        if self.is_joined:
            return [f"{self.flag}={self.values[0]}", *self.values[1:]]
        return [self.flag, *self.values] if self.flag else self.values


def ready_to_parse(cls: type, args: Sequence[str]) -> list[str]:
    """Join repeated lists (`--data a --data b` becomes `--data a b`) and keep the last of a repeated value.

    A value that begins with a dash, such as the prompt in `--prompt "- milk"`, gets a prefix, which
    `without_marks` removes.
    """
    kinds = flag_kinds(cls)
    kept: dict[str, _Given] = {}
    for number, given in enumerate(_split(args)):
        kind = kinds.get(_plain(given.flag), "switch")
        name = _plain(given.flag) if kind != "switch" else f"{number}"  # switches may be repeated
        given.values = [
            _marked(value) if (i == 0 and kind != "switch") or re.search(r"\s", value) else value
            for i, value in enumerate(given.values)
        ]
        if kind == "list" and name in kept:
            kept[name].values += given.values
        else:
            kept[name] = given
    return [word for given in kept.values() for word in given.words()]


def given_twice(cls: type, args: Sequence[str]) -> list[str]:
    """A note for each single-valued flag that was given several values: the last one is used."""
    kinds = flag_kinds(cls)
    values: dict[str, list[str]] = {}
    for given in _split(args):
        if kinds.get(_plain(given.flag)) == "value":
            values.setdefault(_plain(given.flag), []).append(" ".join(given.values[:1]))
    return [
        f"{flag} was given {len(found)} times; the last value is used: {found[-1]}"
        for flag, found in values.items()
        if len(set(found)) > 1
    ]


def take_name(cls: type, args: Sequence[str]) -> tuple[str | None, list[str]]:
    """Separate the single argument that belongs to no flag, at any position, from the other arguments.

    A flag that takes a list, or an unknown flag, takes every argument up to the next flag.
    Raises: ConfigError for two such arguments.
    """
    kinds = flag_kinds(cls) | dict.fromkeys(HELP_FLAGS, "switch")
    n_taken = {"switch": 0, "value": 1, "list": len(args)}
    names: list[str] = []
    rest: list[str] = []
    for given in _split(args):
        n_values = n_taken[kinds.get(_plain(given.flag), "list" if given.flag else "switch")]
        names += given.values[n_values:]
        given.values = given.values[:n_values]
        rest += given.words()
    if len(names) > 1:
        raise ConfigError(f"the command takes one name, got {' and '.join(names)}; remove all but one.")
    return (names[0] if names else None), rest


def value_of(flag: str, args: Sequence[str]) -> str | None:
    """The value of a flag, found before parsing; the last if there are several."""
    found = [given.values[0] for given in _split(args) if _plain(given.flag) == flag and given.values]
    return found[-1] if found else None


def _split(args: Sequence[str]) -> list[_Given]:
    found = [_Given("", [], False)]
    for arg in args:
        flag = FLAG.fullmatch(arg)
        if flag is not None:
            name, value = flag.groups()
            found.append(_Given(name, [] if value is None else [value[1:]], value is not None))
        elif arg == "-h":
            found.append(_Given(arg, [], False))
        else:
            found[-1].values.append(arg)
    return found


def flag_kinds(cls: type) -> dict[str, Kind]:
    """The flags of a command's dataclass, including those of nested dataclasses, and their kinds of value."""
    kinds: dict[str, Kind] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], f"--{field.name}"
        extras = getattr(hint, "__metadata__", ())
        hint = typing.get_args(hint)[0] if extras else hint
        if dataclasses.is_dataclass(hint):
            is_inlined = any(getattr(extra, "name", None) == "" for extra in extras)
            prefix = "--" if is_inlined else f"{name}."
            kinds |= {
                _plain(prefix + key.removeprefix("--")): kind
                for key, kind in flag_kinds(cast(type, hint)).items()
            }
        else:
            kinds[_plain(name)] = _kind(hint)
            if hint is bool:
                kinds[_plain(f"--no-{field.name}")] = "switch"
    return kinds


def _kind(hint: Any) -> Kind:
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    choices = typing.get_args(hint) if is_union else (hint,)
    if any(typing.get_origin(choice) in (tuple, list) for choice in choices):
        return "list"
    return "switch" if hint is bool else "value"


def _plain(flag: str) -> str:
    return flag.replace("_", "-")


def _marked(value: str) -> str:
    needs_mark = value.startswith(("-", MARK)) and value != "-" and not NUMBER.fullmatch(value)
    return MARK + value if needs_mark else value


def without_marks(value: T) -> T:
    """Remove the prefixes that `ready_to_parse` added from a parsed command, or from one of its values."""
    if isinstance(value, str):
        return cast(T, value.removeprefix(MARK))
    if isinstance(value, Path):
        return cast(T, Path(str(value).removeprefix(MARK)))
    if isinstance(value, tuple):
        return cast(T, tuple(map(without_marks, value)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        old = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        new = {name: without_marks(one) for name, one in old.items()}
        return value if new == old else dataclasses.replace(value, **new)
    return value
