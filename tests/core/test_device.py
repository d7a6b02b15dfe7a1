"""Which processor to compute on."""

import subprocess
import sys

import pytest
import torch

from scratchlm.core.device import pick_device
from scratchlm.core.errors import ConfigError


def test_auto_takes_the_best_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")


def test_a_device_that_is_not_here_is_an_error_and_never_a_silent_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' is not available here, only cpu; use --device auto"):
        pick_device("cuda")


def test_an_unknown_device_is_an_error():
    with pytest.raises(ConfigError, match="got 'gpu'"):
        pick_device("gpu")


def test_memory_grows_with_what_is_held():
    """In a process of its own: here earlier tests may have left 200 MB to reuse."""
    code = (
        "import torch; from scratchlm.core.device import memory_bytes; before = memory_bytes(); "
        "held = torch.ones(50_000_000); print(memory_bytes() - before)"  # written to, so that it is resident
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert int(printed) > 150_000_000
