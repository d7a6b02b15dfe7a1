"""Two hosts, each with an address of its own, train one model; when one is lost the other says which."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from scratchlm.checkpoints.store import list_checkpoints
from tests.processes import WORDS, one_thread, start_python

pytestmark = pytest.mark.slow
PATIENCE_S = 250.0  # for four processes on a busy machine
PRETRAIN = (
    "pretrain --data text.txt --model.n-layers 1 --model.emb-dim 32 --model.n-heads 2 --model.context-length 32 "
    "--tokenizer.vocab-size 300 --batch-size 4 --eval-every-steps 20 --checkpoint-every-steps 10 --json"
)
ADDRESSES = ("10.213.77.1", "10.213.77.2")


class Hosts:
    """Two network namespaces that are joined by a cable; they share the file system."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.names = [f"slm{os.getpid()}{side}" for side in "ab"]

    def connect(self) -> str:
        """Make both; returns why that is not possible here, or ""."""
        one, other = self.names
        commands = [f"netns add {name}" for name in self.names]
        commands.append(f"link add {one} netns {one} type veth peer name {other} netns {other}")
        for name, address in zip(self.names, ADDRESSES):
            commands += [
                f"-n {name} addr add {address}/24 dev {name}",
                f"-n {name} link set {name} up",
                f"-n {name} link set lo up",
            ]
        for command in commands:
            try:
                done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
            except OSError as problem:
                return str(problem)
            if done.returncode != 0:
                return f"ip {command}: {done.stderr.strip()}"
        return ""

    def remove(self) -> None:
        """Delete both."""
        with suppress(OSError):
            for name in self.names:
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def start(self, number: int, args: str) -> subprocess.Popen[str]:
        """Start torchrun with one rank on a host."""
        name = self.names[number]
        options = f"--nnodes 2 --nproc-per-node 1 --node-rank {number} --master-addr {ADDRESSES[0]} --master-port 29517"
        words = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"]
        return subprocess.Popen(
            [*words, *options.split(), "-m", "scratchlm", *args.split()],
            cwd=self.here,
            env=one_thread(self.here / "home") | {"GLOO_SOCKET_IFNAME": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def hosts(tmp_path) -> Iterator[Hosts]:
    """Two hosts that share a folder with a text."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randint(0, len(WORDS), (400, 8), generator=generator).tolist()
    (tmp_path / "text.txt").write_text("\n".join(" ".join(WORDS[i] for i in line) for line in chosen))
    two = Hosts(tmp_path)
    try:
        if problem := two.connect():
            pytest.skip(f"network namespaces are not permitted here: {problem}")
        yield two
    finally:
        two.remove()


def test_two_hosts_give_the_loss_of_one_process(hosts):
    processes = [hosts.start(number, f"{PRETRAIN} --max-steps 20 --out two") for number in (0, 1)]
    outputs = [process.communicate(timeout=PATIENCE_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[1][0] == ""
    one = start_python(
        *f"-m scratchlm {PRETRAIN} --max-steps 20 --out one".split(),
        here=hosts.here,
        env=one_thread(hosts.here / "home"),
    )
    alone = json.loads(one.communicate(timeout=PATIENCE_S)[0])
    assert json.loads(outputs[0][0])["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-6)


@pytest.mark.parametrize("lost", [signal.SIGKILL, signal.SIGSTOP])
def test_the_loss_of_a_host_ends_the_other_which_names_its_rank(hosts, lost):
    args = f"{PRETRAIN} --max-steps 1000000 --out two --rank-timeout-s 20"
    processes = [hosts.start(number, args) for number in (0, 1)]
    members: list[int] = []
    try:
        give_up_at_s = time.monotonic() + PATIENCE_S
        while not list_checkpoints(hosts.here / "two"):
            assert time.monotonic() < give_up_at_s
            assert processes[0].poll() is None, processes[0].communicate()
            time.sleep(0.05)
        agent = processes[1].pid
        members = [agent, *map(int, Path(f"/proc/{agent}/task/{agent}/children").read_text().split())]
        for member in members:
            os.kill(member, lost)
        _, stderr = processes[0].communicate(timeout=PATIENCE_S)
    finally:
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        for process in processes:
            process.kill()
        processes[1].communicate()
    assert processes[0].returncode != 0
    assert "scratchlm: error: rank 1 on " in stderr
    assert "exitcode  : 4" in stderr
