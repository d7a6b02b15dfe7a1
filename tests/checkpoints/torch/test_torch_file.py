"""torch.save's files read as torch.load reads them, and no file runs code or takes unbounded time or memory."""

import collections
import io
import os
import pickle
import struct
import subprocess
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from scratchlm.checkpoints.torch.torch_file import read_torch_file, write_torch_file
from scratchlm.core.errors import CheckpointError

LEGACY = {"_use_new_zipfile_serialization": False}


def assert_equal(found, expected):
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert found.stride() == expected.stride()
        assert torch.equal(found, expected.detach())
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(found) is type(expected) or isinstance(expected, torch.Size)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_equal(one, other)
    else:
        assert found == expected
        assert type(found) is type(expected)


def trained_checkpoint():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(3):
        model(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
    return {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}


def many_kinds():
    table = torch.arange(24.0).reshape(4, 6)
    return {
        "f16": table.half(),
        "bf16": table.bfloat16(),
        "f64": table.double(),
        "ints": [table.to(kind) for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)],
        "bool": table > 7,
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "transposed": table.T,
        "corner": table[1:3, ::2],
        "parameter": nn.Parameter(torch.ones(3)),
        "size": torch.Size([2, 3]),
        "dtype": torch.float32,
        "plain": (None, True, False, -1, 3, 300, 70_000, -(1 << 40), 2.5, "häß", (), [], {}, (1, 2, 3, 4)),
        7: {"nested": [{"deep": 1}]},
    }


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
@pytest.mark.parametrize("make", [trained_checkpoint, many_kinds])
def test_the_values_equal_those_of_torch_load(tmp_path, make, options):
    path = tmp_path / "a.pth"
    torch.save(make(), path, **options)
    assert_equal(read_torch_file(path), torch.load(path, weights_only=True))


def test_a_newer_pickle_protocol_that_torch_cannot_read_safely_is_explained(tmp_path):
    torch.save(many_kinds(), tmp_path / "a.pth", pickle_protocol=4)
    with pytest.raises(CheckpointError, match="has protocol 4"):
        read_torch_file(tmp_path / "a.pth")


def test_dtypes_without_a_storage_class_are_read(tmp_path):
    value = {"u16": torch.arange(5).to(torch.uint16), "u32": torch.arange(6).to(torch.uint32)[1:]}
    torch.save(value, tmp_path / "a.pth")
    assert_equal(read_torch_file(tmp_path / "a.pth"), value)


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_tensors_that_shared_memory_still_share_it(tmp_path, options):
    table = torch.arange(12.0).reshape(3, 4)
    torch.save(
        {"tok_emb.weight": table, "out_head.weight": table, "row": table[1]}, tmp_path / "a.pth", **options
    )
    found = read_torch_file(tmp_path / "a.pth")
    assert found["tok_emb.weight"].data_ptr() == found["out_head.weight"].data_ptr()
    found["row"].fill_(9)
    assert (found["tok_emb.weight"][1] == 9).all()


