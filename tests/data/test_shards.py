import json
import logging
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from scratchlm.core.errors import ConfigError, DataError, UnknownWordError
from scratchlm.data import document_split, shards, sources
from scratchlm.data.shards import open_tokens, prepare_tokens
from scratchlm.data.sources import read_documents
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.word import StrictWordTokenizer, build_vocab
from tests.data.text_split import split_texts

WORDS = re.split(" ", "the cat sat on a mat and the dog who had 12 bones sat on the log; früh 漢字")


@pytest.fixture(scope="module")
def small_bpe() -> BPETokenizer:
    return train_bpe([" ".join(WORDS) * 20], 300)


def sentence(n_words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=n_words)) + ".\n"


def write_documents(folder: Path, n: int, *, n_words: int = 20) -> Path:
    path = folder / "documents.jsonl"
    lines = [json.dumps({"text": sentence(n_words, seed)}) for seed in range(n)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def joined(tokenizer, texts: list[str]) -> list[int]:
    ids: list[int] = []
    for text in texts:
        ids += ([tokenizer.end_of_text_id] if ids else []) + list(tokenizer.encode(text))
    return ids


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("tokens-"))


def test_one_file_is_cut_at_a_character_and_both_sides_are_its_ids(tmp_path, byte_tokenizer):
    text = "first line\nsecond line\nthird <|endoftext|> line\n"
    (tmp_path / "a.txt").write_text(text)
    tokens = prepare_tokens(tmp_path / "a.txt", byte_tokenizer, cache_folder=tmp_path / "cache")
    cut = int(len(text) * 0.9)
    assert bytes(tokens.train.tolist()).decode() == text[:cut]  # no id is 256, the end-of-text
    assert bytes(tokens.val.tolist()).decode() == text[cut:]
    assert (tokens.train_n_bytes, tokens.val_n_bytes) == (cut, len(text) - cut)
    assert tokens.n_documents == 1


def test_many_documents_are_split_whole_and_joined_by_end_of_text(tmp_path, small_bpe):
    path = write_documents(tmp_path, 60)
    tokens = prepare_tokens(path, small_bpe, cache_folder=tmp_path / "cache", val_fraction=0.2)
    train, val = split_texts([d.text for d in read_documents(path)], val_fraction=0.2)
    assert tokens.train.tolist() == joined(small_bpe, train)
    assert tokens.val.tolist() == joined(small_bpe, val)
    assert tokens.n_documents == 60
    assert tokens.val_n_bytes == sum(len(text.encode()) for text in val)
    header = json.loads((tokens.folder / "header.json").read_text())
    assert (header["train"]["n_documents"], header["val"]["n_documents"]) == (len(train), len(val))


@pytest.mark.parametrize("piece_chars", [16, 100, 1 << 20])
def test_a_tail_over_documents_is_the_same_however_the_text_is_cut_in_pieces(
    tmp_path, byte_tokenizer, monkeypatch, piece_chars
):
    path = write_documents(tmp_path, 5)
    monkeypatch.setattr(sources, "PIECE_CHARS", piece_chars)
    monkeypatch.setattr(document_split, "JOB_BYTES", 64)
    tokens = prepare_tokens(
        path, byte_tokenizer, cache_folder=tmp_path / "c", split_by="tail", val_fraction=0.3
    )
    train, val = split_texts([d.text for d in read_documents(path)], val_fraction=0.3, split_by="tail")
    assert tokens.train.tolist() == joined(byte_tokenizer, train)
    assert tokens.val.tolist() == joined(byte_tokenizer, val)


