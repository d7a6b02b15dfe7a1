"""The commands, read from commands.toml."""

from typing import NamedTuple

from scratchlm.core.toml_tables import package_table


class Entry(NamedTuple):
    """One command."""

    module: str  # module with `main(args, prog=...)`; imported only when the command runs
    summary: str
    group: str  # heading in `scratchlm --help`


TABLE = package_table("scratchlm.cli", "commands.toml")
COMMANDS: dict[tuple[str, ...], Entry] = {
    tuple(name.split()): Entry(f"scratchlm.cli.{name.replace(' ', '_')}", summary, group)
    for group, commands in TABLE["groups"].items()
    for name, summary in commands.items()
}
REMOVED: dict[str, str] = TABLE["removed"]  # commands of earlier versions -> their replacements
OUT_OF_MEMORY: dict[str, str] = TABLE["out_of_memory"]  # command -> settings to lower
EVERYDAY: dict[str, dict[str, str]] = TABLE["everyday"]  # command -> heading of its short help -> flags
OUT_OF_MEMORY_ELSEWHERE = "use a smaller model or less data, or close other programs"


def command_name(prog: str) -> str:
    """The command's name in `scratchlm run quickstart` (`run`); "" for a program that is not in the table."""
    words = prog.split()[1:]
    return next((" ".join(words[:n]) for n in (2, 1) if tuple(words[:n]) in COMMANDS), "")