def test_changing_a_tensor_leaves_the_file_alone(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()
    read_torch_file(tmp_path / "a.pth")["w"].fill_(1)
    assert (tmp_path / "a.pth").read_bytes() == before
    assert (read_torch_file(tmp_path / "a.pth")["w"] == 0).all()


def test_what_we_write_is_what_torch_loads(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": nn.Parameter(torch.randn(2).bfloat16())}
    write_torch_file(tmp_path / "m.pth", tensors)
    loaded = torch.load(tmp_path / "m.pth", weights_only=True)
    assert_equal(loaded, tensors)
    assert_equal(read_torch_file(tmp_path / "m.pth"), tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["m.pth"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="could not be written"):
        write_torch_file(tmp_path / "no such folder" / "m.pth", {"a": torch.zeros(1)})


# ---------------------------------------------------------------- files that want to do more than hold weights


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class WithState:
    def __init__(self, canary):
        self.canary = str(canary)

    def __setstate__(self, state):
        Path(state["canary"]).write_text("ran")


def zip_of(pickle_bytes: bytes, members: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pickle_bytes)
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
        for name, data in (members or {}).items():
            archive.writestr(name, data)
    return buffer.getvalue()


def poisons(canary: Path) -> dict[str, bytes]:
    command = f"touch {canary}"
    values = {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, f"open({str(canary)!r}, 'w')"),
        "exec": {"w": [Calls(exec, f"open({str(canary)!r}, 'w')")]},
        "subprocess": Calls(subprocess.Popen, ["touch", str(canary)]),
        "getattr": Calls(getattr, collections.OrderedDict, "fromkeys"),
        "torch.load": Calls(torch.load, str(canary)),
        "setstate": WithState(canary),
        "counter": collections.Counter("abc"),
    }
    return {f"{name} {p}": pickle.dumps(v, protocol=p) for name, v in values.items() for p in (0, 2, 4)}


@pytest.mark.parametrize("name", list(poisons(Path("canary"))))
def test_no_pickle_runs_code(tmp_path, name):
    canary = tmp_path / "canary"
    poison = poisons(canary)[name]
    (tmp_path / "a.pth").write_bytes(zip_of(poison))
    (tmp_path / "b.pth").write_bytes(poison)
    with pytest.raises(CheckpointError, match=r"would run code|could run code|has protocol 4"):
        read_torch_file(tmp_path / "a.pth")
    with pytest.raises(CheckpointError):
        read_torch_file(tmp_path / "b.pth")
    assert not canary.exists()


def test_the_error_names_what_would_have_run(tmp_path):
    (tmp_path / "a.pth").write_bytes(zip_of(pickle.dumps(Calls(os.system, "true"), protocol=2)))
    with pytest.raises(
        CheckpointError, match=r"a\.pth .* would run code: it names '(posix|nt)\.system'; get the"
    ):
        read_torch_file(tmp_path / "a.pth")


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ODICT = b"ccollections\nOrderedDict\n"


def tensor(offset=b"K\x00", shape=b"K\x04\x85", stride=b"K\x01\x85", storage=STORAGE) -> bytes:
    return b"\x80\x02" + REBUILD + b"(" + storage + offset + shape + stride + b"\x89" + ODICT + b")RtR."


def long1(value: int) -> bytes:
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


HOSTILE = {
    "argument of the wrong kind": (b"\x80\x02" + REBUILD + b"(K\x01K\x01K\x01K\x01tR.", "missing 2 required"),
    "too few arguments": (b"\x80\x02" + REBUILD + b")R.", "missing 6 required"),
    "call of a text": (b"\x80\x02X\x01\x00\x00\x00a)R.", "reduce for unrecognized function a"),
    "call of a dtype": (b"\x80\x02ctorch\nFloatStorage\n)R.", "not callable"),
    "state of a list": (b"\x80\x02]}b.", "Can only build"),
    "state of a dict": (b"\x80\x02}}X\x01\x00\x00\x00aK\x01sb.", "Can only build"),
    "past the storage": (tensor(offset=b"K\x01"), "not resizable"),
    "shape too large": (tensor(shape=b"K\x05\x85"), "not resizable"),
    "stride too large": (tensor(shape=b"K\x02\x85", stride=b"K\x04\x85"), "not resizable"),
    "negative offset": (tensor(offset=b"J\xff\xff\xff\xff"), "invalid storage offset -1"),
    "negative stride": (tensor(stride=b"J\xff\xff\xff\xff\x85"), "overflowed"),
    "huge shape": (tensor(shape=long1(1 << 62) + b"\x85"), "overflowed"),
    "huge product": (tensor(shape=long1(1 << 40) * 2 + b"\x86", stride=b"K\x00K\x00\x86"), "overflow"),
    "one number, a million times": (
        tensor(shape=b"J\x40\x42\x0f\x00\x85", stride=b"K\x00\x85"),
        "claims more numbers than are there",
    ),
    "shape and stride differ": (tensor(stride=b"K\x01K\x01\x86"), "unequal size length"),
    "missing storage": (tensor(storage=STORAGE.replace(b"\x000X", b"\x009X")), "failed locating file data/9"),
    "storage too large": (
        tensor(storage=STORAGE.replace(b"K\x04t", b"K\x05t")),
        "claims more numbers than are there",
    ),
    "storage of negative size": (
        tensor(storage=STORAGE.replace(b"K\x04t", b"J\xff\xff\xff\xfft")),
        "not resizable",
    ),
    "storage of endless size": (
        tensor(storage=STORAGE.replace(b"K\x04t", long1(1 << 100) + b"t")),
        "claims more numbers than are there",
    ),
    "persistent id of another kind": (b"\x80\x02K\x01Q.", "must be a tuple"),
    "a bare storage": (b"\x80\x02" + STORAGE + b".", "holds a TypedStorage"),
    "a bare function": (b"\x80\x02" + REBUILD + b".", "holds a function"),
    "list in itself": (b"\x80\x02]q\x00h\x00a.", "nested too deeply"),
    "dict in itself": (b"\x80\x02}q\x00K\x01h\x00s.", "nested too deeply"),
    "deep nesting": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "nested too deeply"),
    "deep tuples": (b"\x80\x02)" + b"\x85" * 100_000 + b".", "nested too deeply"),
    "a billion laughs": (b"\x80\x02K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b".", "nested too deeply"),
    "hash of shared tuples": (
        b"\x80\x02}K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01s.",
        "nested too deeply",
    ),
    "a list as a key": (b"\x80\x02}]K\x01s.", "unhashable type"),
    "a key without a value": (b"\x80\x02}(K\x01u.", "out of range"),
    "huge whole number": (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", "more than 64 bits"),
    "text past the end": (b"\x80\x02X\xff\xff\xff\x7fabc.", "only 4 remain"),
    "no text": (b"\x80\x02X\x02\x00\x00\x00\xff\xfe.", "can't decode"),
    "empty stack": (b"\x80\x02.", "pop from empty list"),
    "no mark": (b"\x80\x02K\x01t.", "is damaged"),
    "no memory": (b"\x80\x02h\x07.", "is damaged"),
    "no end": (b"\x80\x02K\x01", "before seeing STOP"),
    "name without end": (b"\x80\x02c" + b"a" * 5000, "no newline"),
    "newer protocol": (b"\x80\x09.", "protocol 9"),
    "instance": (b"\x80\x02(ios\nsystem\n.", "instruction INST"),
    "extension": (b"\x80\x02\x82\x01.", "instruction EXT1"),
    "too many steps": (b"\x80\x02]" + b"Na" * 200_001 + b".", "more than 400,000 instructions"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_pickle_is_an_error_that_says_why(tmp_path, name):
    data, message = HOSTILE[name]
    (tmp_path / "a.pth").write_bytes(zip_of(data, {"a/data/0": bytes(16)}))
    with pytest.raises(CheckpointError, match=message):
        read_torch_file(tmp_path / "a.pth")


def test_the_example_behind_the_hostile_pickles_is_a_good_one(tmp_path):
    (tmp_path / "a.pth").write_bytes(zip_of(tensor(), {"a/data/0": struct.pack("<4f", 1, 2, 3, 4)}))
    assert read_torch_file(tmp_path / "a.pth").tolist() == [1, 2, 3, 4]


def test_names_of_a_file_that_is_none_are_explained(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "other.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    for name, message in {
        "text": "not a file of torch.save",
        "empty": "begins with b''",
        "other": "before seeing STOP",
        "absent": "check the path",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            read_torch_file(tmp_path / f"{name}.pth")
    with pytest.raises(CheckpointError, match="check the path"):
        read_torch_file(tmp_path)


def test_a_torchscript_program_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript program, not weights"):
        read_torch_file(tmp_path / "a.pt")


# ---------------------------------------------------------------- zip files that lie


def small_zip(**changes) -> bytes:
    return zip_of(tensor(), {"a/data/0": struct.pack("<4f", 1, 2, 3, 4), **changes})


def test_damaged_numbers_are_found_by_their_checksum(tmp_path):
    data = bytearray(small_zip())
    data[data.index(struct.pack("<4f", 1, 2, 3, 4))] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        read_torch_file(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a\\x"])
def test_an_unsafe_member_name_is_refused(tmp_path, name):
    data = zip_of(tensor(), {"a/data/0": bytes(16), "#" * len(name): b""})
    (tmp_path / "a.pth").write_bytes(data.replace(b"#" * len(name), name.encode()))
    with pytest.raises(CheckpointError, match="unsafe name"):
        read_torch_file(tmp_path / "a.pth")


def test_a_name_that_comes_twice_is_refused(tmp_path):
    data = zip_of(tensor(), {"a/data/0": bytes(16), "a/data/1": bytes(16)})
    (tmp_path / "a.pth").write_bytes(data.replace(b"a/data/1", b"a/data/0"))
    with pytest.raises(CheckpointError, match="twice"):
        read_torch_file(tmp_path / "a.pth")


def test_members_that_share_bytes_are_refused(tmp_path):
    data = bytearray(zip_of(tensor(), {"a/data/0": bytes(16), "a/data/1": bytes(16)}))
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    first, second = entries[-2:]
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # both begin at one place
    data[second + 46 : second + 54] = b"a/data/2"
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="members on top of each other"):
        read_torch_file(tmp_path / "a.pth")


def test_compressed_storages_and_bombs_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", tensor())
        archive.writestr("a/data/0", bytes(16))
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="is compressed"):
        read_torch_file(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(zip_of(b"\x80\x02" + b"N0" * (5 << 20)))
    with pytest.raises(CheckpointError, match="has more than 8,388,608 bytes"):
        read_torch_file(tmp_path / "a.pth")


@pytest.mark.parametrize("cut", [1, 10, 30, 60, 100, 200])
def test_a_truncated_file_is_an_error(tmp_path, cut):
    (tmp_path / "a.pth").write_bytes(small_zip()[:-cut])
    with pytest.raises(CheckpointError):
        read_torch_file(tmp_path / "a.pth")
