"""Files that are not what their name says."""

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from scratchlm.assets.file_structure import TABLE_MAGIC, structure_problem


def packed(header: object, n_data: int) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(n_data)


def entry(begin: int, end: int, *, dtype: str = "F32", shape: list[int] | None = None) -> dict:
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


@pytest.fixture
def problem(tmp_path):
    def find(data: bytes, name: str) -> str | None:
        path = tmp_path / "partial"
        path.write_bytes(data)
        return structure_problem(path, name=name)

    return find


def test_a_file_that_safetensors_wrote_is_right(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(
        {
            "a": torch.ones(2, 3),
            "b": torch.ones(5, dtype=torch.bfloat16),
            "c": torch.tensor(True),
            "d": torch.zeros(0),
        },
        path,
        {"format": "pt"},
    )
    assert structure_problem(path, name=path.name) is None


@pytest.mark.parametrize("n_missing", [1, 4, 20, 30, 60])
def test_a_file_that_ends_early_is_found(tmp_path, problem, n_missing):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2, 3)}, path)
    assert problem(path.read_bytes()[:-n_missing], "model.safetensors") is not None


@pytest.mark.parametrize(
    "data",
    [
        packed({"a": entry(0, 8)}, 4),
        packed({"a": entry(0, 8)}, 12),
        packed({"a": entry(4, 12)}, 12),
        packed({"a": entry(0, 8), "b": entry(12, 16)}, 16),
        packed({"a": entry(0, 8), "b": entry(4, 12)}, 12),
        packed({"a": entry(0, 8, shape=[3])}, 8),
        packed({"a": entry(0, 8, shape=[-2])}, 8),
        packed({"a": entry(0, 8, dtype="F99")}, 8),
        packed({"a": {"dtype": [], "shape": [], "data_offsets": []}}, 0),
        packed({"a": 3}, 0),
        packed([], 0),
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
        b"short",
    ],
)
def test_safetensors_that_contradict_themselves_are_found(problem, data):
    assert problem(data, "model.safetensors") is not None


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("config.json", b'{"n_layer": 12}', b'{"n_layer": '),
        ("model.ckpt.index", bytes(48) + TABLE_MAGIC, bytes(56)),
        ("model.ckpt.index", bytes(40) + TABLE_MAGIC, TABLE_MAGIC),
        ("checkpoint", b'model_checkpoint_path: "model.ckpt"', b"Not Found"),
        ("vocab.bpe", b"#version: 0.2\n", b"Access denied"),
        ("model.ckpt.meta", b"\n\x00", b""),
        ("model.ckpt.meta", b"\n\x02ab\x12\x01c", b"\n\x02ab\x12\x03c"),
        ("model.ckpt.meta", b"\x12\x80\x01" + bytes(128), b"\x12\x80\x01" + bytes(127)),
        ("model.ckpt.meta", b"\x3a\x00", b"\x42\x00"),
    ],
)
def test_each_kind_of_file_is_known_by_its_structure(problem, name, good, bad):
    assert problem(good, name) is None
    assert problem(bad, name) is not None


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"n_layer": 12, "more": []}', None),
        (b'{"n_layer": 24}', "n_layer = 24 instead of 12"),
        (b'{"error": "slow down"}', "n_layer = nothing instead of 12"),
        (b"[12]", "not a JSON object"),
    ],
)
def test_settings_must_say_what_is_known_of_them(tmp_path, data, found):
    (tmp_path / "hparams.json").write_bytes(data)
    problem = structure_problem(tmp_path / "hparams.json", name="hparams.json", settings=[("n_layer", 12)])
    assert problem is None if found is None else found in problem


def test_a_data_set_may_be_a_list(problem):
    assert problem(b'[{"instruction": "a"}]', "instruction-data.json") is None


def test_a_data_set_may_be_larger_than_settings_are(problem):
    assert problem(b"[" + b"1," * (3 << 20) + b"1]", "alpaca_data.json") is None


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html>", b"\xef\xbb\xbf\n <HTML>", b"<?xml version='1.0'?><Error/>"]
)
@pytest.mark.parametrize(
    "name", ["model.ckpt.meta", "model.ckpt.data-00000-of-00001", "vocab.bpe", "config.json"]
)
def test_a_web_page_is_never_the_file(problem, page, name):
    assert "web page" in problem(page, name)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200),
    name=st.sampled_from(["a.safetensors", "a.json", "a.index", "vocab.bpe", "x"]),
)
def test_any_bytes_get_an_answer(problem, data, name):
    found = problem(data, name)
    assert found is None or isinstance(found, str)


def test_a_parquet_file_that_was_cut_short_is_found(problem):
    assert problem(b"PAR1" + bytes(40) + b"PAR1", "a.parquet") is None
    assert "does not begin and end as a parquet file" in problem(b"PAR1" + bytes(40), "a.parquet")
    assert "does not begin and end" in problem(b"PA", "a.parquet")
