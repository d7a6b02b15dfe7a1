"""Entries read, cleaned, split and multiplied as the settings say."""

import dataclasses
import json

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.data.instruction_split import count_leaks
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.recipes.inputs import read_entries
from scratchlm.recipes.recipe import SAMPLES

SETTINGS = InstructSettings(max_steps=1)


@pytest.fixture
def file(tmp_path):
    """200 entries, the last 20 of which repeat the first 20."""
    values = [
        {
            "instruction": f"Say {'abcdefghij'[i % 10] * 5} and {'klmnopqrst'[i // 10 % 10] * 5}",
            "output": f"x{i}",
        }
        for i in range(180)
    ]
    values = [
        {**value, "instruction": value["instruction"] + (" once" if i < 100 else " twice more")}
        for i, value in enumerate(values)
    ]
    (tmp_path / "a.json").write_text(json.dumps([*values, *values[:20]]))
    return str(tmp_path / "a.json")


def sizes(split):
    return len(split.train), len(split.val), len(split.test)


def test_a_file_is_cut_in_its_order_unless_told_otherwise(file):
    entries = read_entries([file], SETTINGS)
    assert sizes(entries.split) == (170, 10, 20)
    assert (entries.n_dropped, entries.count_duplicates()) == (0, 20)
    assert entries.kinds == [""] * 20


def test_the_leak_free_split_has_no_leak(file):
    assert (
        count_leaks(read_entries([file], SETTINGS).split) == 10
    )  # rows 180 to 189 repeat 0 to 9; the rest validates
    settings = dataclasses.replace(SETTINGS, split="leak-free")
    entries = read_entries([file], settings)
    assert sum(sizes(entries.split)) == 200
    assert count_leaks(entries.split) == 0
    assert entries.split.test == read_entries([file], settings).split.test


def test_duplicates_are_dropped_on_demand(file):
    entries = read_entries([file], dataclasses.replace(SETTINGS, drop_duplicates=True))
    assert (sum(sizes(entries.split)), entries.n_dropped, entries.count_duplicates()) == (180, 20, 20)


def test_copies_and_system_prompt_are_for_training(file):
    settings = dataclasses.replace(SETTINGS, augment=2, system="be brief")
    entries = read_entries([file], settings)
    trained = entries.for_training(settings)
    assert sizes(trained) == (510, 10, 20)
    assert {entry.system for part in (trained.train, trained.val, trained.test) for entry in part} == {
        "be brief"
    }
    assert [e.instruction for e in trained.test] == [e.instruction for e in entries.split.test]


def test_a_system_prompt_of_the_data_stays(tmp_path):
    values = [
        {"instruction": f"say {i}", "output": "x", "system": "" if i % 2 else "mine"} for i in range(40)
    ]
    (tmp_path / "a.json").write_text(json.dumps(values))
    settings = dataclasses.replace(SETTINGS, system="default")
    train = read_entries([str(tmp_path / "a.json")], settings).for_training(settings).train
    assert [entry.system for entry in train[:4]] == ["mine", "default", "mine", "default"]


def test_the_sample_says_itself_what_is_held_out():
    entries = read_entries([SAMPLES], SETTINGS)
    assert len(entries.kinds) == len(entries.split.test)
    assert "" not in entries.kinds
    with pytest.raises(ConfigError, match="have a test side of their own, got split='leak-free'"):
        read_entries([SAMPLES], dataclasses.replace(SETTINGS, split="leak-free"))
