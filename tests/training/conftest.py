"""A model small enough to train in milliseconds, and examples to train it on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchlm.checkpoints.store import checkpoint_step, list_checkpoints
from scratchlm.core.errors import CheckpointError
from scratchlm.core.seed import seed_everything
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.windows import TokenWindows
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.training.config import TrainingConfig
from scratchlm.training.history import History
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.progress import RunFolder
from scratchlm.training.settings import ModelSettings, PretrainSettings, TokenizerSettings
from scratchlm.training.trainer import Trainer
from tests.conftest import StopAt
from tests.ranks import Launcher
from tests.threads import one_thread  # noqa: F401
from tests.tiny import tiny_gpt

TEXT = "the cat sat on the mat and the dog sat on the log while a bird sang in the tree " * 30


SENTENCES = "the cat sat on the mat. a dog saw the cat and ran to the tree, where a bird sang. "
SMALL = ModelSettings(context_length=16, emb_dim=16, n_heads=2, n_layers=1, drop_rate=0.1)


@pytest.fixture(scope="session")
def small_tokenizer():
    return train_bpe([TEXT], 300)


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(SENTENCES * 60, encoding="utf-8")
    return str(path)


@pytest.fixture
def quick(corpus, own_home):
    """A function that makes settings for a run of a moment."""

    def make(*, training=None, **changes):
        steps = {
            "max_steps": 4,
            "batch_size": 4,
            "warmup_steps": 1,
            "learning_rate": 1e-2,
            **(training or {}),
        }
        defaults = {"data": (corpus,), "tokenizer": TokenizerSettings(vocab_size=300), "model": SMALL}
        return PretrainSettings(training=TrainingConfig(**steps), **{**defaults, **changes})

    return make


@pytest.fixture
def stories(tmp_path):
    """A file of short documents."""
    path = tmp_path / "stories.jsonl"
    texts = [f"{SENTENCES[i % 40 :]} a bird sang." for i in range(80)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.fixture
def tiny_run(small_tokenizer, tmp_path):
    """A function that builds trainer and loaders afresh, as a restarted process would."""

    def build(folder: Path | None = None, *, drop_rate: float = 0.1, seed: int = 3, **settings):
        config = TrainingConfig(
            **{
                "max_steps": 12,
                "batch_size": 4,
                "learning_rate": 1e-2,
                "warmup_steps": 2,
                "seed": seed,
                **settings,
            }
        )
        seed_everything(config.seed)
        changes = {"drop_rate": drop_rate, "tie_embeddings": True, "init": "gpt2"}
        model = tiny_gpt(small_tokenizer.vocab_size, context_length=8, **changes)
        ids = small_tokenizer.encode(TEXT)
        n_val = 80
        train = BatchLoader(
            TokenWindows(ids[:-n_val], context_length=8),
            batch_size=config.batch_size,
            seed=seed,
            drop_last=True,
        )
        val = BatchLoader(TokenWindows(ids[-n_val:], context_length=8), batch_size=4, shuffle=False)
        run = RunFolder(path=folder, tokenizer=small_tokenizer) if folder else None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        return Trainer(model, PretrainingTask(), config, run=run), train, val

    return build


def stopped_at(run, step, *, resume=False) -> Trainer:
    """The trainer of a `tiny_run`, stopped by a signal after a step."""
    trainer, train, val = run
    trainer.callbacks = [StopAt(step)]
    with pytest.raises(StoppedBySignal) as stop:
        trainer.fit(train, val, resume=resume)
    assert stop.value.exit_code == 130
    return trainer


def finished(run, *, resume=False, losses=None) -> Trainer:
    """The trainer of a `tiny_run`, after `fit`; `losses` are the validation losses by step, 9.0 at the others."""
    trainer, train, val = run
    if losses is not None:
        trainer.task.metrics = lambda model, loader, total: {"loss": losses.get(trainer.progress.step, 9.0)}
    trainer.fit(train, val, resume=resume)
    return trainer


def refused(run, message: str) -> None:
    """Resuming a `tiny_run` is refused with this message."""
    trainer, train, val = run
    with pytest.raises(CheckpointError, match=message):
        trainer.fit(train, val, resume=True)


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run folder."""
    return [checkpoint_step(checkpoint) for checkpoint in list_checkpoints(folder)]


def metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics, without times and memory."""
    clocks = {"tokens_per_s", "elapsed_s", "memory_bytes"}
    records = History(run / "metrics.jsonl").records()
    return [{key: value for key, value in record.items() if key not in clocks} for record in records]


def assert_same_run(run: Path, undisturbed: Path) -> None:
    """The same files, the same checkpoints to the last bit, and the same metrics."""
    names = [
        sorted(path.relative_to(one).as_posix() for path in one.rglob("*")) for one in (run, undisturbed)
    ]
    assert names[0] == names[1]
    for checkpoint in list_checkpoints(undisturbed):
        for file in ("model.safetensors", "training_state.safetensors"):
            other = run / "checkpoints" / checkpoint.name / file
            assert other.read_bytes() == (checkpoint / file).read_bytes(), other
    assert metrics(run) == metrics(undisturbed)


def damage(checkpoint: Path) -> Path:
    """Change one bit of a checkpoint's weights; returns the file."""
    file = checkpoint / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    return file


def assert_same_weights(one: Trainer, other: Trainer) -> None:
    """Every parameter of the two models is equal to the last bit."""
    state, others = one.model.state_dict(), other.model.state_dict()
    assert state.keys() == others.keys()
    for name, weight in state.items():
        assert torch.equal(weight, others[name]), name


@pytest.fixture(scope="module")
def launcher():
    """A process that starts ranks."""
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture
def saved_tokenizer(small_tokenizer, tmp_path):
    """The path of a tokenizer file."""
    small_tokenizer.save(tmp_path / "tokenizer.json")
    return str(tmp_path / "tokenizer.json")
