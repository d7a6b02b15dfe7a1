"""Numbers and tokens of the report: right in their units, and never "nan"."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from scratchlm.reports.formats import (
    FILTERS,
    MISSING,
    duration,
    for_page,
    percent,
    shade,
    short_count,
    visible,
)

NUMBER_FILTERS = ("axis_count", "count", "decimal", "duration", "file_size", "percent", "short_count")


@pytest.mark.parametrize("name", NUMBER_FILTERS)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "12", True])
def test_what_is_no_finite_number_becomes_a_dash(name, value):
    assert FILTERS[name](value) == MISSING


@given(st.floats(0, 1))
def test_percent_says_0_or_100_only_for_exactly_0_or_1(share):
    assert (percent(share) == "0%") == (share == 0)
    assert (percent(share) == "100%") == (share == 1)
    assert percent(share) not in ("0.0%", "100.0%")


@given(st.floats(0, 1e7))
def test_a_duration_never_shows_sixty_seconds_or_minutes(seconds):
    text = duration(seconds)
    assert "60 s" not in text
    assert "60.0 s" not in text
    assert "60 min" not in text


@pytest.mark.parametrize(
    ("n", "text"), [(9_999, "9,999"), (10_000, "10.0 thousand"), (1_000_000, "1.00 million")]
)
def test_counts_change_their_unit_at_round_numbers(n, text):
    assert short_count(n) == text


@given(st.text())
def test_printable_text_holds_nothing_that_html_or_utf8_refuses(text):
    clean = for_page(text)
    clean.encode("utf-8")
    assert not any(ord(c) < 0x20 and c not in "\t\n" for c in clean)


def test_direction_overrides_cannot_turn_the_page_around():
    assert "\u202e" not in for_page("abc\u202edef")


def test_markup_of_ours_passes_unchanged():
    svg = Markup("<svg></svg>")
    assert for_page(svg) is svg


def test_a_visible_token_shows_white_space_and_keeps_its_length_limit():
    assert visible(" a\n\t") == "·a⏎⇥"
    assert len(visible("x" * 50, 11)) == 11


@given(st.floats(0, 1))
def test_shades_are_the_eleven_classes_of_the_style_sheet(share):
    assert shade(share) in range(11)
