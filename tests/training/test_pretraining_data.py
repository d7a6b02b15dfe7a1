"""The tokens of a pre-training run: splits, shards, documents apart, and texts mixed by weight."""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from scratchlm.checkpoints.store import load_model
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import CheckpointError, ConfigError, DataError
from scratchlm.core.files import read_json, write_json
from scratchlm.core.protocols import no_progress
from scratchlm.data.mixture import MixedWindows
from scratchlm.data.shards import prepare_tokens
from scratchlm.data.windows import TokenWindows
from scratchlm.evaluation.loss import TextLoss, text_loss
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.word import StrictWordTokenizer
from scratchlm.training import settings as settings_module
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.pretraining import (
    PretrainingTask,
    pretrain,
)
from scratchlm.training.pretraining_data import tokenizer_of_run
from scratchlm.training.settings import TextSettings, TokenizerSettings
from tests.training.conftest import SENTENCES

CPU = torch.device("cpu")


# --- sides that are too short


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": TextSettings(val_fraction=0.999)}, ("the training text", "--data")),
        ({"text": TextSettings(val_fraction=0.001)}, ("the validation text", "--val-fraction", "--val-data")),
    ],
)
def test_a_text_too_short_for_a_window_is_named_by_its_side(quick, tmp_path, changes, words):
    with pytest.raises(DataError) as error:
        pretrain(quick(**changes), tmp_path / "run", device=CPU)
    for word in (*words, "at least 17 tokens"):
        assert word in str(error.value)


def test_validation_text_of_its_own_that_is_too_short_is_named(quick, tmp_path):
    (tmp_path / "val.txt").write_text("the cat")
    with pytest.raises(DataError, match=r"the validation text must have .* give more with --val-data"):
        pretrain(quick(val_data=(str(tmp_path / "val.txt"),)), tmp_path / "run", device=CPU)


# --- token shards


@pytest.fixture
def shards(corpus, tmp_path):
    """A folder of token shards, and the tokenizer.json that made them."""
    tokenizer = train_bpe([SENTENCES * 10], 300)
    tokenizer.save(tmp_path / "tokenizer.json")
    tokens = prepare_tokens(corpus, tokenizer, cache_folder=tmp_path / "shards")
    return str(tokens.folder), str(tmp_path / "tokenizer.json")


def test_training_on_shards_is_training_on_the_text_they_were_made_of(quick, corpus, shards, tmp_path):
    folder, path = shards
    named = TokenizerSettings(path=path)
    losses = [
        pretrain(quick(data=(data,), tokenizer=tokenizer), tmp_path / name, device=CPU).train_loss
        for name, data, tokenizer in (
            ("text", corpus, named), ("named", folder, named), ("beside", folder, TokenizerSettings())
        )
    ]  # fmt: skip
    assert losses[0] == losses[1] == losses[2]


def test_shards_without_their_tokenizer_say_how_to_name_it(quick, shards, tmp_path):
    (Path(shards[0]) / "tokenizer.json").unlink()
    with pytest.raises(
        DataError, match=r"not the tokenizer.json that made them; name it with --tokenizer.path"
    ):
        pretrain(quick(data=shards[:1]), tmp_path / "run", device=CPU)


def test_shards_beside_other_data_are_refused(quick, corpus, shards, tmp_path):
    with pytest.raises(DataError, match="token shards must be the only data"):
        pretrain(quick(data=(corpus, shards[0])), tmp_path / "run", device=CPU)


def test_a_batch_larger_than_the_data_is_told(quick, tmp_path):
    told = []
    pretrain(
        quick(training={"batch_size": 5000, "max_steps": 1}), tmp_path / "run", device=CPU, notify=told.append
    )
    assert any(message.startswith("batch_size 5000 is more than the") for message in told)


# --- attention within documents


