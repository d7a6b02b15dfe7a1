"""Start several processes that train one tiny model together, without the seconds that each would need to import torch.

Run as a program, it imports everything, reads orders as lines of JSON, forks a process per rank for each, and prints
their exit codes. `Launcher` is the other end.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from scratchlm.core.errors import ScratchLMError
from scratchlm.core.seed import seed_everything
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.windows import TokenWindows
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.config import TrainingConfig
from scratchlm.training.distributed import Ranks
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.progress import RunFolder
from scratchlm.training.rank_group import rank_group
from scratchlm.training.sharded_tensors import own_rows
from scratchlm.training.trainer import Trainer
from tests.finetuning.test_every_task_resumes import run_of
from tests.processes import one_thread
from tests.tiny import tiny_gpt

PATIENCE_S = 120.0  # for a process on a busy machine


class Launcher:
    """A process that starts groups of ranks."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ranks"],
            env=one_thread(Path("home")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, here: Path, n_ranks: int, **order: Any) -> list[int]:
        """Let `n_ranks` processes train in the folder `here`; returns their exit codes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        here.mkdir(exist_ok=True)
        self.process.stdin.write(json.dumps({"here": str(here), "n_ranks": n_ranks, **order}) + "\n")
        self.process.stdin.flush()
        return list(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


class Recorder(Callback):
    """A callback that keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.val_losses: list[float] = []
        self.tokens = 0
        self.checksum = 0.0  # of the weights after training

    def on_step(self, record: StepRecord) -> None:
        self.losses.append(record.train_loss)
        self.tokens = record.tokens

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        self.val_losses.append(metrics["val_loss"])


class WatchedTask(PretrainingTask):
    """Runs Python code before each loss, with its number as `n` and the rank; `is_poisoned = True` makes it NaN."""

    def __init__(self, code: str, rank: int) -> None:
        super().__init__()
        self.code, self.rank, self.n_calls = code, rank, 0

    def loss_sum(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if model.training:
            self.n_calls += 1
            names = {
                "n": self.n_calls,
                "rank": self.rank,
                "os": os,
                "signal": signal,
                "Error": ScratchLMError,
                "model": model,
            }
            exec(self.code, names)
            if names.get("is_poisoned"):
                return super().loss_sum(model, batch) * torch.nan
        return super().loss_sum(model, batch)


def pretraining(order: dict[str, Any], here: Path, rank: int) -> tuple[Trainer, BatchLoader, BatchLoader]:
    """A pre-training, in a run folder if the order has a tokenizer."""
    seed_everything(3)
    changes = {"drop_rate": order.get("drop_rate", 0.0), "tie_embeddings": True, "init": "gpt2"}
    model = tiny_gpt(300, context_length=8, n_layers=2, **changes)
    ids = ((torch.arange(4000) * 7919 % 1013) // 7).tolist()
    settings = {"max_steps": 12, "batch_size": 8, "warmup_steps": 4, "eval_every_steps": 5, "seed": 3}
    config = TrainingConfig(**{**settings, "checkpoint_every_steps": 4, **order.get("settings", {})})
    train = BatchLoader(TokenWindows(ids[:3000], context_length=8), batch_size=8, seed=3, drop_last=True)
    val = BatchLoader(TokenWindows(ids[3000:3300], context_length=8), batch_size=3, shuffle=False)
    run = None
    if "tokenizer" in order:
        run = RunFolder(path=here / "run", tokenizer=load_tokenizer(order["tokenizer"]))
        run.path.mkdir(exist_ok=True)
    return Trainer(model, WatchedTask(order.get("code", ""), rank), config, run=run), train, val


def train(order: dict[str, Any], rank: int) -> None:
    """Train as ordered, and leave losses and validation losses in `result.json`; the group's threads have ended."""
    with rank_group(timeout_s=order.get("timeout_s", PATIENCE_S)) as ranks:
        train_together(order, ranks)
    assert "pt_gloo_runloop" not in thread_names()


def train_together(order: dict[str, Any], ranks: Ranks) -> None:
    """Train as one of the ranks."""
    here = Path(order["here"])
    if "task" in order:
        tokenizer = load_tokenizer(order["tokenizer"])
        settings = {"precision": "float32", "drop_rate": 0.0, "accumulate": 2, **order.get("settings", {})}
        trainer, train, val = run_of(order["task"], here / "run", tokenizer, **settings)
    else:
        trainer, train, val = pretraining(order, here, ranks.rank)
    trainer.callbacks = [recorder := Recorder()]
    trainer.fit(train, val, resume=order.get("resume", False))
    with torch.no_grad():
        recorder.checksum = float(sum(p.double().square().sum() for p in trainer.model.parameters()))
    if ranks.is_main:
        n_held = sum(own_rows(p).numel() for p in trainer.optimizers.trainable.values())
        found = {**vars(recorder), "resumed_from": trainer.resumed_from, "n_held": n_held}
        (here / "result.json").write_text(json.dumps(found))


def thread_names() -> list[str]:
    """The names of this process's threads; none where the system does not tell (only Linux does)."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def rank_process(order: dict[str, Any], rank: int, port: int) -> int:
    """What each forked process does; returns its exit code."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(order["n_ranks"]), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    stderr = Path(order["here"]) / f"stderr-{rank}"
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    try:
        train(order, rank)
    except ScratchLMError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    except StoppedBySignal as stop:
        return stop.exit_code
    except SystemExit as stop:
        return int(str(stop.code))
    except BaseException:  # noqa: BLE001  (a forked process must not return to the loop of its parent)
        traceback.print_exc()
        return 1
    return 0


def free_port() -> int:
    """A port that no process uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    """Fork the ranks of each order, and wait for all of them; `hung` ones are killed after the others have ended."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        order, port = json.loads(line), free_port()
        children = []
        for rank in range(order["n_ranks"]):
            if (child := os.fork()) == 0:
                code = 0 if rank in order.get("absent", ()) else rank_process(order, rank, port)
                sys.stderr.flush()
                os._exit(code)
            children.append(child)
        codes: dict[int, int] = {}
        give_up_at_s = time.monotonic() + PATIENCE_S
        while len(codes) < len(children):
            waited, status = os.waitpid(-1, os.WNOHANG)
            if waited:
                codes[waited] = os.waitstatus_to_exitcode(status)
            is_late = time.monotonic() > give_up_at_s
            if is_late or len(children) - len(codes) <= order.get("n_hung", 0):
                for child in set(children) - set(codes):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        print(json.dumps([codes[child] for child in children]), flush=True)


if __name__ == "__main__":
    main()
