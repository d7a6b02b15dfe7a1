"""Damage a file of every format thousands of times: it loads or raises one of our errors, and no code runs.

Each format starts from a good small file. A seeded mutation flips bits, cuts, inserts, repeats or zeroes a
piece, swaps two numbers or puts a huge one. `SEED` and the number of the mutation make any failure again.
"""

import dataclasses
import hashlib
import io
import json
import pickle
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import load_model, load_tensors, save_model, save_tensors
from scratchlm.checkpoints.tensorflow import leveldb_table
from scratchlm.checkpoints.tensorflow.bundle import open_bundle
from scratchlm.checkpoints.torch.numpy_archive import read_npz
from scratchlm.checkpoints.torch.torch_file import read_torch_file
from scratchlm.core.errors import CheckpointError, DataError, TokenizerError
from scratchlm.core.files import parse_json
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.byte_symbols import to_symbols
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from tests.faults.reading import MAX_SECONDS, attack, read_within_limits

SEED = 20_260
N_FAST, N_SLOW = 500, 1_000
TENSORFLOW_GOLDEN = Path(__file__).parents[1] / "checkpoints" / "tensorflow" / "golden"
HUGE = (0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)

# ---------------------------------------------------------------- mutations


def flip_bits(data: bytearray, random_: random.Random) -> None:
    for _ in range(random_.choice((1, 1, 2, 8))):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)


def truncate(data: bytearray, random_: random.Random) -> None:
    del data[random_.randrange(len(data)) :]


def insert(data: bytearray, random_: random.Random) -> None:
    at = random_.randrange(len(data) + 1)
    data[at:at] = random_.randbytes(random_.choice((1, 2, 8, 100)))


def repeat(data: bytearray, random_: random.Random) -> None:
    start = random_.randrange(len(data))
    piece = data[start : start + random_.choice((1, 8, 60, 1000))]
    at = random_.randrange(len(data) + 1)
    data[at:at] = piece * random_.choice((1, 1, 3))


def zero(data: bytearray, random_: random.Random) -> None:
    start = random_.randrange(len(data))
    end = min(len(data), start + random_.choice((1, 4, 8, 200)))
    data[start:end] = bytes(end - start)


