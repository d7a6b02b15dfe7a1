"""Normalizers, compared with those of the same name in Hugging Face `tokenizers`."""

import pytest
from tokenizers import Regex as HFRegex
from tokenizers import normalizers as theirs

from scratchlm.core.errors import ConfigError
from scratchlm.tokenizers import normalizers as ours
from scratchlm.tokenizers.patterns import Pattern
from tests.tokenizers.odd_strings import odd_strings

PAIRS = {
    "NFC": (ours.NFC(), theirs.NFC()),
    "NFD": (ours.NFD(), theirs.NFD()),
    "NFKC": (ours.NFKC(), theirs.NFKC()),
    "NFKD": (ours.NFKD(), theirs.NFKD()),
    "Lowercase": (ours.Lowercase(), theirs.Lowercase()),
    "StripAccents": (ours.StripAccents(), theirs.StripAccents()),
    "Strip": (ours.Strip(strip_left=True, strip_right=True), theirs.Strip(left=True, right=True)),
    "Strip right": (ours.Strip(strip_left=False, strip_right=True), theirs.Strip(left=False, right=True)),
    "Prepend": (ours.Prepend(" "), theirs.Prepend(" ")),
    "Replace": (ours.Replace(Pattern(".", is_regex=False), r"\0"), theirs.Replace(".", r"\0")),
    "Replace a pattern": (ours.Replace(Pattern(r"\s+|\bx"), " "), theirs.Replace(HFRegex(r"\s+|\bx"), " ")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_text_is_changed_as_in_tokenizers(name):
    mine, reference = PAIRS[name]
    for text in odd_strings(300):
        assert mine(text) == reference.normalize_str(text), repr(text)


def test_changes_are_made_one_after_the_other():
    assert (
        ours.normalize(" Ångström ", [ours.Strip(True, True), ours.NFD(), ours.StripAccents()]) == "Angstrom"
    )


def test_a_pattern_to_replace_is_checked_at_once():
    with pytest.raises(ConfigError, match="is not a valid regular expression"):
        ours.Replace(Pattern("("), "")
