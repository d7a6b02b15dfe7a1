"""A base model small enough to fine-tune in a second, and data for it."""

import itertools

import pytest

from scratchlm.checkpoints.store import save_model
from scratchlm.core.seed import seed_everything
from scratchlm.data.classification_rows import LabelledText
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.threads import one_thread  # noqa: F401

SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu")
WORDS = ["".join(parts) for parts in itertools.product(SYLLABLES, repeat=3)]


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Tests write nowhere else."""
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def base_tokenizer():
    return train_bpe([" ".join(WORDS[:200]) + " win a prize now, see you at home tonight. Q: A: say"], 300)


@pytest.fixture
def tiny_model(base_tokenizer):
    """Three blocks, so that the last two are not all."""
    seed_everything(5)
    config = GPTConfig(
        vocab_size=base_tokenizer.vocab_size, context_length=48, emb_dim=16, n_heads=2, n_layers=3,
        drop_rate=0.1, tie_embeddings=True, init="gpt2",
    )  # fmt: skip
    return GPTModel(config)


@pytest.fixture
def base_folder(tiny_model, base_tokenizer, tmp_path):
    """The tiny model as a saved model folder."""
    return save_model(tmp_path / "base", tiny_model, base_tokenizer)


@pytest.fixture(scope="session")
def words():
    """A thousand made-up words."""
    return WORDS


@pytest.fixture
def messages():
    """70 spam and 110 ham messages, distinguished by their first words; 10 rows are near-copies of others."""
    spam = [f"WIN a prize now {WORDS[i]} {WORDS[999 - i]}" for i in range(70)]
    ham = [f"see you at home {WORDS[200 + i]} {WORDS[799 - i]}" for i in range(110)]
    rows = [*((text, "spam") for text in spam), *((text, "ham") for text in ham)]
    rows += [(text.upper() + "!!", label) for text, label in rows[65:75]]
    return [LabelledText(text=text, label=label) for text, label in rows]
