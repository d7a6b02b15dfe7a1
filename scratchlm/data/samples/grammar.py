"""Expand sentence patterns: `{slot}` is filled in, `[one|two|]` is a choice, and `a` becomes `an` before vowels.

A *sheet* is a text file of patterns. Each plot, and each set of messages, is one sheet:

    # a comment
    order: intro want | try help? | ending       paragraphs of beats; those with `?` are optional
    let thing = kite | red ball                  chosen once per text
    let one, two = red | blue | green            two different ones
    let in/to = in town/to town | at sea/to sea  values that belong together
    any adj = good | bad | so so                 chosen anew at each place
    == want                                      a beat; each line under it is one way to say it
    == want 3                                    a beat that is drawn three times as often
    {H} wanted a {thing} [so much|very badly].
    @animal @!rainy {H} sniffed at the {thing}.  only for texts with the flag `animal`, without `rainy`
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from scratchlm.data.samples.dice import Dice

_TOKEN = re.compile(r"[\[\]|]|\{\w+\}|[^\[\]|{}]+")
# `an` is used before vowel letters, except where they sound like w or y, and before a silent h.
_ARTICLE = re.compile(r"\b(a) (?=(?!once\b|one\b|uni[cfqtv]|us[eu])(?:[aeiou]|hour\b|honest))", re.IGNORECASE)


@dataclass(frozen=True)
class Slot:
    """A place in a pattern for a value; `{He}` takes the value of `he` with a capital."""

    name: str


@dataclass(frozen=True)
class Choice:
    """A place in a pattern with several wordings."""

    options: tuple[Pattern, ...]


Pattern = tuple["str | Slot | Choice", ...]
Slots = Mapping[str, "str | Pattern"]  # a pattern is expanded anew at each occurrence


@dataclass(frozen=True)
class Line:
    """One pattern of a beat, with the flags that a text must have or must not have."""

    pattern: Pattern
    needs: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()

    def fits(self, flags: Set[str]) -> bool:
        """Whether a text with these flags can use the line."""
        return self.needs <= flags and not self.lacks & flags


@dataclass(frozen=True)
class Let:
    """Slots that are chosen once per text: several names share one choice (/) or take different ones (,)."""

    names: tuple[str, ...]
    rows: tuple[tuple[Pattern, ...], ...]
    is_paired: bool


@dataclass
class Sheet:
    """A parsed sheet: settings by name, choices in order, lines by beat."""

    settings: dict[str, str] = field(default_factory=dict)
    lets: list[Let] = field(default_factory=list)
    beats: dict[str, list[Line]] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)  # of beats, for sheets that draw one beat
    anew: dict[str, Pattern] = field(default_factory=dict)  # slots that are chosen anew at each occurrence


@cache
def parse(text: str) -> Pattern:
    """Parse a pattern."""
    tokens = _TOKEN.findall(text)
    assert "".join(tokens) == text, f"stray brace in pattern: {text}"
    tokens.reverse()
    pattern = _sequence(tokens)
    assert not tokens, f"unbalanced bracket in pattern: {text}"
    return pattern


def _sequence(tokens: list[str]) -> Pattern:
    parts: list[str | Slot | Choice] = []
    while tokens and tokens[-1] not in "|]":
        token = tokens.pop()
        if token == "[":  # noqa: S105 - a bracket, not a password
            options = [_sequence(tokens)]
            while (mark := tokens.pop() if tokens else "") == "|":
                options.append(_sequence(tokens))
            assert mark == "]", "a choice is not closed"
            parts.append(Choice(tuple(options)))
        else:
            parts.append(Slot(token[1:-1]) if token[0] == "{" else token)
    return tuple(parts)


def expand(pattern: Pattern, slots: Slots, dice: Dice) -> str:
    """Expand a pattern to one text, before `tidy`."""
    pieces: list[str] = []
    for part in pattern:
        if isinstance(part, str):
            pieces.append(part)
        elif isinstance(part, Choice):
            pieces.append(expand(dice.pick(part.options), slots, dice))
        else:
            is_capital = part.name not in slots
            value = slots[part.name[0].lower() + part.name[1:] if is_capital else part.name]
            word = value if isinstance(value, str) else expand(value, slots, dice)
            pieces.append(word[0].upper() + word[1:] if is_capital else word)
    return "".join(pieces)


def tidy(text: str) -> str:
    """Write `an` before vowels, single spaces, and a capital at the start.

    Example:
        >>> tidy('a owl  saw a hen.')
        'An owl saw a hen.'
    """
    text = _ARTICLE.sub(r"\1n ", re.sub(" {2,}", " ", text.strip()))
    start = 1 if text.startswith('"') else 0
    return text[:start] + text[start : start + 1].upper() + text[start + 1 :]


def bind(lets: list[Let], slots: dict[str, Any], dice: Dice) -> None:
    """Choose a value for every `let` in order, and put it into slots; later ones may use earlier ones."""
    for let in lets:
        if let.is_paired:
            values = dice.pick(let.rows)
        else:
            values = tuple(row[0] for row in dice.sample(let.rows, len(let.names)))
        for name, value in zip(let.names, values, strict=True):
            slots[name] = expand(value, slots, dice)


@cache
def load_sheet(path: str) -> Sheet:
    """Load a sheet by its path in this package."""
    text = resources.files(__package__).joinpath(path).read_text(encoding="utf-8")
    sheet, lines = Sheet(), list[Line]()
    for row in text.splitlines():
        if not row.strip() or row.startswith("#"):
            continue
        if row.startswith("== "):
            name, _, weight = row[3:].strip().partition(" ")
            lines = sheet.beats.setdefault(name, [])
            sheet.weights[name] = int(weight or 1)
        elif row.startswith("let "):
            sheet.lets.append(_let(row[4:]))
        elif row.startswith("any "):
            name, _, values = row[4:].partition("=")
            sheet.anew[name.strip()] = (Choice(tuple(parse(one.strip()) for one in values.split(" | "))),)
        elif setting := re.match(r"(order|weather|hero|friend): *(.+)", row):
            sheet.settings[setting[1]] = setting[2]
        else:
            lines.append(_line(row))
    return sheet


def _let(row: str) -> Let:
    names, _, values = row.partition("=")
    is_paired = "/" in names
    rows = (value.strip().split("/") if is_paired else [value.strip()] for value in values.split(" | "))
    return Let(
        names=tuple(name.strip() for name in re.split("[,/]", names)),
        rows=tuple(tuple(parse(cell.strip()) for cell in cells) for cells in rows),
        is_paired=is_paired,
    )


def _line(row: str) -> Line:
    needs, lacks = set[str](), set[str]()
    while row.startswith("@"):
        flag, _, row = row[1:].partition(" ")
        (lacks if flag.startswith("!") else needs).add(flag.lstrip("!"))
    return Line(parse(row.strip()), frozenset(needs), frozenset(lacks))
