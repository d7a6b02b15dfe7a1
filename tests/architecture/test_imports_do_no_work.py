"""Importing does no work: no torch with the bare package; no socket, print, file or logging set-up."""

import subprocess
import sys
import textwrap

import pytest

GUARD = """
import logging, os, sys

def watch(event, arguments):
    if event.startswith("socket.") and event not in ("socket.gethostname",):
        raise SystemExit(f"importing used the network: {event} {arguments}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        if "__pycache__" not in str(arguments[0]) and str(arguments[0]) != os.devnull:
            raise SystemExit(f"importing wrote a file: {arguments[0]}")

sys.addaudithook(watch)
"""
AFTER = """
if logging.root.handlers or logging.getLogger("scratchlm").handlers:
    raise SystemExit("importing set up logging")
"""


def run_guarded(code: str) -> subprocess.CompletedProcess[str]:
    """Run a few lines in a fresh interpreter that ends at the first socket or written file."""
    program = GUARD + textwrap.dedent(code) + AFTER
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_the_bare_package_imports_no_torch_and_does_no_work():
    result = run_guarded("import scratchlm\nassert scratchlm.__version__\nassert 'torch' not in sys.modules")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), result.stderr


def test_tokenizers_do_not_pay_for_torch(package):
    modules = [source.module for source in package if source.room == "tokenizers"]
    result = run_guarded(f"import {', '.join(modules)}\nassert 'torch' not in sys.modules")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), result.stderr


def test_importing_every_module_does_no_work(package):
    modules = [source.module for source in package if source.room != "__main__"]
    result = run_guarded("\n".join(f"import {module}" for module in modules))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), result.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import socket; socket.socket()", "used the network"),
        ("open('scratchlm-must-not-exist.txt', 'w')", "wrote a file"),
        ("logging.basicConfig()", "set up logging"),
        ("assert 'json' not in sys.modules; import json; assert 'json' not in sys.modules", "AssertionError"),
    ],
)
def test_the_guard_finds_work(code, message):
    result = run_guarded(code)
    assert result.returncode != 0
    assert message in result.stderr
