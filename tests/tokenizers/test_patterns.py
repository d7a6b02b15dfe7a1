"""Patterns of tokenizer files beside Oniguruma, the engine of Hugging Face `tokenizers`."""

import sys
import unicodedata

import pytest
from tokenizers import Regex as HFRegex
from tokenizers import pre_tokenizers

from scratchlm.core.errors import ConfigError
from scratchlm.tokenizers.patterns import Pattern, compile_pattern
from scratchlm.tokenizers.pretokenizer import Split
from tests.tokenizers.odd_strings import odd_strings

TEXTS = odd_strings(300)
SAME = [
    r"\w+|[^\w\s]+",
    r"\W+",
    r"\b\w",
    r"[\w-]+",
    r"\d{1,3}+|\s+",  # in Python alone this would give nothing back
    r"x\d{0,2}+",
    r"\s+$|^\s+",
    r"^x|x$|^\n|^$",
    r".+",
    r"(?i:'s|'ll|the)",
    r"[^\r\n\p{L}\p{N}]?+\p{L}++",
    r"(?>a+)b|(a)\1|(?<=a)b|a+?b",
    r"\p{Han}+|\P{L}+|\p{^Lu}",
    r"[[:alpha:]]+|[[:^space:]]",
    r"\{1}+|[a\[b]+|[+--]+|[~~]+|[a||b]",
    r"\A\s+|\n\z|\Gx",
    r"\u00e9|\x41|\t|\n",
    r"(?=[A-Z])",
    r"e??",
    r"t*",
    r"a{,2}|b",
    r"(?i:é|[st])",
]


@pytest.mark.parametrize("pattern", SAME)
def test_a_pattern_means_what_it_means_to_tokenizers(pattern):
    theirs, ours = pre_tokenizers.Split(HFRegex(pattern), "isolated"), Split(Pattern(pattern))
    for text in TEXTS:
        assert ours.cut(text) == [piece for piece, _ in theirs.pre_tokenize_str(text)], repr(text)


def test_every_character_is_part_of_a_word_or_not_as_in_tokenizers():
    theirs, ours = pre_tokenizers.Split(HFRegex(r"\w"), "removed"), Split(Pattern(r"\w"), "Removed")
    for code in range(0, sys.maxunicode + 1, 7):  # a seventh of them, for time
        if unicodedata.category(chr(code)) not in ("Cn", "Cs"):
            assert bool(ours.cut(chr(code))) == bool(theirs.pre_tokenize_str(chr(code))), hex(code)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\h+",
        r"\X",
        r"\n\Z",
        r"[a[bc]]",
        r"[a&&b]",
        r"[\W]",
        r"[\b]",
        r"\Bx",
        r"(?m:.)",
        r"(?x) a",
        r"a{2}+",
        r"(?i:it)",
        r"(?i:pass)",
        r"(?i:ß)",
    ],
)
def test_what_python_cannot_read_in_the_same_way_is_refused(pattern):
    with pytest.raises(ConfigError, match="does not mean the same in Python as in `tokenizers`"):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(", "[", "(?<a", "*", "(?P<x>a)(?P=y)"])
def test_what_is_no_pattern_is_a_config_error(pattern):
    with pytest.raises(ConfigError):
        compile_pattern(pattern)


def test_a_string_is_taken_as_it_stands():
    assert Split(Pattern("a.", is_regex=False)).cut("ab a. b") == ["ab ", "a.", " b"]
    assert Pattern.from_json({"String": "a"}) == Pattern("a", is_regex=False)
    assert Pattern.from_json(Pattern("a").to_json()) == Pattern("a")
    assert Pattern.from_json({"Regex": "a", "Flags": "i"}) is None
    assert Pattern.from_json("a") is None


def test_counts_that_would_fill_the_memory_are_refused():
    for pattern in ("(a{9999}){9999}", "a" * 10_001, "((x{99}){99}){99}"):
        with pytest.raises(ConfigError, match="shorten it or lower the counts"):
            compile_pattern(pattern)
