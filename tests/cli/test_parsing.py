"""Flags that every command has, and what they set before it acts."""

from dataclasses import dataclass

import torch

from scratchlm.cli.parsing import Common, run_command


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
