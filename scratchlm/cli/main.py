"""Find the command, run it, and turn errors into one line and an exit code.

A command's module is imported only when the command runs, so that `scratchlm --help` does not import torch.
"""

import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout

from scratchlm import __version__
from scratchlm.cli.commands import COMMANDS, OUT_OF_MEMORY, OUT_OF_MEMORY_ELSEWHERE, REMOVED, Entry
from scratchlm.cli.streams import PrintableStream
from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError, DataError, OutOfMemoryError, ScratchLMError, writing_advice
from scratchlm.core.memory import memory_errors_explained
from scratchlm.core.printable import printable
from scratchlm.training.interrupts import process_signals

MEMORY_RAN_OUT = f"memory ran out; {OUT_OF_MEMORY_ELSEWHERE}."
NO_MEMORY_TO_REPORT = f"scratchlm: error: {MEMORY_RAN_OUT}\n".encode()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (DESIGN: 0, 2, 3, 4, 5, 6, 130, 143).

    For a caller that passes argv, its signal handlers are restored afterwards.
    """
    earlier = process_signals.install()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 shows \xfc
            stream.reconfigure(errors="backslashreplace")
    try:
        with redirect_stdout(PrintableStream(sys.stdout)) if sys.stdout else nullcontext():
            code = _main(list(sys.argv[1:] if argv is None else argv))
    except SystemExit:
        if process_signals.received is None:
            raise
        code = 0  # replaced by the signal's code below
    finally:
        if argv is not None:
            process_signals.remove(earlier)
    return code if process_signals.received is None else 128 + process_signals.received


def _main(args: list[str]) -> int:
    wants_debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    try:
        return _run_and_flush(args)
    except ScratchLMError as error:
        message, exit_code = str(error), error.exit_code
        trace = traceback.format_exc() if wants_debug else ""
    except MemoryError:  # possibly while another error was being reported
        message, exit_code, trace = MEMORY_RAN_OUT, OutOfMemoryError.exit_code, ""
    except KeyboardInterrupt:
        print("scratchlm: stopped.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader, e.g. `head`, has stopped reading
        _drop_output()
        return 0
    except OSError as error:  # e.g. standard output is a full disk
        _drop_output()
        what = f"{error.filename} could not be used" if error.filename else "the output could not be written"
        message = f"{what}: {error.strerror or error}; {writing_advice(error)}."
        exit_code = DataError.exit_code
        trace = traceback.format_exc() if wants_debug else ""
    # The error, and all that its frames hold, is freed by now.
    return _report_error(message, exit_code, trace)


def _run_and_flush(args: list[str]) -> int:
    """Run, and flush the output, so that a full disk is detected before the exit code is determined."""
    try:
        return _run(args)
    finally:
        if sys.stdout is not None:  # closed by the caller: `>&-`
            sys.stdout.flush()


def _report_error(message: str, exit_code: int, trace: str) -> int:
    """Print an error as one line on standard error, after its traceback if wanted; returns the exit code."""
    try:
        if trace:
            print(printable(trace), file=sys.stderr)
        print(f"scratchlm: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    except MemoryError:
        os.write(2, NO_MEMORY_TO_REPORT)
        return OutOfMemoryError.exit_code
    return exit_code


def _drop_output() -> None:
    """Redirect buffered output to the null device when standard output cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "--help-all", "help"):
        print(overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"scratchlm {__version__}")
        return 0
    if args[1:] in (["-h"], ["--help"], ["--help-all"]) and _parts(args[0]):
        print(overview(args[0]))
        return 0
    words, entry, rest = _find(args)
    name = " ".join(words)
    with memory_errors_explained(OUT_OF_MEMORY.get(name, OUT_OF_MEMORY_ELSEWHERE)):
        module = importlib.import_module(entry.module)
        return int(module.main(rest, prog=f"scratchlm {name}"))


def _find(args: list[str]) -> tuple[tuple[str, ...], Entry, list[str]]:
    """Split the arguments into the command's words and the rest."""
    for length in (2, 1):
        words = tuple(args[:length])
        if len(words) == length and words in COMMANDS:
            return words, COMMANDS[words], args[length:]
        if (name := " ".join(words)) in REMOVED:
            raise ConfigError(f"`scratchlm {name}` was removed: {REMOVED[name]}.")
    parts = _parts(args[0])
    if parts and len(args) == 1:
        raise ConfigError(f"`scratchlm {args[0]}` needs a subcommand: {', '.join(parts)}.")
    if parts:
        raise ConfigError(f"`scratchlm {args[0]}` has no subcommand {args[1]!r}; {nearest(args[1], parts)}")
    known = {words[0] for words in COMMANDS}
    raise ConfigError(
        f"scratchlm has no command {args[0]!r}; {nearest(args[0], known)} `scratchlm --help` lists all commands."
    )


def _parts(group: str) -> list[str]:
    """The subcommands of a command: `classify`, `instruct` and `prefer` for `finetune`."""
    return [words[1] for words in COMMANDS if len(words) == 2 and words[0] == group]


def overview(group: str | None = None) -> str:
    """The list of all commands under their headings, or of one command's subcommands."""
    chosen = {words: entry for words, entry in COMMANDS.items() if group in (None, words[0])}
    width = max(len(" ".join(words)) for words in chosen)
    lines: list[str] = []
    heading = None
    for words, entry in chosen.items():
        if group is None and entry.group != heading:
            heading = entry.group
            lines += ["", f"{heading}:"]
        lines.append(f"  {' '.join(words):<{width}}  {entry.summary}")
    return "\n".join(
        [
            f"scratchlm {__version__}: build a GPT language model from scratch, train it, fine-tune it, evaluate it.",
            "",
            f"usage: scratchlm {group or 'COMMAND'} ... [--help | --help-all] [--json] [--debug]",
            *([""] if group else []),
            *lines,
            "",
            "Start with `scratchlm run`: it trains, fine-tunes and evaluates a small model on built-in data, offline.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
