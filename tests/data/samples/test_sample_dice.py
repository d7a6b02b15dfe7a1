import pytest

from scratchlm.data.samples.dice import Dice


def test_the_stream_is_splitmix64():
    dice = Dice(0)
    dice._state = 1234567
    # First outputs of splitmix64 for seed 1234567, as published with the reference C code (Vigna, prng.di.unimi.it).
    assert [dice.below(1 << 64) for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_other_seeds_give_other_streams():
    seeds = [(0,), (1,), ("0", 1), (0, "a")]
    streams = {tuple(dice.below(1000) for _ in range(8)) for dice in (Dice(*names) for names in seeds)}
    assert len(streams) == len(seeds)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_below_reaches_every_number_and_no_other(n):
    dice = Dice("range", n)
    assert {dice.below(n) for _ in range(60 * n)} == set(range(n))


def test_a_sample_takes_each_item_once_and_leaves_the_list_alone():
    items = list("abcdefgh")
    taken = Dice(3).sample(items, 5)
    assert len(set(taken)) == 5
    assert set(taken) <= set(items)
    assert sorted(Dice(4).shuffled(items)) == items == list("abcdefgh")


def test_a_chance_of_thirty_percent_falls_three_times_in_ten():
    dice = Dice("chance")
    share = sum(dice.chance(30) for _ in range(20_000)) / 20_000
    assert share == pytest.approx(0.30, abs=0.015)  # more than four standard deviations
