"""The table of the book's figures: complete, well formed, and a fair judge."""

import pytest

from scratchlm.assets.registry import find_assets
from scratchlm.book.ledger.table import Entry, choose, read_table
from scratchlm.core.errors import ConfigError

ENTRIES = read_table()


def entry(**changes) -> Entry:
    return Entry(**({"id": "ch02.x", "what": "x", "provenance": "here"} | changes))


def test_no_two_entries_share_an_id():
    ids = [e.id for e in ENTRIES]
    assert len(ids) == len(set(ids))


def test_every_chapter_and_both_appendices_are_there():
    assert {e.chapter for e in ENTRIES} == {"2", "3", "4", "5", "6", "7", "D", "E"}


def test_every_need_is_a_known_asset():
    for e in ENTRIES:
        for need in e.needs:
            assert find_assets(need), f"{e.id} needs {need}"


def test_every_entry_says_where_the_book_prints_it():
    assert all(e.provenance and e.what for e in ENTRIES)


def test_a_number_agrees_within_its_tolerance_only():
    assert entry(expected=0.5, tolerance=0.01).agrees(0.509)
    assert not entry(expected=0.5, tolerance=0.01).agrees(0.52)
    assert not entry(expected=5).agrees(6)
    assert not entry(expected=0.5, tolerance=0.01).agrees(float("nan"))


def test_lists_agree_number_by_number_and_in_length():
    assert entry(expected=[[1.0], [2.0]], tolerance=0.1).agrees([[1.05], [1.95]])
    assert not entry(expected=[1, 2]).agrees([1, 2, 3])
    assert not entry(expected=[1, 2]).agrees([2, 1])


def test_texts_agree_letter_by_letter():
    assert entry(expected="a b").agrees("a b")
    assert not entry(expected="a b").agrees("a  b")


def test_a_bound_and_a_band_are_kept():
    assert entry(below=1.0).agrees(0.39)
    assert not entry(below=1.0).agrees(1.0)
    assert not entry(below=1.0).agrees(float("nan"))
    assert entry(band=(0.2, 0.8)).agrees(0.39)
    assert not entry(band=(0.2, 0.8)).agrees(0.1)


def test_an_entry_that_expects_nothing_or_two_things_is_refused():
    with pytest.raises(ConfigError, match="one of expected, below and band"):
        entry()
    with pytest.raises(ConfigError, match="one of expected, below and band"):
        entry(expected=1, below=2.0)


@pytest.mark.parametrize("name", ["5", "05", "ch05", "chapter 5"])
def test_a_chapter_may_be_written_in_several_ways(name):
    assert {e.chapter for e in choose(ENTRIES, chapters=[name])} == {"5"}


@pytest.mark.parametrize("name", ["d", "D", "appendix-d", "Appendix D"])
def test_so_may_an_appendix(name):
    assert {e.chapter for e in choose(ENTRIES, chapters=[name])} == {"D"}


def test_an_unknown_chapter_is_an_error_that_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"2, 3, 4, 5, 6, 7, D, E.*'9'"):
        choose(ENTRIES, chapters=["9"])
