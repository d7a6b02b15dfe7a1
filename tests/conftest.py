"""What tests share: tiny models, tiny text, and the way to real data when it is there."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from scratchlm.core import seed
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers import BPETokenizer, train_bpe
from scratchlm.training.callbacks import Callback
from tests.servers.judge_server import JudgeServer

hypothesis.settings.register_profile("scratchlm", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("scratchlm")
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with GPT-2's BPE files, the SMS collection and public-domain text; skips where it is absent."""
    named = os.environ.get("SCRATCHLM_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not (folder / "gpt2_bpe" / "vocab.bpe").is_file():
        pytest.skip(f"real data not found in {folder}; set SCRATCHLM_TEST_DATA to a folder that holds it")
    return folder


@pytest.fixture(autouse=True)
def downloads_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget HF_HUB_OFFLINE, which test files set for transformers' import, so that loopback servers are asked."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def tiny_corpus() -> str:
    """A little English with punctuation, numbers and line ends."""
    return (
        "The cat sat on the mat. The dog, who had 12 bones, sat on the log!\n"
        "Wasn't it odd? They'd say: \"We're cats; we've mats.\" -- and so on...\n\n"
    ) * 40


@pytest.fixture(scope="session")
def tiny_tokenizer() -> BPETokenizer:
    """BPE of 300 tokens, learnt from a few lines."""
    return train_bpe(["The cat sat on the mat and the dog sat on the log. " * 40], 300)


@pytest.fixture
def tiny_config() -> GPTConfig:
    return GPTConfig(
        vocab_size=61, context_length=12, emb_dim=16, n_heads=4, n_layers=2, drop_rate=0.1, qkv_bias=True
    )


@pytest.fixture
def tiny_model(tiny_config: GPTConfig) -> GPTModel:
    """In evaluation mode, with torch's initialisation, whose logits differ clearly from token to token."""
    torch.manual_seed(0)
    return GPTModel(tiny_config).eval()


@pytest.fixture
def generator() -> torch.Generator:
    return seed.generator(0)


class StopAt(Callback):
    """A callback that sends this process a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def on_step(self, record) -> None:
        if record.step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def stop_at() -> type[StopAt]:
    return StopAt


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    """Speaks Ollama's and OpenAI's protocols; no proxy, address or key of this machine gets in the way."""
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with JudgeServer() as running:
        yield running
