"""Flags that every command has, and what they set before it acts."""

import io
import sys
from dataclasses import dataclass

import pytest
import torch

from scratchlm.cli.parsing import Common, run_command
from scratchlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Draw(Common):
    """Draw a number."""


def test_a_seed_decides_what_is_drawn(capsys):
    def drawn(*args: str) -> str:
        assert (
            run_command(Draw, lambda *_: {"n": int(torch.randint(1 << 40, ()))}, ["--json", *args], prog="x")
            == 0
        )
        return capsys.readouterr().out

    assert drawn("--seed", "3") == drawn("--seed", "3") != drawn("--seed", "4")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_misspelt_flag_is_named_without_the_parsers_frame_and_colours(monkeypatch, stream):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", stream())
    with pytest.raises(ConfigError) as caught:
        run_command(Draw, lambda *_: {}, ["--thread", "3"], prog="x")
    message = "Unrecognized options: --thread, 3; did you mean --threads? (`x --help-all` lists every flag)"
    assert str(caught.value) == message
