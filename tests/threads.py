"""One thread for all that a test computes."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from threads, other tests may run beside these, and no pool survives a fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
