import re
from importlib import resources

import pytest

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import Choice, Line, bind, expand, load_sheet, parse, tidy
from scratchlm.data.samples.stories import PLOTS


def all_expansions(text: str, **slots: str) -> set[str]:
    dice = Dice(text)
    return {expand(parse(text), slots, dice) for _ in range(200)}


def test_choices_may_be_nested_and_empty():
    assert all_expansions("a[ b[1|2]|] c") == {"a b1 c", "a b2 c", "a c"}


def test_a_slot_with_a_capital_takes_the_value_with_a_capital():
    assert all_expansions("{He} saw {H}.", he="she", H="Mia") == {"She saw Mia."}


@pytest.mark.parametrize("broken", ["a [b|c", "a b] c", "{open"])
def test_an_unbalanced_pattern_is_a_bug_that_shows(broken):
    with pytest.raises(AssertionError):
        parse(broken)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a owl and a hen", "An owl and a hen"),
        ("a  onion", "An onion"),
        ("a unicorn, a useful egg, a one-eyed cat", "A unicorn, a useful egg, a one-eyed cat"),
        ("half a hour", "Half an hour"),
        ('"a apple!" she said.', '"An apple!" she said.'),
    ],
)
def test_tidy_mends_articles_spaces_and_the_first_letter(text, wanted):
    assert tidy(text) == wanted


def test_a_line_is_kept_for_texts_with_its_flags():
    line = Line(parse("x"), needs=frozenset({"animal"}), lacks=frozenset({"rainy"}))
    assert line.fits({"animal", "sunny"})
    assert not line.fits({"animal", "rainy"})
    assert not line.fits({"sunny"})


def test_lets_with_a_comma_never_take_the_same_value_and_those_with_a_slash_stay_together():
    sheet = load_sheet("plots/lost_thing.txt")
    race = load_sheet("plots/race.txt")
    for seed in range(60):
        slots = {"color": "red"}
        bind(sheet.lets, slots, Dice(seed))
        assert len({slots["spot"], slots["bad1"], slots["bad2"]}) == 3
        bind(race.lets, slots, Dice(seed))
        assert slots["prize"].split()[-1] in slots["the_prize"] or " of " in slots["prize"]


@pytest.mark.parametrize("name", PLOTS)
def test_every_beat_that_a_plot_calls_for_exists(name):
    sheet, shared = load_sheet(f"plots/{name}.txt"), load_sheet("plots/common.txt")
    order = re.findall(r"\w+", sheet.settings["order"])
    assert set(order) <= set(sheet.beats) | set(shared.beats)
    assert set(sheet.beats) <= set(order), "a beat that no story tells"


def test_no_beat_is_left_without_lines():
    for path in resources.files("scratchlm.data.samples").joinpath("plots").iterdir():
        for beat, lines in load_sheet(f"plots/{path.name}").beats.items():
            plain = [line for line in lines if not line.needs]
            assert len(lines) >= 2, f"{path.name}: {beat}"
            assert plain or any(isinstance(part, Choice) for part in lines[0].pattern), f"{path.name}: {beat}"
