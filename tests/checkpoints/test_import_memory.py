"""Opening GPT-2 124M in each of its formats stays within its limit of memory."""

import sys

import pytest

from benchmarks.import_memory import FORMS, LIMIT_SHARE, measure


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process in /proc")
@pytest.mark.parametrize("form", FORMS)
def test_opening_gpt2_takes_little_more_memory_than_its_file(form, tmp_path):
    row = measure("124M", form, tmp_path)
    assert row["is_within"], f"{row['times_the_file']} times the file, limit {LIMIT_SHARE}"
