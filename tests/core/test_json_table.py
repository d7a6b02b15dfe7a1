"""JSON of others: the right type, or our error with the name."""

import pytest

from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.json_table import JSONTable, read_json_table

KINDS = {int: 3, float: 1.5, str: "x", bool: True, dict: {"a": 1}, list: [1]}
WRONG = [1, 1.5, "x", [], {}, [1], True, 10**400, 1 << 63]


def table(**values):
    return JSONTable(values, where="a.json", error=CheckpointError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:20])
def test_a_value_is_of_the_type_that_was_asked_for_or_our_error(kind, value):
    number = kind in (int, float) and type(value) is int and abs(value) < 1 << 63
    if type(value) is kind is not int or number:
        assert type(table(key=value).get("key", kind)) is kind
        return
    with pytest.raises(CheckpointError, match=r"a\.json must hold .* as key, got"):
        table(key=value).get("key", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_null_and_nothing_are_the_default(kind):
    assert table(key=None).get("key", kind, KINDS[kind]) == KINDS[kind]
    assert table().get("key", kind) is None


def test_a_whole_number_is_a_number_too():
    assert table(key=2).get("key", float) == 2.0


def test_a_value_that_must_be_there_is_named():
    with pytest.raises(CheckpointError, match=r"a\.json must hold a whole number as size, got nothing"):
        table().need("size", int)


def test_one_text_stands_for_a_list():
    assert table(key="x").texts("key") == ["x"]
    assert table(key=["x", "y"]).texts("key") == ["x", "y"]
    assert table(key=None).texts("key") == []


@pytest.mark.parametrize("value", [1, True, [1], {"a": 1}, ["x", None]])
def test_other_things_are_no_texts(value):
    with pytest.raises(CheckpointError, match="a list of texts as key"):
        table(key=value).texts("key")


def test_a_table_inside_is_named_by_its_way():
    with pytest.raises(CheckpointError, match=r"a\.json: inner must hold text as key, got 5"):
        table(inner={"key": 5}).table("inner").get("key", str)


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "null", "true"])
def test_a_file_of_another_value_is_our_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.json must be a table of settings"):
        read_json_table(tmp_path / "a.json", error=ConfigError)
