"""Commands in less and less memory: each works, or ends with exit 6 and says what to lower; never a traceback."""

import contextlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import one_thread
from tests.thorough import THOROUGH

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")]

WORDS = ["cat", "dog", "bird", "mouse", "sat", "ran", "slept", "on", "under", "the"]
MODEL = "--model.n-layers 2 --model.emb-dim 256 --model.n-heads 4 --model.context-length 256 --tokenizer.vocab-size 500"
SPARE_MB = (0, 4, 16, 32, 64, 96, 128, 256) if THOROUGH else (0, 32, 128)  # beyond what importing torch takes
COMMANDS = {
    "pretrain": f"pretrain --data text.txt {MODEL} --batch-size 32 --max-steps 1 --out out",
    "resume": "pretrain --out base --resume --max-steps 3",
    "finetune instruct": "finetune instruct --base base --data entries.json --out out --max-steps 1",
    "generate": "generate --model base --max-new-tokens 3 --prompt cat dog bird",
    "classify": "classify --model classifier the-cat-sat",
    "tokenizer train": "tokenizer train --data text.txt --vocab-size 600 --out out.json",
    "tokenizer encode": "tokenizer encode --tokenizer base cat",
    "data inspect": "data inspect text.txt --html page.html",
    "convert": "convert base out --to hf",
    "evaluate loss": "evaluate loss --model base --data text.txt",
}
# A process that has imported torch forks a child per attempt, whose address space may grow by so many bytes only. What
# torch imports at the first optimizer is there too: where memory ends in that, its C++ code may crash the process.
LAUNCHER = """
import json, os, resource, sys
import torch, torch._dynamo, torch.distributed.tensor
from scratchlm.cli.main import main
torch.set_num_threads(1)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(order["here"])
        for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
        if order["spare"] is not None:
            pages = int(open("/proc/self/statm").read().split()[0])
            limit = pages * resource.getpagesize() + order["spare"]
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        code = main(order["args"])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Launcher:
    """Runs commands in one folder, each in a fork of a process that has imported torch."""

    def __init__(self, here: Path, process: subprocess.Popen[str]) -> None:
        self.here = here
        self.process = process

    def run(self, command: str, *, spare_mb: int | None = None) -> tuple[int, str]:
        spare = None if spare_mb is None else spare_mb << 20
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"here": str(self.here), "args": command.split(), "spare": spare}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()), (self.here / "stderr").read_text()


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    here = tmp_path_factory.mktemp("memory")
    draw = random.Random(0)

    def words(n):
        return " ".join(draw.choices(WORDS, k=n)) + str(draw.randrange(1000))

    (here / "text.txt").write_text("".join(f"The {words(8)}.\n" for _ in range(3000)))
    entries = [{"instruction": words(6), "input": "", "output": words(3)} for _ in range(60)]
    (here / "entries.json").write_text(json.dumps(entries))
    rows = [f"spam\tprize {words(6)}\nham\thome {words(6)}\n" for _ in range(60)]
    (here / "messages.tsv").write_text("".join(rows))
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread(here / "home"),
        )  # fmt: skip
        stack.enter_context(process)
        stack.callback(process.kill)
        started = Launcher(here, process)
        for command in (
            f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 2 --out base",
            "finetune classify --base base --data messages.tsv --out classifier --max-steps 1",
        ):
            code, err = started.run(command)
            assert code == 0, err
        yield started


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_enough_memory_says_what_to_lower(launcher, name):
    codes = {}
    for spare_mb in SPARE_MB:
        shutil.rmtree(launcher.here / "out", ignore_errors=True)
        code, err = launcher.run(COMMANDS[name], spare_mb=spare_mb)
        codes[spare_mb] = code
        assert code in (0, 6), (codes, err[-2000:])
        assert "Traceback" not in err, err
        if code == 6:
            assert "scratchlm: error: memory ran out" in err
            assert " or " in err.rpartition(";")[2]
    print(name, codes)  # shown with -rP
    assert 6 in codes.values(), codes
