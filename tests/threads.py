"""How many threads a test computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """In the block torch has so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from threads, other tests may run beside these, and no pool survives a fork."""
    with torch_threads(1):
        yield
