"""A model small enough to train in milliseconds, and examples to train it on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scratchlm.core.seed import seed_everything
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.windows import TokenWindows
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.training.config import TrainingConfig
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.progress import RunFolder
from scratchlm.training.trainer import Trainer

TEXT = "the cat sat on the mat and the dog sat on the log while a bird sang in the tree " * 30


@pytest.fixture(scope="session")
def small_tokenizer():
    return train_bpe([TEXT], 300)


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
        model = GPTModel(
            GPTConfig(
                vocab_size=small_tokenizer.vocab_size,
                context_length=8,
                emb_dim=16,
                n_heads=2,
                n_layers=1,
                drop_rate=drop_rate,
                tie_embeddings=True,
                init="gpt2",
            )
        )
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


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from threads, and other tests may run beside these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
