"""What a saved model tells about the machine that made it."""

import importlib.metadata

import numpy as np
import torch

from scratchlm.core import provenance
from scratchlm.core.provenance import device_name, versions


def test_versions_are_those_in_use(monkeypatch):
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert found["safetensors"] == importlib.metadata.version("safetensors")
    assert found["threads"] == str(torch.get_num_threads())
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    assert "no-such-library" not in versions()


def test_a_device_is_named_by_its_kind():
    assert device_name(torch.device("cpu")) == "cpu"
