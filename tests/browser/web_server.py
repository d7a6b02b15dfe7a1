"""A server with tiny trained models and runs, and visits to its page that note what it reports and asks for."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from scratchlm.core.seed import seed_everything
from scratchlm.finetuning.heads import replace_head
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.serving.language_model import LanguageModel
from scratchlm.serving.models import ModelSource, ServedModel, served
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.browser.window import Window
from tests.serving.conftest import RunningServer, running

STORY = (
    "Once upon a time a cat sat on a mat. The dog saw the cat, and the cat saw the dog. They ran to the mat."
)
CONTEXT = 2048  # long enough to be stopped on the way


def trained(
    text: str, tokenizer: Any, folder: Any, *, n_steps: int = 40, seed: int = 1, **task: Any
) -> LanguageModel:
    """A language model that has read one text a few times; with `classes`, a classifier on top of it."""
    seed_everything(seed)
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size, context_length=CONTEXT, emb_dim=32, n_heads=2, n_layers=2
    )
    model = GPTModel(config)
    ids = torch.tensor([tokenizer.encode(f"{text} {text}")])  # (1, T)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(n_steps):
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if task.get("kind") == "classification":
        replace_head(model, len(task["classes"]))
    return LanguageModel(model.eval(), tokenizer, task=task, folder=folder)


def web_models(folder: Any) -> list[ServedModel]:
    """A base model, an assistant and a classifier, each trained for a second."""
    tokenizer = train_bpe([STORY], 300)
    models = {
        "tiny/base": trained(STORY, tokenizer, folder),
        "tiny/assistant": trained(
            STORY, tokenizer, folder, seed=2, kind="instruction", template="plain", exchanges=3
        ),
        "tiny/spam": trained(
            STORY, tokenizer, folder, seed=3, kind="classification", classes=["ham", "spam"], max_length=40
        ),
    }
    return [served(ModelSource(name, f"runs/{name}"), lm) for name, lm in models.items()]


class GrowingRuns:
    """A folder of two runs, one of which is being trained: each reading finds it ten steps further.

    It also starts and stops them, at once.
    """

    def __init__(self, texts: list[str] | None = None, name: str = "day") -> None:
        self.step = 10
        self.is_stopped = False
        self.texts = texts or ["a cat", "a dog"]
        self.names = ("night", name)

    def _brief(self, name: str) -> dict[str, Any]:
        is_running = name == "night" and not self.is_stopped
        return {
            "name": name,
            "state": "running" if is_running else "complete",
            "problem": "",
            "made_by": "run (pretrain, instruct)",
            "stages": ["pretrain", "instruct"],
            "step": self.step if is_running else 100,
            "figures": {} if is_running else {"pretrain": 1.5, "instruct": 0.5},
            "metrics": {"pretrain": "val_loss", "instruct": "exact_match"},
            "size_bytes": 1,
            "changed_at": 1.0,
        }

    def all_runs(self) -> list[dict[str, Any]]:
        self.step += 10
        return [self._brief(name) for name in self.names]

    def one_run(self, name: str) -> dict[str, Any] | None:
        if name not in self.names:
            return None
        rows = [
            {
                "step": s,
                "tokens": 64 * s,
                "elapsed_s": 0.1 * s,
                "train_loss": 5 / (1 + s),
                "val_loss": 6 / (1 + s),
            }
            for s in range(0, self.step, 5)
        ]
        return {
            **self._brief(name),
            "settings": {"pretrain": {"max_steps": 1000}},
            "history": {"pretrain": rows},
            "samples": [
                {"step": 5 * i, "prompt": "Once", "text": f"Once {t}"} for i, t in enumerate(self.texts)
            ],
            "has_report": name != "night",
        }

    def answers(self, name: str) -> dict[str, Any] | None:
        if name not in self.names:
            return None
        return {
            "problems": [],
            "columns": [{"label": name, "score_name": "score by x", "score_max": 100}],
            "items": [
                {
                    "instruction": text,
                    "input": text,
                    "reference": text,
                    "skill": text[:20],
                    "spread": None,
                    "answers": [
                        {
                            "text": text,
                            "score": float(i % 101),
                            "right": i % 2 == 0,
                            "words": text,
                            "status": "scored",
                        }
                    ],
                }
                for i, text in enumerate(self.texts)
            ],
        }

    def start(self, *, seed: int | None) -> str:
        self.names = (*self.names, f"seed {seed}")
        return self.names[-1]

    def stop(self, name: str) -> bool:
        self.is_stopped = True
        return name == "night"

    def pending(self) -> list[dict[str, Any]]:
        return []

    def report(self, name: str) -> str | None:
        script = "<script>document.querySelector('p').append(' and its script')</script>"
        return f"<!doctype html><title>r</title><p>the report</p>{script}" if name != "night" else None


@contextlib.contextmanager
def web_server(folder: Any, runs: Any = None) -> Iterator[RunningServer]:
    """Serve the page with these models on a free port."""
    runs = runs or GrowingRuns()
    with running(web_models(folder), runs=runs, control=runs) as server:
        yield server


class Visit(Window):
    """A window on the server's page."""

    def __init__(self, browser: Any, server: RunningServer, **options: Any) -> None:
        super().__init__(browser, own=(server.url, "blob:", "data:"), accept_downloads=True, **options)
        self.url = server.url
        self.page.set_default_timeout(30_000)

    def open(self, address: str = "") -> Any:
        self.page.goto(f"{self.url}/#/{address}")
        self.page.wait_for_selector("main > div > *")
        return self.page
