"""Arguments before they are parsed: nothing that the user wrote is dropped."""

import importlib
import inspect

import pytest

from scratchlm.cli.arguments import flag_kinds, given_twice, ready_to_parse, take_name, value_of
from scratchlm.cli.commands import COMMANDS
from scratchlm.cli.generate import Generate
from scratchlm.cli.parsing import Common, parse_command
from scratchlm.cli.pretrain import Pretrain
from scratchlm.cli.run import Run
from scratchlm.core.errors import ConfigError


def command_classes():
    for words, entry in COMMANDS.items():
        for _, found in inspect.getmembers(importlib.import_module(entry.module), inspect.isclass):
            if issubclass(found, Common) and found.__module__ == entry.module:
                yield pytest.param(found, id=" ".join(words))


@pytest.mark.parametrize("cls", [*command_classes()])
def test_a_list_given_in_parts_is_the_list_given_at_once(cls):
    for flag, kind in flag_kinds(cls).items():
        if kind == "list":
            assert ready_to_parse(cls, [flag, "a", "--json", flag, "b", f"{flag}=c"]) == [
                *(flag, "a", "b", "c"),
                "--json",
            ]


@pytest.mark.parametrize("cls", [*command_classes()])
def test_of_a_value_given_twice_the_last_is_used_and_reported(cls):
    for flag, kind in flag_kinds(cls).items():
        if kind == "value":
            for second in ([flag, "b"], [f"{flag}=b"], [flag.replace("-", "_").replace("__", "--", 1), "b"]):
                assert "a" not in ready_to_parse(cls, [flag, "a", *second])
                assert given_twice(cls, [flag, "a", *second]) == [
                    f"{flag} was given 2 times; the last value is used: b"
                ]
            assert given_twice(cls, [flag, "a", flag, "a"]) == []


def parsed(cls, *args):
    return parse_command(cls, args, prog="scratchlm")


def test_flags_of_nested_settings_are_known_by_their_dotted_names():
    assert flag_kinds(Run)["--data.text"] == "list"
    assert flag_kinds(Run)["--classify.max-steps"] == "value"
    assert flag_kinds(Pretrain)["--max-steps"] == "value"
    assert flag_kinds(Pretrain)["--tokenizer.vocab-size"] == "value"


def test_repeated_lists_reach_the_command():
    assert parsed(Generate, "--prompt", "a", "--stop", "x", "--prompt", "b", "--stop=y").prompt == ("a", "b")
    assert parsed(Pretrain, "--data", "a", "--data", "b", "c").data == ("a", "b", "c")


@pytest.mark.parametrize("prompt", ["-a", "- milk\n- eggs", "-5", "--- title", "-- he said", "-"])
def test_a_value_may_begin_with_a_dash(prompt):
    assert parsed(Generate, "--prompt", prompt).prompt == (prompt,)
    assert parsed(Generate, f"--prompt={prompt}", "--json").prompt == (prompt,)


def test_a_flag_is_still_a_flag_after_one_that_takes_a_value():
    with pytest.raises(ConfigError, match="Unrecognized options: --max-stpes"):
        parsed(Generate, "--prompt", "a", "--max-stpes", "3")
    with pytest.raises(ConfigError):
        parsed(Generate, "--model", "--json")
    with pytest.raises(ConfigError, match=r"seed must be .* got -1"):  # a value, not a flag
        parsed(Generate, "--seed", "-1")


def test_switches_may_be_repeated():
    assert parsed(Generate, "--json", "--json").json


# --- the recipe of `run`


@pytest.mark.parametrize(
    "args",
    [
        ["mine", "--out", "x", "--json", "--data.text", "a", "b"],
        ["--out", "x", "mine", "--json", "--data.text", "a", "b"],
        ["--out=x", "--json", "mine", "--data.text", "a", "b"],
        ["--data.text", "a", "b", "--out", "x", "--json", "mine"],
    ],
)
def test_a_name_may_stand_anywhere_but_in_a_list(args):
    name, rest = take_name(Run, args)
    assert name == "mine"
    command = parsed(Run, *rest)
    assert (str(command.out), command.json, command.settings.data.text) == ("x", True, ("a", "b"))


def test_no_name_and_two_names():
    assert take_name(Run, ["--json", "--out", "x"]) == (None, ["--json", "--out", "x"])
    assert take_name(Run, ["--sample-prompt", "-a b", "mine"]) == ("mine", ["--sample-prompt", "-a b"])
    with pytest.raises(ConfigError, match="got mine and yours"):
        take_name(Run, ["mine", "--json", "yours"])


@pytest.mark.parametrize("args", [["--out", "a"], ["--out=a"], ["--json", "--out", "b", "--out=a"]])
def test_the_value_of_a_flag_can_be_looked_up(args):
    assert value_of("--out", args) == "a"
    assert value_of("--outer", args) is None


def test_a_name_may_follow_a_switch_that_is_off():
    assert take_name(Run, ["--classify.no-compare-raw-split", "mine"])[0] == "mine"
    assert take_name(Run, ["--model.n-layer", "3"])[0] is None  # the parser will name the nearest flag
