"""NumPy's archives: equal to what numpy.load gives, and hostile ones are refused."""

import io
import zipfile

import numpy as np
import pytest

from scratchlm.checkpoints.torch.numpy_archive import read_npz
from scratchlm.core.errors import CheckpointError

ARRAYS = {
    "f4": np.arange(24, dtype="<f4").reshape(2, 3, 4),
    "f2": np.arange(3, dtype="<f2"),
    "f8": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "i8": np.array([-1, 1 << 40]),
    "big": np.arange(4, dtype=">i4"),
    "bool": np.array([True, False]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 5), "<f4"),
    "c8": np.array([1 + 2j], dtype=np.complex64),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_arrays_equal_those_of_numpy(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as expected:
        assert list(found) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(found[name].numpy(), expected[name])


def test_changing_an_array_leaves_the_file_alone(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.zeros(1000))
    before = (tmp_path / "a.npz").read_bytes()
    read_npz(tmp_path / "a.npz")["w"][:] = 1
    assert (tmp_path / "a.npz").read_bytes() == before


def npz_of(
    header: str | bytes, body: bytes = b"", *, magic: bytes = b"\x93NUMPY\x01\x00", claim: int | None = None
):
    text = header.encode() if isinstance(header, str) else header
    size = len(text) if claim is None else claim
    data = magic + size.to_bytes(2, "little") + text + body
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("w.npy", data)
    return buffer.getvalue()


def header(descr="'<f4'", order="False", shape="(2,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n"


HOSTILE = {
    "objects": (npz_of(header("'|O'"), bytes(16)), "Object arrays cannot be loaded"),
    "structures": (npz_of(header("[('a', '<f4')]"), bytes(8)), "numpy.void"),
    "times": (npz_of(header("'<M8[s]'"), bytes(16)), "datetime64"),
    "structure as text": (npz_of(header("'f4,f4'"), bytes(16)), "numpy.void"),
    "unknown dtype": (npz_of(header("'<q9'"), bytes(8)), "not a valid dtype"),
    "empty items": (npz_of(header("'<U0'")), "numpy.str_"),
    "huge items": (npz_of(header("'<U300000'", shape="(0,)")), "numpy.str_"),
    "too few bytes": (npz_of(header(), bytes(7)), "expected 8 bytes got 7"),
    "huge shape": (npz_of(header(shape="(1000000000, 1000000000, 100)")), "array is too big"),
    "overflow": (npz_of(header(shape="(4294967296, 4294967296)"), bytes(8)), "cannot reshape"),
    "endless size": (npz_of(header(shape="(10 ** 30,)")), "malformed node"),
    "long size": (npz_of(header(shape=f"({'9' * 100},)")), "too large"),
    "huge and empty": (npz_of(header(shape="(281474976710655, 281474976710655, 0)")), "cannot reshape"),
    "negative size": (npz_of(header(shape="(-1, -2)"), bytes(8)), "one unknown dimension"),
    "true as a size": (npz_of(header(shape="(True,)"), bytes(4)), "integer is required"),
    "code in the header": (npz_of(header(shape="(__import__('os').system('true'),)")), "malformed node"),
    "deep header": (npz_of("(" * 5000 + ")" * 5000), "Cannot parse header"),
    "another key": (npz_of("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}"), "correct keys"),
    "header too long": (npz_of("", claim=60_000), "expected 60000 bytes"),
    "version 9": (npz_of(header(), bytes(8), magic=b"\x93NUMPY\x09\x00"), r"not \(9, 0\)"),
    "no npy": (npz_of(header(), bytes(8), magic=b"garbage!"), "must hold undamaged arrays"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_array_is_an_error_that_says_why(tmp_path, name):
    data, message = HOSTILE[name]
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_npz(tmp_path / "a.npz")


def test_objects_that_numpy_pickled_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="Object arrays cannot be loaded"):
        read_npz(tmp_path / "a.npz")


def test_a_compressed_bomb_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros((65 << 20) // 4, "<f4"))
    with pytest.raises(CheckpointError, match="does not compress"):
        read_npz(tmp_path / "a.npz")


def test_a_zip_of_something_else_is_explained(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"must be a zip file of \.npy arrays, got \['readme\.txt'\]"):
        read_npz(tmp_path / "a.npz")