def swap(data: bytearray, random_: random.Random) -> None:
    size = random_.choice((1, 2, 4, 8))
    one, other = (random_.randrange(max(1, len(data) - size)) for _ in range(2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


def put_huge(data: bytearray, random_: random.Random) -> None:
    """A huge number in binary, or in the place of digits in text."""
    number = random_.choice(HUGE)
    digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if digits and random_.random() < 0.5:
        at = random_.choice(digits)
        data[at : at + 1] = str(random_.choice((number, -number, 10**30))).encode()
        return
    size = 1 if number <= 0xFF else 2 if number <= 0xFFFF else 4 if number <= 0xFFFFFFFF else 8
    at = random_.randrange(len(data))
    data[at : at + size] = number.to_bytes(size, random_.choice(("little", "big")))


MUTATIONS = (flip_bits, truncate, insert, repeat, zero, swap, put_huge)


def mutate(good: bytes, number: int) -> bytes:
    random_ = random.Random(f"{SEED} {number}")
    data = bytearray(good)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        if data:
            random_.choice(MUTATIONS)(data, random_)
    return bytes(data)


# ---------------------------------------------------------------- formats


@dataclass(frozen=True)
class Format:
    """A good file and its reader; `settle` runs after each mutation, before reading."""

    path: Path
    read: Callable[[], object]
    settle: Callable[[], object] = lambda: None


def tiny_folder(folder: Path) -> Path:
    tokenizer = train_bpe(["the cat sat on the mat " * 20], 262)
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=262, context_length=4, emb_dim=4, n_heads=2, n_layers=1, tie_embeddings=True
    )
    return save_model(folder, GPTModel(config), tokenizer, task={"kind": "none"})


def update_manifest(folder: Path, name: str) -> None:
    """Put the hash of a changed file into the manifest, so that the reader gets past the hash check."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def torch_value() -> dict:
    table = torch.arange(12.0).reshape(3, 4)
    return {
        "tok": table,
        "head": table,
        "half": table.T.bfloat16(),
        "state": {0: {"step": torch.tensor(3.0)}},
    }


def a_safetensors(folder: Path) -> Format:
    path = folder / "a.safetensors"
    save_tensors(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).half()})
    return Format(path, lambda: load_tensors(path))


def a_manifest(folder: Path) -> Format:
    model = tiny_folder(folder / "m")
    return Format(model / "manifest.json", lambda: load_model(model))


def a_task(folder: Path) -> Format:
    model = tiny_folder(folder / "m")
    return Format(model / "task.json", lambda: load_model(model), lambda: update_manifest(model, "task.json"))


def a_model_tokenizer(folder: Path) -> Format:
    model = tiny_folder(folder / "m")
    return Format(model / "tokenizer.json", lambda: load_tokenizer(model))


def an_encoder(folder: Path, *, mutated: str = "encoder.json") -> Format:
    tokenizer = train_bpe(["the cat sat on the mat " * 20], 270, special_tokens=["<|endoftext|>"])
    symbols = {to_symbols(token): id_ for token, id_ in tokenizer.vocab.items()} | tokenizer.special_tokens
    (folder / "encoder.json").write_text(json.dumps(symbols), encoding="utf-8")
    lines = [f"{to_symbols(left)} {to_symbols(right)}" for left, right in tokenizer.merges]
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    return Format(
        folder / mutated, lambda: load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    )


def merges(folder: Path) -> Format:
    return an_encoder(folder, mutated="vocab.bpe")


def an_npz(folder: Path) -> Format:
    np.savez(folder / "a.npz", w=np.arange(6.0).reshape(2, 3), b=np.arange(3, dtype="<f2"))
    return Format(folder / "a.npz", lambda: read_npz(folder / "a.npz"))


def a_compressed_npz(folder: Path) -> Format:
    np.savez_compressed(folder / "a.npz", w=np.arange(60.0), b=np.arange(3))
    return Format(folder / "a.npz", lambda: read_npz(folder / "a.npz"))


def a_pth(folder: Path) -> Format:
    torch.save(torch_value(), folder / "a.pth")
    return Format(folder / "a.pth", lambda: read_torch_file(folder / "a.pth"))


def a_legacy_pth(folder: Path) -> Format:
    torch.save(torch_value(), folder / "a.pth", _use_new_zipfile_serialization=False)
    return Format(folder / "a.pth", lambda: read_torch_file(folder / "a.pth"))


def nanogpts_meta(folder: Path) -> Format:
    ids = {character: id_ for id_, character in enumerate("abcdefgh \n")}
    meta = {"vocab_size": 10, "itos": {id_: c for c, id_ in ids.items()}, "stoi": ids}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return Format(folder / "meta.pkl", lambda: load_tokenizer(folder / "meta.pkl"))


def a_pickle(folder: Path) -> Format:
    """The pickle inside a .pth, mutated where no checksum protects it."""
    torch.save(torch_value(), folder / "good.pth")
    with zipfile.ZipFile(folder / "good.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    (folder / "data.pkl").write_bytes(members[name])

    def pack() -> None:
        with zipfile.ZipFile(folder / "a.pth", "w") as archive:
            for other, data in members.items():
                archive.writestr(other, (folder / "data.pkl").read_bytes() if other == name else data)

    return Format(folder / "data.pkl", lambda: read_torch_file(folder / "a.pth"), pack)


def a_config(folder: Path) -> Format:
    model = tiny_folder(folder / "m")
    return Format(
        model / "config.json", lambda: load_model(model), lambda: update_manifest(model, "config.json")
    )


def a_foreign_folder(folder: Path, name: str) -> Format:
    loaded = load_model(tiny_folder(folder / "m"))
    task = {
        "stop_ids": [1, 2],
        "chat_template": "{{ messages[0].content }}",
        "chat_tokens": {"eos_token": "a"},
    }
    theirs = export_huggingface(folder / "hf", loaded.model, loaded.tokenizer, task=task)
    return Format(theirs / name, lambda: open_model(theirs))


def a_foreign_generation_config(folder: Path) -> Format:
    return a_foreign_folder(folder, "generation_config.json")


def a_foreign_tokenizer_config(folder: Path) -> Format:
    return a_foreign_folder(folder, "tokenizer_config.json")


def a_foreign_chat_template(folder: Path) -> Format:
    return a_foreign_folder(folder, "chat_template.jinja")


def a_foreign_config(folder: Path) -> Format:
    return a_foreign_folder(folder, "config.json")


def foreign_weights(folder: Path) -> Format:
    return a_foreign_folder(folder, "model.safetensors")


def a_shard_index(folder: Path) -> Format:
    good = a_foreign_folder(folder, "model.safetensors")
    names = list(load_tensors(good.path))
    index = good.path.with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "part.safetensors")}))
    good.path.rename(good.path.with_name("part.safetensors"))
    return Format(index, good.read)


def a_bundle(folder: Path, suffix: str) -> Format:
    for file in TENSORFLOW_GOLDEN.glob("gpt2.ckpt.*"):
        shutil.copy(file, folder / file.name)

    def read() -> None:
        bundle = open_bundle(folder / "gpt2.ckpt")
        for name in bundle:
            bundle[name]

    return Format(folder / f"gpt2.ckpt.{suffix}", read)


def a_bundle_index(folder: Path) -> Format:
    return a_bundle(folder, "index")


def a_bundle_index_without_checksums(folder: Path) -> Format:
    format_ = a_bundle(folder, "index")

    def read() -> None:
        with mock.patch.object(leveldb_table, "has_checksum", return_value=True):
            format_.read()

    return dataclasses.replace(format_, read=read)


def bundle_data(folder: Path) -> Format:
    return a_bundle(folder, "data-00000-of-00001")


FORMATS = (
    a_safetensors,
    a_config,
    a_foreign_config,
    a_foreign_generation_config,
    a_foreign_tokenizer_config,
    a_foreign_chat_template,
    foreign_weights,
    a_shard_index,
    a_bundle_index,
    a_bundle_index_without_checksums,
    bundle_data,
    a_manifest,
    a_task,
    a_model_tokenizer,
    an_encoder,
    merges,
    an_npz,
    a_compressed_npz,
    a_pth,
    a_legacy_pth,
    nanogpts_meta,
    a_pickle,
)


def attack_format(format_: Format, n: int) -> None:
    """Read n mutations of a file."""

    def read(data: bytes) -> None:
        format_.path.write_bytes(data)
        format_.settle()
        format_.read()

    good = format_.path.read_bytes()
    attack(read, good=good, damage=lambda number: mutate(good, number), n=n)


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_a_damaged_file_loads_or_is_our_error(tmp_path, make):
    attack_format(make(tmp_path), N_FAST)


@pytest.mark.slow
@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_a_thousand_damaged_files_load_or_are_our_error(tmp_path, make):
    attack_format(make(tmp_path), N_SLOW)


# ---------------------------------------------------------------- hostile files made by hand


def safetensors_of(header: object, body: bytes = b"", *, claim: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claim is None else claim) + text + body


def entry(start: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


LYING_SAFETENSORS = {
    "past the end": safetensors_of({"a": entry(0, 800, (200,))}, bytes(8)),
    "overlap": safetensors_of({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
    "same bytes": safetensors_of({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)),
    "hole": safetensors_of({"a": entry(0, 8), "b": entry(16, 24)}, bytes(24)),
    "bytes left over": safetensors_of({"a": entry(0, 8)}, bytes(16)),
    "backwards": safetensors_of({"a": entry(8, 0)}, bytes(8)),
    "negative": safetensors_of({"a": entry(-8, 0)}, bytes(8)),
    "shape overflow": safetensors_of({"a": entry(0, 8, (1 << 62, 1 << 62))}, bytes(8)),
    "shape of another size": safetensors_of({"a": entry(0, 8, (3,))}, bytes(8)),
    "unknown dtype": safetensors_of({"a": entry(0, 8, dtype="O")}, bytes(8)),
    "header of 100 MB": safetensors_of({}, claim=100_000_001),
    "header of all memory": safetensors_of({}, claim=(1 << 64) - 1),
    "same name twice": safetensors_of(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        bytes(8),
    ),
    "deep header": safetensors_of(b'{"a":' * 100_000),
    "no header": b"",
}


@pytest.mark.parametrize("name", list(LYING_SAFETENSORS))
def test_lying_safetensors_are_our_error(tmp_path, name):
    (tmp_path / "a.safetensors").write_bytes(LYING_SAFETENSORS[name])
    with pytest.raises(CheckpointError):
        load_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("9" * 5000, "finite numbers"),
        ("-" + "9" * 5000, "finite numbers"),
        ("1e999", "finite numbers"),
        ("-1e999", "finite numbers"),
        ("NaN", "finite numbers"),
        ("", "is not valid JSON"),
    ],
)
def test_json_that_would_hurt_is_our_error(text, message):
    with pytest.raises(DataError, match=message):
        parse_json(text, where="a.json")


def test_a_repeated_key_among_very_many_is_found_at_once():
    text = "{" + ",".join(f'"{i}":0' for i in range(200_000)) + ',"199999":1}'
    started_at_s = time.process_time()
    with pytest.raises(DataError, match="'199999' twice"):
        parse_json(text, where="a.json")
    assert time.process_time() - started_at_s < MAX_SECONDS


PATTERN_BOMBS = [
    "a{1000000000}",
    "(a{1,1000}){1000}",
    "((a{100}){100}){3,}",
    "(" * 4000 + ")" * 4000,
    "a" * 20_000,
]


@pytest.mark.parametrize("pattern", PATTERN_BOMBS, ids=lambda pattern: pattern[:20])
def test_a_pattern_that_would_fill_the_memory_is_our_error(tmp_path, pattern):
    path = tmp_path / "tokenizer.json"
    train_bpe(["the cat sat on the mat " * 20], 262).save(path)
    value = json.loads(path.read_text(encoding="utf-8"))
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    value["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, byte_level]}
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: the pattern (must|'.* is not a valid)"):
        load_tokenizer(path)


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "a/../../secret.txt", "..", "."])
def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path, name):
    model = tiny_folder(tmp_path / "m")
    (tmp_path / "secret.txt").write_text("secret")
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size_bytes": 6}
    (model / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        load_model(model)


def test_zip_bombs_are_our_error(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(60 << 20))
        archive.writestr("w.npy", bytes(100 << 20))
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    for read in (read_torch_file, read_npz):
        is_loaded = read_within_limits(
            lambda read=read: read(tmp_path / "a.pth"), size_bytes=len(buffer.getvalue()), what=read.__name__
        )
        assert not is_loaded
