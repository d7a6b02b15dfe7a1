"""What a Retry-After header may hold."""

from __future__ import annotations

import email.utils
import time

import pytest

from scratchlm.assets.retry_after import retry_after_s


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0.0), (" 120 ", 120.0), ("", None), ("-1", None), ("1.5", None), ("x", None)]
)
def test_seconds_are_whole_numbers(value, seconds):
    assert retry_after_s(value) == seconds


def test_a_date_is_the_time_until_then():
    assert retry_after_s(email.utils.formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=2)
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT") == 0.0
