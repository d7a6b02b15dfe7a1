"""The commands under torchrun: the same results and files as in one process, whatever happens to a process."""

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from scratchlm.checkpoints.store import list_checkpoints, load_tensors
from tests.processes import WORDS, one_thread, start_python
from tests.thorough import THOROUGH

TINY = (
    "--model.n-layers 1 --model.emb-dim 32 --model.n-heads 2 --tokenizer.vocab-size 300 "
    "--pretrain.max-steps 12 --pretrain.eval-every-steps 6 --pretrain.optimizer adamw "
    "--classify.max-steps 6 --classify.token-noise 0 --classify.optimizer adamw --classify.no-compare-raw-split "
    "--instruct.max-steps 6 --instruct.max-new-tokens 4 --instruct.optimizer adamw"
)
PRETRAIN = (
    "pretrain --data text.txt --model.n-layers 1 --model.emb-dim 32 --model.n-heads 2 --model.context-length 32 "
    "--model.drop-rate 0.1 --tokenizer.vocab-size 300 --batch-size 4 --max-steps 60 --eval-every-steps 20 "
    "--checkpoint-every-steps 10 --seed 5"
)
PATIENCE_S = 300.0  # for some processes on a busy machine
KILL, STOP = signal.SIGKILL, signal.SIGSTOP
RANK_TIMEOUT_S = 40
TIMES = {
    "seconds",
    "stage_seconds",
    "earlier_seconds",
    "tokens_per_s",
    "peak_memory_bytes",
    "finished_at",
    "out",
}
# Two ranks sum gradients in another order: 12 steps in float32 differ by about 1e-6, and a prediction may be a tie.
SAME = 1e-4


@pytest.fixture
def here(tmp_path):
    """A folder with a text of random words."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randint(0, len(WORDS), (400, 8), generator=generator).tolist()
    (tmp_path / "text.txt").write_text("\n".join(" ".join(WORDS[i] for i in line) for line in chosen))
    return tmp_path


def torchrun(here: Path, args: str, *, options: str = "", n_ranks: int = 2) -> subprocess.Popen[str]:
    """Start a command in several processes."""
    words = f"-m torch.distributed.run --standalone --nproc-per-node {n_ranks} {options} -m scratchlm {args}"
    return start_python(*words.split(), here=here, env=one_thread(here / "home"))


def alone(here: Path, args: str) -> subprocess.Popen[str]:
    """Start a command in one process."""
    return start_python("-m", "scratchlm", *args.split(), here=here, env=one_thread(here / "home"))


def output_of(process: subprocess.Popen[str]) -> str:
    """The standard output of a command that must succeed."""
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    return stdout


def same(one: object, other: object) -> bool:
    """Whether two results are equal but for rounding and times."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one.keys() - TIMES)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=SAME, abs_tol=SAME)
    return one == other


def files_in(folder: Path) -> set[str]:
    """The files of a run, without those that are named after the time."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if "tfevents" not in name}


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The weights of a run's newest checkpoint."""
    return load_tensors(list_checkpoints(run)[-1] / "model.safetensors")


@pytest.mark.slow
def test_the_quickstart_on_two_ranks_ends_with_the_report_of_one_process(here):
    results = []
    for start, name in ((alone, "one"), (torchrun, "two")):
        results.append(json.loads(output_of(start(here, f"run quickstart {TINY} --out {name} --json"))))
    for stage in ("pretrain", "classify", "instruct"):
        assert same(*(result[stage] for result in results)), [result[stage] for result in results]
    assert files_in(here / "one") == files_in(here / "two")
    assert len(list((here / "two/tensorboard").iterdir())) == 1  # of rank 0 only


@pytest.mark.slow
def test_a_wrong_setting_is_one_message_and_ends_all_at_once(here):
    started_at_s = time.monotonic()
    process = torchrun(here, "pretrain --data missing.txt --out out")
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert stderr.count("scratchlm: error: ") == 1
    assert "exitcode  : 3" in stderr
    assert time.monotonic() - started_at_s < PATIENCE_S / 2


@pytest.mark.slow
def test_ranks_need_a_common_folder(here):
    _, stderr = torchrun(here, "pretrain --data text.txt").communicate(timeout=PATIENCE_S)
    assert "name it with --out" in stderr


@pytest.mark.slow
def test_an_interrupt_of_torchrun_saves_and_the_same_command_continues(here):
    output_of(torchrun(here, f"{PRETRAIN} --out whole"))
    process = torchrun(here, f"{PRETRAIN} --out cut")
    wait_for_checkpoint(here / "cut", process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    output_of(torchrun(here, f"{PRETRAIN} --out cut --resume"))
    assert_same_weights(here / "whole", here / "cut")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("n_ranks", "lost", "how"),
    [
        (2, 0, KILL),
        (2, 1, STOP),
        *([(2, 1, KILL), (3, 0, STOP), (3, 1, KILL), (4, 2, STOP)] if THOROUGH else []),
    ],
)
def test_after_the_loss_of_a_rank_torchrun_restarts_and_the_result_is_the_same_to_the_last_bit(
    here, n_ranks, lost, how
):
    """A rank that was killed, or hangs: the others then stop after the timeout, and one of them names it."""
    output_of(torchrun(here, f"{PRETRAIN} --out whole", n_ranks=n_ranks))
    command = f"{PRETRAIN} --out cut --rank-timeout-s {RANK_TIMEOUT_S}"
    process = torchrun(here, command, options="--max-restarts 2", n_ranks=n_ranks)
    wait_for_checkpoint(here / "cut", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    [rank] = [child for child in children if f"\0RANK={lost}\0" in Path(f"/proc/{child}/environ").read_text()]
    os.kill(int(rank), how)
    lost_at_s = time.monotonic()
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    if how == STOP:
        assert f"scratchlm: error: rank {lost} on " in stderr
        assert time.monotonic() - lost_at_s > RANK_TIMEOUT_S
    assert_same_weights(here / "whole", here / "cut")


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a run has its first checkpoint."""
    give_up_at_s = time.monotonic() + PATIENCE_S
    while not (run.exists() and list_checkpoints(run)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up_at_s
        time.sleep(0.02)


def assert_same_weights(one: Path, other: Path) -> None:
    """The newest checkpoints of two runs are of the same step and equal to the last bit."""
    assert list_checkpoints(one)[-1].name == list_checkpoints(other)[-1].name
    for name, weight in weights(one).items():
        assert torch.equal(weight, weights(other)[name]), name
