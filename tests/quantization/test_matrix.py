import dataclasses

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from scratchlm.quantization.grids import round_to_nearest
from scratchlm.quantization.int4 import Int4Grid
from scratchlm.quantization.int8 import Int8Grid
from scratchlm.quantization.matrix import QuantizedMatrix, pack_nibbles, unpack_nibbles
from scratchlm.quantization.nf4 import NF4Grid

GRIDS = {
    "int8": Int8Grid(),
    "int4": Int4Grid(),
    "int4_asymmetric": Int4Grid(asymmetric=True),
    "nf4": NF4Grid(),
}


@pytest.fixture
def weight(generator):
    return torch.randn(6, 128, generator=generator) * 0.1 + 0.02


@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 32), (2, 32), (3, 64), (1, 128)]))
def test_unpacking_undoes_packing(seed, groups):
    n_groups, size = groups
    codes = torch.randint(0, 16, (3, n_groups * size), generator=torch.Generator().manual_seed(seed))
    packed = pack_nibbles(codes, n_groups)
    assert packed.shape == (3, n_groups * size // 2)
    assert torch.equal(unpack_nibbles(packed, n_groups).long(), codes)


def test_the_low_half_of_a_byte_is_a_weight_of_the_first_half_of_its_group():
    codes = torch.zeros(1, 64, dtype=torch.uint8)
    codes[0, 32], codes[0, 48] = 5, 9  # numbers 0 and 16 of the second group of 32
    assert pack_nibbles(codes, 2)[0].tolist() == [0] * 16 + [5 + 9 * 16] + [0] * 15


@pytest.mark.parametrize("kind", GRIDS)
def test_weights_are_what_the_formula_of_the_kind_says(weight, kind):
    matrix = round_to_nearest(weight, GRIDS[kind], group_size=32)
    codes = matrix.codes.float() if kind == "int8" else unpack_nibbles(matrix.codes, 4).float()
    scale = matrix.scale.repeat_interleave(32, dim=1)
    expected = {
        "int8": lambda: scale * codes,
        "int4": lambda: scale * (codes - 8),
        "int4_asymmetric": lambda: scale * codes + matrix.offset.repeat_interleave(32, dim=1),
        "nf4": lambda: scale * matrix.table[codes.int()],
    }[kind]()
    assert (matrix.kind, matrix.shape, matrix.group_size) == (kind, (6, 128), 32)
    torch.testing.assert_close(
        matrix.dense(), expected, rtol=0, atol=1e-7
    )  # a product and a sum, in either order


@pytest.mark.parametrize("kind", GRIDS)
def test_some_rows_are_the_same_as_those_of_the_whole_matrix(weight, kind):
    matrix = round_to_nearest(weight, GRIDS[kind], group_size=64)
    assert torch.equal(matrix.dense(2, 5), matrix.dense()[2:5])


@pytest.mark.parametrize("kind", ["int4", "int4_asymmetric"])
def test_the_layout_is_that_of_llama_cpp(weight, kind):
    """With groups of 32 our bytes, behind llama.cpp's scales, are its blocks."""
    quants = pytest.importorskip("gguf").quants
    types = pytest.importorskip("gguf").GGMLQuantizationType
    matrix = round_to_nearest(weight, GRIDS[kind], group_size=32)
    numbers = [matrix.scale] if matrix.offset is None else [matrix.scale, matrix.offset]
    head = torch.stack(numbers, dim=-1).half().view(torch.uint8)  # (6, 4, 2 or 4)
    blocks = torch.cat([head, matrix.codes.view(6, 4, 16)], dim=-1).flatten(1)
    theirs = quants.dequantize(blocks.numpy(), types.Q4_0 if matrix.offset is None else types.Q4_1)
    # half precision has 11 bits; 0.5 is above the largest weight, so the error is below 0.5 / 2048
    torch.testing.assert_close(matrix.dense(), torch.from_numpy(theirs), rtol=0, atol=0.5 / 2048)


def damaged(matrix: QuantizedMatrix, part: str, value) -> QuantizedMatrix:
    return dataclasses.replace(matrix, **{part: value})


@pytest.mark.parametrize(
    ("kind", "part", "change", "problem"),
    [
        ("int8", "codes", lambda t: t.float(), "type torch.float32"),
        ("int8", "codes", lambda t: t[0], "codes of shape"),
        ("int8", "codes", lambda t: t[:0], "codes of shape"),
        ("int8", "scale", lambda t: t.half(), "scales of shape"),
        ("int8", "scale", lambda t: t[:3], "scales of shape"),
        ("int8", "scale", lambda t: t.repeat(1, 2)[:, :5], "5 groups in rows of 128"),
        ("int4", "scale", lambda t: t.repeat(1, 32), "128 groups in rows of 128"),
        ("int4", "scale", lambda t: t * torch.nan, "numbers in its scale that are not finite"),
        ("int4", "scale", lambda t: t * torch.inf, "numbers in its scale that are not finite"),
        ("int4", "scale", lambda t: t * 0 + 3e38, "beyond what float32"),
        ("int4_asymmetric", "offset", lambda t: t[:, :1], "offsets of shape"),
        ("int4_asymmetric", "offset", lambda t: t / 0, "numbers in its offset that are not finite"),
        ("int4_asymmetric", "offset", lambda t: t.double(), "offsets of type"),
        ("nf4", "table", lambda t: t[:8], "a table of shape"),
        ("nf4", "table", lambda t: t * torch.nan, "numbers in its table that are not finite"),
        ("int8", "offset", lambda _: torch.zeros(6, 4), "beside 8-bit codes"),
        ("int8", "table", lambda _: torch.zeros(16), "beside 8-bit codes"),
    ],
)
def test_what_is_wrong_with_a_matrix_is_named(weight, kind, part, change, problem):
    matrix = round_to_nearest(weight, GRIDS[kind], group_size=32)
    assert matrix.problem() is None
    assert problem in str(damaged(matrix, part, change(getattr(matrix, part))).problem())
