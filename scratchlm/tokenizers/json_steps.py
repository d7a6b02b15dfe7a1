"""Read and write the steps of a `tokenizer.json`: its normalizers and pre-tokenizers."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.tokenizers.patterns import Pattern

T = TypeVar("T")
_MAX_DEPTH = 8  # of a Sequence within a Sequence


def read_steps(
    value: Any, kinds: Iterable[type[T]], *, section: str, where: str, depth: int = 0
) -> tuple[T, ...]:
    """Read the steps of a section; nested `Sequence` objects become one tuple.

    Raises: TokenizerError naming a step that is not among `kinds`, or a setting that is unknown or has a wrong value.
    """
    if value is None:
        return ()
    if isinstance(value, dict) and value.get("type") == "Sequence":
        inner = value.get(_list_key(section))
        if isinstance(inner, list) and len(value) == 2 and depth < _MAX_DEPTH:
            read = (
                read_steps(entry, kinds, section=section, where=where, depth=depth + 1) for entry in inner
            )
            return tuple(step for steps in read for step in steps)
    else:
        for kind in kinds:
            if isinstance(value, dict) and value.get("type") == kind.__name__:
                return (_read_step(value, kind, section=section, where=where),)
    raise unsupported(where, section, value)


def write_steps(steps: Sequence[Any], *, section: str) -> dict[str, Any] | None:
    """The section's JSON value: None for no steps, the step itself for one, otherwise a `Sequence`."""
    written = [
        {"type": type(step).__name__}
        | {entry.name: _to_json(getattr(step, entry.name)) for entry in fields(step)}
        for step in steps
    ]
    if len(written) < 2:
        return written[0] if written else None
    return {"type": "Sequence", _list_key(section): written}


def unsupported(where: str, key: str, value: Any) -> TokenizerError:
    """The error for a part of the file that affects ids and that this package does not support."""
    return TokenizerError(
        f"{where} has {key} = {value!r:.160}, which affects the ids and is not supported here; "
        "use the `tokenizers` package for this file."
    )


def _list_key(section: str) -> str:
    return section.replace("_", "") + "s"  # the file has pre_tokenizer, but pretokenizers


def _read_step(value: dict[str, Any], kind: type[T], *, section: str, where: str) -> T:
    arguments: dict[str, Any] = {}
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    kinds = get_type_hints(kind)
    for name, given in value.items():
        if name == "type":
            continue
        if name not in known:
            raise unsupported(where, section, value)
        given = Pattern.from_json(given) if kinds[name] is Pattern else given
        if not isinstance(given, kinds[name] if isinstance(kinds[name], type) else str):  # a Literal is text
            raise unsupported(where, section, value)
        arguments[name] = given
    required = {name for name, entry in known.items() if entry.default is MISSING}
    if not required.union(getattr(kind, "REQUIRED", ())) <= set(arguments):
        raise unsupported(where, section, value)
    try:
        return kind(**arguments)
    except ConfigError as cause:
        raise TokenizerError(f"{where}: {cause}") from cause


def _to_json(value: Any) -> Any:
    return value.to_json() if isinstance(value, Pattern) else value
