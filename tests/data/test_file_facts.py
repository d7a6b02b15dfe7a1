"""What was computed from a large file is remembered until the file changes in any way."""

import os
import shutil
import time

import numpy as np
import pytest

from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import DataError
from scratchlm.data import file_facts, nanogpt
from scratchlm.data.file_facts import file_sha256
from scratchlm.data.shards import open_tokens, prepare_tokens
from scratchlm.tokenizers.bpe_trainer import train_bpe

TEXT = "the cat sat on the mat and a dog saw it. " * 50


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch, tmp_path):
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(file_facts, "LARGE_FROM_BYTES", 0)
    monkeypatch.setattr(file_facts, "SETTLED_AFTER_S", 0.05)


@pytest.fixture
def read(monkeypatch):
    """The paths that are read from now on."""
    paths = []
    monkeypatch.setattr(
        file_facts, "sha256_of_file", lambda path: (paths.append(path), sha256_of_file(path))[1]
    )
    return paths


@pytest.fixture
def large(tmp_path, read):
    """A file whose checksum is remembered."""
    path = tmp_path / "large.bin"
    path.write_bytes(b"one")
    time.sleep(0.1)
    file_sha256(path)
    read.clear()
    return path


def test_an_unchanged_file_is_not_read_again(large, read):
    assert file_sha256(large) == sha256_of_file(large)
    assert read == []


def written_with_its_old_time(path):
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def restored_from_a_copy_with_its_old_time(path):
    other = path.with_name("other")
    other.write_bytes(b"two")
    shutil.copystat(path, other)
    other.replace(path)


def changed_through_a_map(path):
    mapped = np.memmap(path, dtype=np.uint8, mode="r+")
    mapped[0] += 1
    mapped.flush()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"two"),
        lambda path: path.write_bytes(b"longer"),
        written_with_its_old_time,
        restored_from_a_copy_with_its_old_time,
        changed_through_a_map,
    ],
    ids=["written", "longer", "old time", "restored", "mapped"],
)
def test_a_changed_file_is_read_again_whatever_its_times_say(large, read, change):
    before = sha256_of_file(large)
    change(large)
    assert file_sha256(large) == sha256_of_file(large) != before
    assert read == [large]


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path, read, monkeypatch):
    monkeypatch.setattr(file_facts, "SETTLED_AFTER_S", 60)
    path = tmp_path / "new.bin"
    path.write_bytes(b"one")
    assert file_sha256(path) == file_sha256(path)
    assert read == [path, path]


def test_a_small_file_is_read_every_time(large, read, monkeypatch):
    monkeypatch.setattr(file_facts, "LARGE_FROM_BYTES", 4)
    file_sha256(large)
    assert read == [large]


def test_without_a_cache_folder_the_file_is_read_every_time(large, read, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "file"))
    assert file_sha256(large) == file_sha256(large) == sha256_of_file(large)
    assert read == [large, large]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"state": 1}', "null"])
def test_a_damaged_record_is_written_anew(large, read, tmp_path, content):
    [record] = (tmp_path / "home" / "file_facts").iterdir()
    record.write_text(content)
    assert file_sha256(large) == file_sha256(large) == sha256_of_file(large)
    assert read == [large]


def test_token_shards_and_their_text_are_read_once_and_refused_when_changed(tmp_path, read):
    (tmp_path / "text.txt").write_text(TEXT)
    tokenizer = train_bpe([TEXT], 300)

    def prepared():
        return prepare_tokens(tmp_path / "text.txt", tokenizer, cache_folder=tmp_path / "tokens")

    first = prepared()
    time.sleep(0.1)
    prepared()
    read.clear()
    again = prepared()
    assert read == []
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.train, first.train)
    shard = first.folder / "train.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match="does not match its checksum"):
        open_tokens(first.folder)


def test_ids_of_nanogpt_are_counted_once(tmp_path, monkeypatch):
    for side in ("train", "val"):
        np.array([1, 0, 2, 1], dtype=np.uint16).tofile(tmp_path / f"{side}.bin")
    time.sleep(0.1)
    tokenizer, counted = train_bpe([TEXT], 300), []
    count = nanogpt._counts
    monkeypatch.setattr(nanogpt, "_counts", lambda path: (counted.append(path.name), count(path))[1])
    headers = [nanogpt.nanogpt_header(tmp_path, tokenizer) for _ in range(2)]
    assert headers[0] == headers[1]
    assert counted == ["train.bin", "val.bin"]
    (tmp_path / "val.bin").write_bytes(np.array([1, 0], dtype=np.uint16).tobytes())
    assert nanogpt.nanogpt_header(tmp_path, tokenizer)["val"]["n_tokens"] == 2
