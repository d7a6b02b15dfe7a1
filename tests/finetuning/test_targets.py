"""Layers chosen by name: the right ones, in the model's order, and a word about every name that fits nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.targets import EVERY_LINEAR, EVERY_LINEAR_IN_BLOCKS, chosen_places, widths


def names(model, *targets):
    return [place.name for place in chosen_places(model, targets)]


def every_name(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def test_the_default_takes_all_in_the_models_order(tiny_model):
    assert names(tiny_model, *EVERY_LINEAR) == every_name(tiny_model)
    assert names(tiny_model, *EVERY_LINEAR_IN_BLOCKS) == every_name(tiny_model)[:-1]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["W_query"], [f"trf_blocks.{i}.att.W_query" for i in range(3)]),
        (["ff.layers.2"], [f"trf_blocks.{i}.ff.layers.2" for i in range(3)]),
        (["trf_blocks.1.att.W_*"], [f"trf_blocks.1.att.W_{part}" for part in ("query", "key", "value")]),
        (["out_head", "trf_blocks.0.att.out_proj"], ["trf_blocks.0.att.out_proj", "out_head"]),
        ([r"re:.*\.[02]\.att\.W_value"], ["trf_blocks.0.att.W_value", "trf_blocks.2.att.W_value"]),
    ],
)
def test_patterns_are_ends_of_names_globs_and_expressions(tiny_model, targets, expected):
    assert names(tiny_model, *targets) == expected


@given(st.sets(st.integers(0, 18), min_size=1))
def test_any_choice_of_full_names_gives_these_and_no_others(numbers):
    block = {"a": nn.Linear(1, 1), "b": nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))}
    model = nn.ModuleList([nn.ModuleDict(block) for _ in range(7)])
    known = [place.name for place in chosen_places(model, EVERY_LINEAR)]
    wanted = [known[number] for number in sorted(numbers)]
    assert names(model, *reversed(wanted)) == wanted


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["W_query", "W_quary"], "found none for 'W_quary'; did you mean 'W_query'"),
        (["query"], "found none for 'query'"),  # an end of a name, but not of whole parts
        (["re:W_query"], "found none for 're:W_query'"),  # the whole name must fit
        (["re:("], r"must be a regular expression, got 're:\('"),
        ([], "found no target named"),
    ],
)
def test_a_pattern_that_fits_nothing_is_an_error(tiny_model, targets, message):
    with pytest.raises(ConfigError, match=message):
        chosen_places(tiny_model, targets)


def test_a_model_without_linear_layers_has_no_places():
    with pytest.raises(ConfigError, match="found none; give the whole model"):
        chosen_places(nn.Sequential(nn.ReLU()), EVERY_LINEAR)


def test_only_a_linear_layer_has_widths():
    assert widths(nn.Linear(3, 5)) == (3, 5)
    with pytest.raises(ConfigError, match="found ReLU"):
        widths(nn.ReLU())
