"""Tiny models of each kind behind a real server on a loopback port."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from scratchlm.core.seed import seed_everything
from scratchlm.finetuning.heads import replace_head
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.serving.app import create_app
from scratchlm.serving.language_model import LanguageModel
from scratchlm.serving.models import ModelSource, ServedModel, served
from scratchlm.serving.run_server import DrainingServer, address_of, configured, open_socket
from scratchlm.serving.service import Service
from scratchlm.serving.settings import ServeSettings
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.threads import one_thread  # noqa: F401

CORPUS = "once upon a time a cat sat on a mat and a dog saw the cat and the mat. Q: who?\nA: the cat! " * 4
CONTEXT = 64


def tiny_lm(tokenizer, folder, *, seed=3, context_length=CONTEXT, **task) -> LanguageModel:
    """A language model with random weights whose next token is far from certain."""
    seed_everything(seed)
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size, context_length=context_length, emb_dim=16, n_heads=2, n_layers=2
    )
    model = GPTModel(config).eval()
    if task.get("kind") == "classification":
        replace_head(model, len(task["classes"]))
    return LanguageModel(model.eval(), tokenizer, task=task, folder=folder)


@pytest.fixture(scope="session")
def small_tokenizer():
    return train_bpe([CORPUS], 300)


@pytest.fixture(scope="session")
def language_models(small_tokenizer, tmp_path_factory) -> dict[str, LanguageModel]:
    """One model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "base": tiny_lm(small_tokenizer, folder),
        "chat": tiny_lm(small_tokenizer, folder, seed=4, kind="instruction", template="plain", exchanges=3),
        "spam": tiny_lm(
            small_tokenizer, folder, seed=5, kind="classification", classes=["ham", "spam"], max_length=20
        ),
    }


def served_models(language_models) -> list[ServedModel]:
    """The models as a list of a server; each server has its own."""
    return [served(ModelSource(name, f"runs/{name}"), lm) for name, lm in language_models.items()]


@dataclass
class RunningServer:
    """A server in a thread of this process."""

    url: str
    service: Service
    uvicorn: Any
    thread: threading.Thread
    app: Any
    headers: dict[str, str] = field(default_factory=dict)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=30) as client:
            return client.post(f"{self.url}{path}", json=body, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=30) as client:
            return client.get(f"{self.url}{path}", **options)

    def stream(self, path: str, body: Any) -> list[str]:
        """The lines of a streamed answer."""
        with (
            httpx.Client(trust_env=False, timeout=30) as client,
            client.stream("POST", f"{self.url}{path}", json=body) as r,
        ):
            assert r.status_code == 200, r.read()
            return [line for line in r.iter_lines() if line]

    def wait_until_idle(self, seconds: float = 2.0) -> bool:
        """Whether nothing is open, running or waiting within this time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            engines = [one.engine for one in self.service.worker._running.values()]
            if self.service.n_open == 0 and not any(engine.has_work for engine in engines):
                return True
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def running(models, settings: ServeSettings | None = None, **options: Any) -> Iterator[RunningServer]:
    """Serve these models on a free port while the block runs."""
    settings = dataclasses.replace(settings or ServeSettings(), port=0)
    app = create_app(models, settings, **options)
    with open_socket(settings) as bound:
        bound.listen(512)
        server = DrainingServer(configured(app, settings), app.state.service, lambda: None)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.005)
        assert server.started
        try:
            yield RunningServer(address_of(bound), app.state.service, server, thread, app)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def server(language_models) -> Iterator[RunningServer]:
    """One server for all tests that leave it as it was."""
    with running(served_models(language_models)) as one:
        yield one