def test_attention_within_documents_holds_in_training_and_validation(quick, stories, tmp_path):
    runs = {}
    for is_within in (False, True):
        settings = quick(
            data=(stories,),
            text=TextSettings(val_fraction=0.2, attend_within_documents=is_within),
            training={"max_steps": 8, "eval_every_steps": 8},
        )
        runs[is_within] = pretrain(settings, tmp_path / str(is_within), device=CPU)
    assert runs[True].train_loss != runs[False].train_loss
    loaded = load_model(tmp_path / "True")
    assert loaded.manifest["attend_within_documents"] is True
    data, start = runs[True].data, loaded.tokenizer.end_of_text_id
    losses = {
        is_within: text_loss(
            loaded.model, data.val[0], n_bytes=1, start_id=start, within_documents=is_within
        ).loss
        for is_within in (False, True)
    }
    assert runs[True].final.loss == losses[True] != losses[False]
    records = (tmp_path / "True" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    [in_training] = {
        record["val_loss"]
        for line in records
        if "val_loss" in (record := json.loads(line)) and record["step"] == 8
    }
    windows = TokenWindows(data.val[0], context_length=16, document_start=start)
    batch = windows.batch(range(len(windows)))
    assert in_training == pytest.approx(PretrainingTask().metrics(loaded.model, [batch])["loss"], rel=1e-5)


def test_a_run_within_documents_resumes_within_documents_only(quick, stories, tmp_path):
    within, across = (TextSettings(attend_within_documents=is_within) for is_within in (True, False))
    pretrain(quick(data=(stories,), text=within), tmp_path / "run", device=CPU)
    with pytest.raises(CheckpointError, match="another attend_within_documents"):
        pretrain(quick(data=(stories,), text=across), tmp_path / "run", device=CPU, resume=True)


def test_attention_within_documents_needs_documents(quick, corpus, tmp_path):
    within = TextSettings(attend_within_documents=True)
    with pytest.raises(ConfigError, match="a text of several documents, got one"):
        pretrain(quick(text=within), tmp_path / "run", device=CPU)


def test_files_of_one_document_each_are_documents_and_too_few_of_them_are_told(
    quick, corpus, tmp_path, caplog
):
    (tmp_path / "other.txt").write_text("A bird sang. " + SENTENCES * 300, encoding="utf-8")
    settings = quick(
        data=(corpus, str(tmp_path / "other.txt")), text=TextSettings(attend_within_documents=True)
    )
    result = pretrain(settings, tmp_path / "run", device=CPU)
    assert result.data.n_documents == 2
    [told] = [message for message in caplog.messages if "attend_within" in message]
    assert re.search(r"changes at most 1 of the \d{2,} training windows of .* \(documents: 2\); name", told)


def test_in_a_mixture_the_source_of_one_document_is_told(mixture, corpus, tmp_path, caplog):
    pretrain(mixture(text=TextSettings(attend_within_documents=True)), tmp_path / "run", device=CPU)
    [told] = [message for message in caplog.messages if "attend_within" in message]
    assert re.search(rf"at most 0 of the \d+ training windows of {re.escape(corpus)} \(documents: 1\)", told)


def test_attention_within_documents_needs_an_end_of_text_token(quick, corpus, tmp_path):
    words = SENTENCES.replace(".", " . ").replace(",", " , ").split()
    StrictWordTokenizer({word: i for i, word in enumerate(dict.fromkeys(words))}).save(
        tmp_path / "words.json"
    )
    settings = quick(
        tokenizer=TokenizerSettings(path=str(tmp_path / "words.json")),
        text=TextSettings(attend_within_documents=True),
    )
    with pytest.raises(ConfigError, match="needs a tokenizer with an end-of-text token"):
        pretrain(settings, tmp_path / "run", device=CPU)


# --- several texts mixed by weight


@pytest.fixture
def mixture(quick, corpus, stories):
    """A function that makes settings for a run on two texts, the smaller one repeated."""

    def make(**changes):
        defaults = {"data": (corpus, stories), "data_weights": (1.0, 3.0)}
        return quick(**{**defaults, **changes})

    return make


def test_texts_are_mixed_by_weight_and_the_tokens_of_each_are_counted(mixture, corpus, stories, tmp_path):
    told: list[str] = []
    settings = mixture(training={"max_steps": None, "epochs": 1.5, "batch_size": 4})
    result = pretrain(settings, tmp_path / "run", device=CPU, notify=told.append)
    assert sum(result.tokens_by_source) == result.tokens
    assert result.tokens_by_source[1] / result.tokens == pytest.approx(0.75, abs=0.02)
    assert result.data.names == (corpus, stories)
    [first, second] = (next(line for line in told if line.startswith(name)) for name in (corpus, stories))
    assert "25.0% of the training tokens" in first
    assert "75.0% of the training tokens" in second
    alone = [
        pretrain(
            mixture(
                data=(name,),
                data_weights=(),
                tokenizer=TokenizerSettings(path=f"{tmp_path}/run/tokenizer.json"),
            ),
            tmp_path / Path(name).stem,
            device=CPU,
        ).data
        for name in (corpus, stories)
    ]
    for i, one in enumerate(alone):
        assert (
            one.train[0].tolist() == result.data.train[i].tolist()
        )  # each text has the split that it has alone
        assert one.val[0].tolist() == result.data.val[i].tolist()
    assert [part.n_tokens for part in result.val_losses] == [len(one.val[0]) for one in alone]
    assert result.final == TextLoss.together(result.val_losses)


def test_the_tokens_of_each_text_are_those_that_training_saw(mixture, tmp_path, monkeypatch):
    seen: list[int] = []
    count = MixedWindows.batch

    def watched(self, indices):
        seen.extend(self.part_of(np.asarray(indices)) if len(self.quotas) == 2 else [])
        return count(self, indices)

    monkeypatch.setattr(MixedWindows, "batch", watched)
    training = {"max_steps": 11, "batch_size": 7, "accumulate": 2, "eval_every_steps": 0, "use": "last"}
    settings = mixture(training=training, val_data=(mixture().data[0],))
    result = pretrain(settings, tmp_path / "run", device=CPU)
    assert result.tokens_by_source == [16 * seen[: 11 * 7 * 2].count(part) for part in (0, 1)]


@pytest.mark.parametrize("stop_step", [1, 3])
def test_an_interrupted_mixture_goes_on_to_the_same_model(mixture, tmp_path, stop_step, stop_at):
    settings = mixture(training={"checkpoint_every_steps": 2})
    undisturbed = pretrain(settings, tmp_path / "a", device=CPU)
    with pytest.raises(StoppedBySignal):
        pretrain(settings, tmp_path / "b", device=CPU, callbacks=[stop_at(stop_step)])
    resumed = pretrain(settings, tmp_path / "b", device=CPU, resume=True)
    assert (resumed.final, resumed.tokens_by_source) == (undisturbed.final, undisturbed.tokens_by_source)
    one, other = (load_model(tmp_path / name).model.state_dict() for name in "ab")
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    with pytest.raises(CheckpointError, match="another data_fingerprint"):
        pretrain(mixture(data_weights=(2.0, 3.0)), tmp_path / "b", device=CPU, resume=True)


def test_shards_can_be_mixed_with_text_of_their_tokenizer(mixture, stories, shards, tmp_path):
    result = pretrain(mixture(data=(stories, shards[0])), tmp_path / "run", device=CPU)
    assert result.tokenizer.fingerprint == load_tokenizer(shards[1]).fingerprint
    assert result.data.sources[1].folder == Path(shards[0])


def test_a_mixtures_tokenizer_learns_from_the_share_of_each_text(mixture, tmp_path, monkeypatch):
    monkeypatch.setattr(settings_module, "TOKENIZER_TEXT_BYTES", 4000)
    read: list[str] = []
    learn = settings_module.learn_tokenizer

    def watched(kind, texts, **rest):
        read.extend(texts)
        return learn(kind, read, **rest)

    monkeypatch.setattr(settings_module, "learn_tokenizer", watched)
    texts = []
    for name, letter in (("a", "x"), ("b", "y")):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"{letter * 9} {i}" * 4}) + "\n" for i in range(400)))
        texts.append(str(path))
    tokenizer_of_run(
        mixture(data=tuple(texts)), tmp_path, (), lambda message: None, no_progress, resume=False
    )
    x, y = ("".join(read).count(letter) for letter in "xy")
    assert y / (x + y) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_weights": (1.0,)}, "one number each, got 1 for 2"),
        ({"data_weights": (1.0, -1.0)}, "above zero, got 1, -1"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_any_text_is_read(mixture, changes, words):
    with pytest.raises(ConfigError, match=words):
        mixture(**changes)


def test_a_text_of_a_mixture_that_is_too_short_is_named(mixture, corpus, tmp_path):
    (tmp_path / "short.txt").write_text("the cat sat on the mat")
    with pytest.raises(DataError, match=r"the training text of .*short.txt must have at least 17 tokens"):
        pretrain(mixture(data=(corpus, str(tmp_path / "short.txt"))), tmp_path / "run", device=CPU)


# --- shards larger than memory

SHARD_BYTES = 128 << 20


def grow_ours(folder: Path) -> None:
    """Make the training side of a token folder as large as SHARD_BYTES."""
    header = read_json(folder / "header.json")
    os.truncate(folder / "train.bin", SHARD_BYTES)  # a hole, which takes no disk, reads as zeros
    header["train"]["n_tokens"] = SHARD_BYTES // np.dtype(header["dtype"]).itemsize
    header["train"]["sha256"] = sha256_of_file(folder / "train.bin")
    write_json(folder / "header.json", header)


def grow_nanogpts(folder: Path) -> None:
    """Make a token folder one of nanoGPT, whose ids are counted at the start."""
    (folder / "header.json").unlink()
    os.truncate(folder / "train.bin", SHARD_BYTES)


@contextmanager
def at_most_more(n_bytes: int) -> Iterator[None]:
    """Let the process allocate so many bytes more; mapped files do not count (setrlimit(2), RLIMIT_DATA)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    gc.collect()
    now = psutil.Process().memory_info().data
    resource.setrlimit(resource.RLIMIT_DATA, (now + n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux limits the memory of a process by RLIMIT_DATA"
)
@pytest.mark.parametrize("grow", [grow_ours, grow_nanogpts])
def test_a_shard_is_never_read_into_memory_whole(quick, shards, tmp_path, grow):
    folder, path = Path(shards[0]), shards[1]
    training = {"max_steps": 9, "eval_every_steps": 5, "checkpoint_every_steps": 5}
    settings = quick(data=(str(folder),), tokenizer=TokenizerSettings(path=path), training=training)
    pretrain(settings, tmp_path / "small", device=CPU)  # whatever is imported or allocated once
    grow(folder)
    with at_most_more(48 << 20):  # a table of its 4 million windows would take 64 MiB while it is sorted
        result = pretrain(settings, tmp_path / "run", device=CPU)
        with pytest.raises(MemoryError):
            np.fromfile(folder / "train.bin", dtype=np.uint8)
    assert result.data.n_train_tokens == SHARD_BYTES // 2
