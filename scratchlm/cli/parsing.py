"""Parse flags into a command's dataclass, run the command, and report invalid flags in one line."""

import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import tyro
from rich.console import Console

from scratchlm.cli import terminal
from scratchlm.cli.arguments import HELP_FLAGS, MARK, given_twice, ready_to_parse, without_marks
from scratchlm.cli.commands import command_name
from scratchlm.cli.help import short_help
from scratchlm.cli.next_steps import suggested_command
from scratchlm.cli.streams import PrintableStream, behind
from scratchlm.core.device import DeviceName, set_threads
from scratchlm.core.errors import ConfigError
from scratchlm.core.launch import is_follower
from scratchlm.core.seed import check_seed, seed_everything
from scratchlm.training.interrupts import StoppedBySignal, process_signals

C = TypeVar("C", bound="Common")
Main: TypeAlias = Callable[..., int]  # a command's main(args, prog=...), which returns the exit code
OTHER_NAMES = {  # alternative names of flags, from other programs and earlier versions
    "--grad-accumulation": "--accumulate",
    "--trunk-cache": "--activation-cache",
    "--no-trunk-cache": "--no-activation-cache",
    "--trunk-cache-mb": "--activation-cache-mb",
}


@dataclass(frozen=True, kw_only=True)
class Common:
    """Flags that every command has."""

    json: bool = False  # print exactly one JSON object on standard output, nothing else there
    device: DeviceName = "auto"  # where to compute
    seed: int | None = None  # seed of every random draw
    threads: int | None = None  # CPU threads; training leaves out cores that other programs keep busy


def command_line(cls: type[C]) -> Callable[[Callable[[C, Console], dict[str, Any]]], Main]:
    """Turn an action into an entry point that parses its arguments as `cls` and calls `run_command`."""

    def entry_point(action: Callable[[C, Console], dict[str, Any]]) -> Main:
        def main(args: Sequence[str], *, prog: str) -> int:
            return run_command(cls, action, args, prog=prog)

        return main

    return entry_point


def parse_command(cls: type[C], args: Sequence[str], *, prog: str, default: C | None = None) -> C:
    """Build the command's dataclass from its arguments; `--help` and `--help-all` print the help and exit.

    Raises: ConfigError with the parser's message in one line, naming the nearest flag for a misspelt one.
    """
    if asked := HELP_FLAGS.intersection(args):
        _show_help(cls, prog=prog, default=default, every_flag="--help-all" in asked)
    words = ready_to_parse(cls, [_our_name(arg) for arg in args])
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return without_marks(_parsed(cls, words, prog=prog, default=default))
    except SystemExit as stop:
        raise ConfigError(
            f"{_one_line(message.getvalue().replace(MARK, ''))} (`{prog} --help-all` lists every flag)"
        ) from stop


def _parsed(cls: type[C], words: Sequence[str], *, prog: str, default: C | None) -> C:
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs)
    return cast(C, tyro.cli(cls, args=words, prog=prog, default=default, config=config))


def _show_help(cls: type[C], *, prog: str, default: C | None, every_flag: bool) -> None:
    """Print the common flags, or the parser's own help with every flag, and exit."""
    if every_flag:
        with redirect_stdout(behind(sys.stdout)):
            _parsed(cls, ["--help"], prog=prog, default=default)
    full = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "129"  # at most one column of flags
    try:
        with contextlib.suppress(SystemExit), redirect_stdout(full):
            _parsed(cls, ["--help"], prog=prog, default=default)
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    print(short_help(cls, full.getvalue(), prog=prog, command=command_name(prog), shared=Common))
    raise SystemExit(0)


def flag_of(name: str) -> str:
    """The flag of a setting: `--top-k` of `top_k`."""
    return f"--{name.replace('_', '-')}"


def _our_name(arg: str) -> str:
    flag, equals, value = arg.partition("=")
    section, dots, name = flag.removeprefix("--").rpartition(".")  # --classify.grad-accumulation too
    ours = OTHER_NAMES.get(flag_of(name))
    return arg if ours is None else f"--{section}{dots}{ours.removeprefix('--')}{equals}{value}"


def run_command(
    cls: type[C],
    action: Callable[[C, Console], dict[str, Any]],
    args: Sequence[str],
    *,
    prog: str,
    default: C | None = None,
) -> int:
    """Parse the arguments and run the action, which prints its result and returns it as the `--json` object.

    With --json the object is printed instead of what the action prints. Progress, notes and the suggested next
    command go to standard error.
    """
    command = parse_command(cls, args, prog=prog, default=default)
    console = terminal.console(stderr=True)
    console.quiet = is_follower()  # with torchrun only rank 0 shows progress and prints results
    notes = PrintableStream(sys.stderr)
    logging.basicConfig(level=logging.WARNING, format="scratchlm: %(message)s", stream=notes, force=True)
    for note in given_twice(cls, [_our_name(arg) for arg in args]):
        console.print(f"scratchlm: {note}")
    if command.threads is not None:
        set_threads(command.threads)
    if command.seed is not None:
        seed_everything(check_seed(command.seed))
    try:
        is_silent = command.json or is_follower()
        with process_signals.unwinding(), _no_output() if is_silent else contextlib.nullcontext():
            result = action(command, console)
    except StoppedBySignal as stop:
        console.print(f"scratchlm: {stop}")
        return stop.exit_code
    if is_follower():
        return 0
    if command.json:
        print(json.dumps(result, allow_nan=False))  # in ASCII, which every locale can print
    elif step := suggested_command(command_name(prog), vars(command), result):
        console.print(f"next: {step}")
    return 0


def required(command: Common, what: str, *names: str) -> list[Any]:
    """The values of flags that a command needs; when one is missing, a ConfigError that begins with `what`."""
    values = [getattr(command, name) for name in names]
    for name, value in zip(names, values):
        if value is None or value == ():
            raise ConfigError(f"{what}; add {flag_of(name)}.")
    return values


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    with Path(os.devnull).open("w", encoding="utf-8", errors="replace") as nowhere, redirect_stdout(nowhere):
        yield


def _sorted_choices(found: re.Match[str]) -> str:
    """Sort choices, which tyro lists in arbitrary order, and remove the None of optional flags."""
    choices = sorted(choice for choice in found[1].split(", ") if choice != "'None'")
    return f"Expected one of {', '.join(choices)}"


def _one_line(box: str) -> str:
    """Extract the message and the nearest flags from tyro's error text, which in a terminal is framed and coloured."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"^[╭╰│]\s*|\s*[╮╯│]$", "", raw.strip()).strip() for raw in box.splitlines()]
    sections: list[list[str]] = [[]]
    for line in [line for line in lines if line][1:]:  # lines below the title
        if re.fullmatch(r"[─-]{10,}", line):
            sections.append([])
        else:
            sections[-1].append(line)
    sections = [section for section in sections if section] or [["the arguments could not be read"]]
    sections[0][0] = re.sub(r"^Error parsing \w+: ", "", sections[0][0])  # the name of a class of ours
    message = sections[0][: sections[0].index("Got errors:")] if "Got errors:" in sections[0] else sections[0]
    text = re.sub(r"Expected one of \(([^()]*)\)", _sorted_choices, " ".join(message).rstrip("."))
    words = [line.split(" ")[0] for section in sections[1:] for line in section]
    flags = list(dict.fromkeys(word for word in words if word.startswith("--")))
    if flags and text.startswith("Unrecognized options"):
        text += f"; did you mean {' or '.join(flags)}?"
    return text if len(text) <= 400 else f"{text[:400]}..."
