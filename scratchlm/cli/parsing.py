"""Flags to dataclasses: every setting is a field, and a mistake is one line."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import tyro
from rich.console import Console

from scratchlm.cli import terminal
from scratchlm.cli.arguments import MARK, given_twice, ready_to_parse, without_marks
from scratchlm.cli.main import print_json
from scratchlm.cli.printable_stream import PrintableStream, behind
from scratchlm.core.device import DeviceName, set_threads
from scratchlm.core.errors import ConfigError
from scratchlm.core.seed import check_seed, seed_everything
from scratchlm.training.interrupts import StoppedBySignal, process_signals

C = TypeVar("C", bound="Common")
OTHER_NAMES = {
    "--grad-accumulation": "--accumulate"
}  # flags under the names that other programs have for them


@dataclass(frozen=True, kw_only=True)
class Common:
    """Flags that every command has."""

    json: bool = False  # print exactly one JSON object on standard output, nothing else there
    device: DeviceName = "auto"  # where to compute
    seed: int | None = None  # of everything that is drawn at random
    threads: int | None = None  # CPU threads; 1 is much faster than 2 while another program keeps a core busy


def parse_command(cls: type[C], args: Sequence[str], *, prog: str, default: C | None = None) -> C:
    """Build the command's dataclass from its arguments.

    Raises: ConfigError with the parser's complaint in one line, naming the nearest flag for a misspelt one.
    """
    words = ready_to_parse(cls, [_our_name(arg) for arg in args])
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(behind(sys.stdout)):
            command = tyro.cli(
                cls,
                args=words,
                prog=prog,
                default=default,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs),
            )
            return without_marks(cast(C, command))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(
            f"{_one_line(complaint.getvalue().replace(MARK, ''))} (`{prog} --help` shows every flag)"
        ) from stop


def _our_name(arg: str) -> str:
    flag, equals, value = arg.partition("=")
    section, dots, name = flag.removeprefix("--").rpartition(".")  # --classify.grad-accumulation too
    ours = OTHER_NAMES.get(f"--{name.replace('_', '-')}")
    return arg if ours is None else f"--{section}{dots}{ours.removeprefix('--')}{equals}{value}"


def run_command(
    cls: type[C],
    action: Callable[[C, Console], dict[str, Any]],
    args: Sequence[str],
    *,
    prog: str,
    default: C | None = None,
) -> int:
    """Parse, act, and with --json print what the action returned; without it the action itself has printed.

    Everything that is not the result, progress and notes, goes to standard error.
    """
    command = parse_command(cls, args, prog=prog, default=default)
    console = terminal.console(stderr=True)
    notes = PrintableStream(sys.stderr)
    logging.basicConfig(level=logging.WARNING, format="scratchlm: %(message)s", stream=notes, force=True)
    for note in given_twice(cls, [_our_name(arg) for arg in args]):
        console.print(f"scratchlm: {note}", markup=False, soft_wrap=True)
    if command.threads is not None:
        set_threads(command.threads)
    if command.seed is not None:
        seed_everything(check_seed(command.seed))
    try:
        with process_signals.unwinding():
            result = action(command, console)
    except StoppedBySignal as stop:
        console.print(f"scratchlm: {stop}", markup=False, soft_wrap=True)
        return stop.exit_code
    if command.json:
        print_json(result)
    return 0


def _sorted_choices(found: re.Match[str]) -> str:
    """tyro lists the choices in the order of a set, and None for a flag that may be left out."""
    choices = sorted(choice for choice in found[1].split(", ") if choice != "'None'")
    return f"Expected one of {', '.join(choices)}"


def _one_line(box: str) -> str:
    """The words of tyro's framed complaint, and the nearest flags, without frame and help text."""
    lines = [re.sub(r"^[╭╰│]\s*|\s*[╮╯│]$", "", raw.strip()).strip() for raw in box.splitlines()]
    sections: list[list[str]] = [[]]
    for line in [line for line in lines if line][1:]:  # below the title
        if re.fullmatch(r"[─-]{10,}", line):
            sections.append([])
        else:
            sections[-1].append(line)
    sections = [section for section in sections if section] or [["the arguments could not be read"]]
    sections[0][0] = re.sub(r"^Error parsing \w+: ", "", sections[0][0])  # a class of ours: no name for users
    said = sections[0][: sections[0].index("Got errors:")] if "Got errors:" in sections[0] else sections[0]
    text = re.sub(r"Expected one of \(([^()]*)\)", _sorted_choices, " ".join(said).rstrip("."))
    words = [line.split(" ")[0] for section in sections[1:] for line in section]
    flags = list(dict.fromkeys(word for word in words if word.startswith("--")))
    if flags and text.startswith("Unrecognized options"):
        text += f"; did you mean {' or '.join(flags)}?"
    return text if len(text) <= 400 else f"{text[:400]}..."
