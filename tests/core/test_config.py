"""Settings to and from plain dictionaries, with a clear word about every mistake."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.config import from_dict, nearest, to_dict
from scratchlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    n_layers: int = 2
    kind: Literal["adamw", "muon"] = "adamw"


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: float = 0.1
    is_on: bool = False
    top_k: int | None = None
    stops: tuple[str, ...] = ()
    limit: Annotated[int, "a note"] = 3
    inner: Inner = field(default_factory=Inner)


@given(
    st.builds(
        Outer,
        name=st.text(),
        rate=st.floats(allow_nan=False),
        is_on=st.booleans(),
        top_k=st.none() | st.integers(),
        stops=st.lists(st.text(), max_size=3).map(tuple),
        inner=st.builds(Inner, n_layers=st.integers(), kind=st.sampled_from(["adamw", "muon"])),
    )
)
def test_there_and_back_is_the_same_config(config):
    assert from_dict(Outer, to_dict(config), where="here") == config


def test_a_plain_dictionary_holds_only_what_toml_can_say():
    assert to_dict(Outer(name="x", stops=("a", "b"))) == {
        "name": "x",
        "rate": 0.1,
        "is_on": False,
        "stops": ["a", "b"],
        "limit": 3,
        "inner": {"n_layers": 2, "kind": "adamw"},
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "rat": 1}, r"recipe has no setting 'rat'; did you mean 'rate'\?"),
        ({"name": "x", "zzzz": 1}, "known are: inner, is_on"),
        (
            {"name": "x", "inner": {"n_layer": 1}},
            r"recipe\.inner has no setting 'n_layer'; did you mean 'n_layers'",
        ),
        ({}, "recipe needs a value for 'name'"),
        ({"name": 3}, r"recipe\.name must be str, got 3 \(int\)"),
        ({"name": "x", "rate": "fast"}, r"recipe\.rate must be float, got 'fast'"),
        ({"name": "x", "rate": True}, r"recipe\.rate must be float, got True"),
        ({"name": "x", "top_k": 1.5}, r"recipe\.top_k must be int, got 1\.5"),
        ({"name": "x", "limit": True}, r"recipe\.limit must be int, got True"),
        ({"name": "x", "stops": "a"}, r"recipe\.stops must be"),
        ({"name": "x", "stops": ["a", 1]}, r"recipe\.stops\[1\] must be str, got 1"),
        ({"name": "x", "inner": 3}, r"recipe\.inner must be a table of settings, got 3"),
        (
            {"name": "x", "inner": {"kind": "sgd"}},
            r"recipe\.inner\.kind must be one of 'adamw', 'muon', got 'sgd'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Outer, values, where="recipe")


def test_a_whole_number_will_do_for_a_float():
    config = from_dict(Outer, {"name": "x", "rate": 1}, where="recipe")
    assert config.rate == 1.0
    assert isinstance(config.rate, float)


def test_the_nearest_name_is_offered_or_all_of_them():
    assert nearest("n_head", ["n_heads", "n_layers"]) == "did you mean 'n_heads'?"
    assert nearest("q", ["b", "a"]) == "known are: a, b."
