"""Print the help of a command: `--help` shows the common flags in groups, `--help-all` every flag."""

import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import fields

import tyro

from scratchlm.cli.commands import EVERYDAY


class FlagHelp(typing.NamedTuple):
    """A flag or positional argument as shown in the help."""

    flag: str  # "" for a positional argument
    value: str  # its kind of value: `INT`, `{auto,cpu,cuda,mps}`
    text: str


def short_help(cls: type, full: str, *, prog: str, command: str, shared: type) -> str:
    """Format usage, description, example and the common flags; `full` is the parser's own help in one column.

    `shared` is the dataclass whose flags every command has.
    """
    entries = list(_entries(full))
    positional = [entry for entry in entries if not entry.flag]
    flags = {entry.flag: entry for entry in entries if entry.flag}
    of_all = [f"--{field.name}" for field in fields(shared)]
    groups = {title: chosen.split() for title, chosen in EVERYDAY.get(command, {}).items()}
    if not groups:
        groups = {"flags": [flag for flag in flags if flag not in (*of_all, "-h,")]}
    shown = {flag for chosen in groups.values() for flag in chosen}
    groups["flags of every command"] = [flag for flag in of_all if flag in flags and flag not in shown]
    names = [
        f"{name.upper()}..." if takes_many else name.upper()
        for name, takes_many in positional_fields(cls).items()
    ]
    usage = " ".join(["usage:", prog, *names, "[flags]"])
    sections = [usage, inspect.cleandoc(cls.__doc__ or "")]
    if positional:
        sections.append(_section("arguments", list(zip(names, (entry.text for entry in positional)))))
    for title, chosen in groups.items():
        rows = [(f"{flag} {flags[flag].value}".strip(), flags[flag].text) for flag in chosen]
        if rows:
            sections.append(_section(title, rows))
    n_hidden = len(flags) - 1 - sum(map(len, groups.values()))  # without the line of --help itself
    more = f"{n_hidden} more flags" if n_hidden > 0 else "defaults of every flag"
    return "\n\n".join([*sections, f"`{prog} --help-all` shows {more}."])


def _entries(full: str) -> Iterator[FlagHelp]:
    """Read the flags of the parser's help: `  --flag VALUE  text`, with a long flag's text on the next line."""
    for found in re.finditer(r"^  ([-\[{].*)((?:\n {3,}\S.*)*)", full, re.MULTILINE):
        invocation, _, text = re.sub(r"\s{2,}", "\t", found[1].strip(), count=1).partition("\t")
        flag, _, value = invocation.partition(" ")
        if not flag.startswith("-"):
            flag, value = "", invocation
        value = value.replace("{None}|", "").replace("{None,", "{")
        value = re.sub(r"\[(\S+) \[.*", r"\1 ...", value)
        text = " ".join([text, *found[2].split()]).strip()
        yield FlagHelp(flag, value, re.sub(r" ?\(default: (None|False|True|''|)\)$", "", text))


def positional_fields(cls: type) -> dict[str, bool]:
    """The fields that are positional arguments of a command, and whether each takes several values."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.name: typing.get_origin(typing.get_args(hints[field.name])[0]) is tuple
        for field in fields(cls)
        if tyro.conf.Positional in getattr(hints[field.name], "__metadata__", ())
    }


def _section(title: str, rows: list[tuple[str, str]]) -> str:
    """Rows of flag and text below a heading, wrapped to the terminal."""
    width = min(26, max(len(left) for left, _ in rows))
    columns = max(60, min(110, shutil.get_terminal_size().columns))
    lines = [f"{title}:"]
    for left, text in rows:
        indent = " " * (width + 4)
        wrapped = textwrap.wrap(text, columns - len(indent)) or [""]
        if len(left) > width:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left:<{width}}  {wrapped.pop(0)}")
        lines += [f"{indent}{line}" for line in wrapped]
    return "\n".join(line.rstrip() for line in lines)