def test_several_processes_give_the_same_files_as_one(tmp_path, small_bpe, monkeypatch):
    path = write_documents(tmp_path, 300)
    monkeypatch.setattr(document_split, "JOB_BYTES", 2000)
    alone = prepare_tokens(path, small_bpe, cache_folder=tmp_path / "one", workers=1)
    monkeypatch.setattr(shards, "PARALLEL_FROM_BYTES", 0)
    seen: list[tuple[int, int]] = []
    together = prepare_tokens(
        path,
        small_bpe,
        cache_folder=tmp_path / "two",
        workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    for name in ("train.bin", "val.bin", "header.json"):
        assert (together.folder / name).read_bytes() == (alone.folder / name).read_bytes()
    assert seen == sorted(seen)
    assert len(seen) > 5
    assert seen[-1][0] == seen[-1][1] == alone.train_n_bytes + alone.val_n_bytes


def test_a_text_that_a_worker_cannot_encode_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    tokenizer = StrictWordTokenizer(build_vocab("the cat sat on a mat"))
    (tmp_path / "a.txt").write_text("the cat sat on a mat\n" * 50 + "the dog sat\n" + "the cat\n" * 50)
    monkeypatch.setattr(document_split, "JOB_BYTES", 100)
    monkeypatch.setattr(sources, "PIECE_CHARS", 100)
    monkeypatch.setattr(shards, "PARALLEL_FROM_BYTES", 0)
    with pytest.raises(UnknownWordError, match="dog"):
        prepare_tokens(tmp_path / "a.txt", tokenizer, cache_folder=tmp_path / "cache", workers=2)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_worker_that_dies_is_an_error_and_leaves_nothing(tmp_path, small_bpe, monkeypatch):
    path = write_documents(tmp_path, 300)
    monkeypatch.setattr(shards, "PARALLEL_FROM_BYTES", 0)
    monkeypatch.setattr(shards, "_loads_as_saved", lambda tokenizer, file: True)
    monkeypatch.setattr(BPETokenizer, "save", lambda self, file: Path(file).write_text("{}"))
    with pytest.raises(DataError, match="a process that encodes text died"):
        prepare_tokens(path, small_bpe, cache_folder=tmp_path / "cache", workers=2)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_tokenizer_that_only_this_process_knows_is_used_here(tmp_path, byte_tokenizer, monkeypatch):
    path = write_documents(tmp_path, 100)
    monkeypatch.setattr(shards, "PARALLEL_FROM_BYTES", 0)
    monkeypatch.setattr(document_split, "JOB_BYTES", 1000)
    tokens = prepare_tokens(path, byte_tokenizer, cache_folder=tmp_path / "cache", workers=2)
    assert len(tokens.train) > 0


def test_finished_tokens_are_used_again_wherever_the_text_lies(tmp_path, small_bpe, monkeypatch):
    path = write_documents(tmp_path, 30)
    first = prepare_tokens(path, small_bpe, cache_folder=tmp_path / "cache")
    path.rename(tmp_path / "moved.jsonl")
    monkeypatch.setattr(shards, "_build", None)
    again = prepare_tokens(tmp_path / "moved.jsonl", small_bpe, cache_folder=tmp_path / "cache")
    assert again.folder == first.folder
    assert again.train.tolist() == first.train.tolist()
    assert again.fingerprint == first.fingerprint


def test_other_text_split_or_tokenizer_makes_other_tokens(tmp_path, small_bpe, byte_tokenizer):
    path = write_documents(tmp_path, 30)
    cache = tmp_path / "cache"
    folders = {
        prepare_tokens(path, small_bpe, cache_folder=cache).folder,
        prepare_tokens(path, byte_tokenizer, cache_folder=cache).folder,
        prepare_tokens(path, small_bpe, cache_folder=cache, val_fraction=0.2).folder,
        prepare_tokens(path, small_bpe, cache_folder=cache, split_by="tail").folder,
    }
    path.write_text(path.read_text(encoding="utf-8").replace("cat", "cow"), encoding="utf-8")
    folders.add(prepare_tokens(path, small_bpe, cache_folder=cache).folder)
    assert len(folders) == 5


def damage_cut(folder: Path) -> None:
    data = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(data[:-1])


def damage_bit(folder: Path) -> None:
    data = bytearray((folder / "val.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "val.bin").write_bytes(data)


def damage_header(folder: Path) -> None:
    (folder / "header.json").write_text('{"format": "scratchlm-tokens", "format_version": 1}')


def damage_missing(folder: Path) -> None:
    (folder / "val.bin").unlink()


@pytest.mark.parametrize("damage", [damage_cut, damage_bit, damage_header, damage_missing])
def test_damaged_tokens_are_named_and_made_again(tmp_path, small_bpe, caplog, damage):
    path = write_documents(tmp_path, 30)
    first = prepare_tokens(path, small_bpe, cache_folder=tmp_path / "cache")
    expected = first.train.tolist(), first.val.tolist()
    damage(first.folder)
    with pytest.raises(DataError, match="tokenise"):
        open_tokens(first.folder)
    with caplog.at_level(logging.WARNING):
        again = prepare_tokens(path, small_bpe, cache_folder=tmp_path / "cache")
    assert "tokenising again" in caplog.text
    assert (again.train.tolist(), again.val.tolist()) == expected
    assert leftovers(tmp_path / "cache") == []


def test_a_token_folder_is_a_source_of_its_own_tokenizer_only(tmp_path, small_bpe, byte_tokenizer):
    made = prepare_tokens(write_documents(tmp_path, 30), small_bpe, cache_folder=tmp_path / "cache")
    given = prepare_tokens(made.folder, small_bpe, cache_folder=tmp_path / "unused")
    assert given.train.tolist() == made.train.tolist()
    assert not (tmp_path / "unused").exists()
    with pytest.raises(DataError, match="another tokenizer's"):
        prepare_tokens([made.folder], byte_tokenizer, cache_folder=tmp_path / "unused")


def test_shards_of_another_format_version_are_refused(tmp_path, small_bpe):
    folder = prepare_tokens(write_documents(tmp_path, 30), small_bpe, cache_folder=tmp_path / "cache").folder
    header = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps(header | {"format_version": 99}))
    with pytest.raises(DataError, match="format 1, got 99"):
        open_tokens(folder)


def test_skipped_lines_are_counted_also_when_the_tokens_come_from_the_cache(tmp_path, small_bpe, caplog):
    path = write_documents(tmp_path, 30)
    path.write_text(path.read_text(encoding="utf-8") + "\nnot json\n[]\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 31"):
        prepare_tokens(path, small_bpe, cache_folder=tmp_path / "cache")
    for _ in range(2):
        tokens = prepare_tokens(path, small_bpe, cache_folder=tmp_path / "cache", skip_bad_lines=True)
        assert (tokens.skipped_lines, tokens.n_documents) == (2, 30)
    told = [message for message in caplog.messages if "skipped 2 lines" in message and "line 31" in message]
    assert len(told) == 2


def test_the_type_is_16_bits_where_every_id_fits(tmp_path, byte_tokenizer, monkeypatch):
    path = write_documents(tmp_path, 10)
    assert prepare_tokens(path, byte_tokenizer, cache_folder=tmp_path / "a").train.dtype == np.dtype("<u2")
    monkeypatch.setattr(type(byte_tokenizer), "vocab_size", 1 << 16)
    assert prepare_tokens(path, byte_tokenizer, cache_folder=tmp_path / "b").train.dtype == np.dtype("<u2")
    monkeypatch.setattr(type(byte_tokenizer), "vocab_size", (1 << 16) + 1)
    wide = prepare_tokens(path, byte_tokenizer, cache_folder=tmp_path / "c")
    assert wide.train.dtype == np.dtype("<u4")
    assert (wide.folder / "train.bin").stat().st_size == 4 * len(wide.train)


def test_no_validation_at_all_is_possible(tmp_path, byte_tokenizer):
    path = write_documents(tmp_path, 10)
    tokens = prepare_tokens(path, byte_tokenizer, cache_folder=tmp_path / "cache", val_fraction=0)
    assert len(tokens.val) == tokens.val_n_bytes == 0
    assert tokens.train.tolist() == joined(byte_tokenizer, [d.text for d in read_documents(path)])


def test_several_documents_need_an_end_of_text_token(tmp_path, byte_tokenizer, monkeypatch):
    path = write_documents(tmp_path, 30)
    monkeypatch.setattr(type(byte_tokenizer), "end_of_text_id", None)
    with pytest.raises(DataError, match="need an end-of-text token"):
        prepare_tokens(path, byte_tokenizer, cache_folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_worker_at_all_is_refused(tmp_path, byte_tokenizer):
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        prepare_tokens(tmp_path, byte_tokenizer, cache_folder=tmp_path, workers=0)


def test_a_text_that_changes_between_the_two_readings_is_an_error(tmp_path, byte_tokenizer, monkeypatch):
    path = write_documents(tmp_path, 30)
    real_survey = shards.survey_sources

    def then_grow(pieces):
        survey = real_survey(pieces)
        with path.open("a", encoding="utf-8") as file:
            file.write('\n{"text": "one more"}')
        return survey

    monkeypatch.setattr(shards, "survey_sources", then_grow)
    with pytest.raises(DataError, match="the data changed while it was read"):
        prepare_tokens(path, byte_tokenizer, cache_folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_leftovers_of_killed_builds_are_removed_and_those_of_others_kept(tmp_path, byte_tokenizer):
    cache = tmp_path / "cache"
    for owner in ("elsewhere-1", str(2**22 + 1)):  # another host; a number that no process here can have
        folder = cache / f".tokens-a.partial-{owner}"
        folder.mkdir(parents=True)
        (folder / "train.bin").write_bytes(b"half")
    prepare_tokens(write_documents(tmp_path, 10), byte_tokenizer, cache_folder=cache)
    assert leftovers(cache) == [".tokens-a.partial-elsewhere-1"]


BUILD = """
import sys
from pathlib import Path
from scratchlm.data.shards import prepare_tokens
from scratchlm.tokenizers.files import load_tokenizer

if __name__ == "__main__":
    here = Path(sys.argv[1])
    tokens = prepare_tokens(
        here / "text",
        load_tokenizer(here / "tokenizer.json", engine="tiktoken"),
        cache_folder=here / "cache",
        progress=lambda done, total: print(done, flush=True),
    )
    print("torch" in sys.modules, len(tokens.train), flush=True)
"""


def start_build(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(folder / "build.py"), str(folder)], stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def large_text(tmp_path, small_bpe) -> Path:
    """A folder with 48 MB of text, a tokenizer and a script that builds its shards."""
    small_bpe.save(tmp_path / "tokenizer.json")
    (tmp_path / "build.py").write_text(BUILD)
    (tmp_path / "text").mkdir()
    page = "".join(sentence(30, seed) for seed in range(8000))
    for number in range(3):
        with (tmp_path / "text" / f"{number}.txt").open("w", encoding="utf-8") as file:
            file.write(f"Book {number}\n")
            while file.tell() < 16 << 20:
                file.write(page)
    return tmp_path


@pytest.mark.slow
def test_memory_stays_far_below_the_texts_size_times_its_tokens(large_text):
    build = start_build(large_text)
    largest, watched = 0, psutil.Process(build.pid)
    while build.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            largest = max(largest, sum(process.memory_info().rss for process in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    output = build.stdout.read().splitlines()
    build.stdout.close()
    assert build.returncode == 0
    assert output[-1].startswith("False ")  # torch is not needed, so no worker pays for it
    assert largest < 500 << 20  # each of four processes starts at about 60 MB; measured 243 MB in all


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_nothing_that_is_used_and_no_worker_behind(large_text):
    build = start_build(large_text)
    for _ in range(5):
        build.stdout.readline()
    workers = psutil.Process(build.pid).children(recursive=True)
    assert workers
    build.kill()
    build.wait()
    build.stdout.close()
    assert [p.name for p in (large_text / "cache").glob("tokens-*")] == []
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    again = start_build(large_text)
    assert again.communicate()[0].splitlines()[-1].startswith("False ")
    assert again.returncode == 0
    assert len(list((large_text / "cache").glob("tokens-*"))) == 1


def test_a_separator_makes_documents_and_another_fingerprint(tmp_path, small_bpe):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"Story number {i} of the cat.\n<|endoftext|>\n" for i in range(30)))
    whole = prepare_tokens(path, small_bpe, cache_folder=tmp_path / "cache")
    stories = prepare_tokens(
        path, small_bpe, cache_folder=tmp_path / "cache", document_separator="<|endoftext|>", val_fraction=0.2
    )
    assert (whole.n_documents, stories.n_documents) == (1, 30)
    assert whole.fingerprint != stories.fingerprint
    ids = [*stories.train.tolist(), *stories.val.tolist()]
    assert ids.count(small_bpe.end_of_text_id) == 30 - 2  # between the documents of each side


def test_characters_are_counted_beside_bytes(tmp_path, tiny_tokenizer):
    (tmp_path / "text.txt").write_text("Thé cat sat. " * 50, encoding="utf-8")
    tokens = prepare_tokens(
        tmp_path / "text.txt", tiny_tokenizer, cache_folder=tmp_path / "cache", val_fraction=0.0
    )
    assert (tokens.train_n_characters, tokens.train_n_bytes) == (650, 700)
