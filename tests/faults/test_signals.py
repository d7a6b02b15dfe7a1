"""SIGTERM and SIGINT at random instants of real processes end each with 143 or 130, soon and without a traceback."""

import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.processes import WORDS, start_command, start_python
from tests.thorough import THOROUGH

MODEL = "--model.n-layers 1 --model.emb-dim 16 --model.n-heads 2 --model.context-length 32 --tokenizer.vocab-size 300"
ENDLESS = {  # commands that take more than a minute
    "pretrain": f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 10000000 --out",
    "generate": "generate --model base --max-new-tokens 10000000 --prompt cat",
    "tokenizer train": "tokenizer train --data long.txt --vocab-size 60000 --out",
    "evaluate loss": "evaluate loss --model base --data long.txt --stride 1",
}
N_SIGNALS = 200 if THOROUGH else 40
WITHIN_S = 240.0  # on a busy machine; a signal that is ignored would leave the command at work
# The interpreter itself starts without us: there SIGTERM kills, and SIGINT fails one of its own steps (`init_...`).
BEFORE_US = ("Fatal Python error: init_", "Could not import runpy module")


@pytest.fixture(autouse=True)
def _signals_are_not_ignored():
    """A shell starts background jobs with SIGINT ignored, and children inherit that."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    draw = random.Random(0)
    lines = [f"The {' '.join(draw.choices(WORDS, k=8))} {draw.randrange(10**9)}.\n" for _ in range(200_000)]
    (folder / "text.txt").write_text("".join(lines[:300]))
    (folder / "long.txt").write_text("".join(lines))
    made = run(folder, f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 2 --out base")
    _, err = made.communicate(timeout=WITHIN_S)
    assert made.returncode == 0, err
    return folder


def run(folder: Path, command: str) -> subprocess.Popen[str]:
    return start_command(command.split(), here=folder, stdout=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", ENDLESS)
def test_a_signal_at_any_instant_ends_every_command_with_its_code(here, name):
    """Most signals come in the first second, with its parsing and imports; the others in the midst of work."""
    draw = random.Random(name)
    seen: Counter[tuple[str, int]] = Counter()
    for attempt in range(N_SIGNALS // len(ENDLESS)):
        number = draw.choice([signal.SIGTERM, signal.SIGINT])
        out = f"out-{name[:3]}-{attempt}" if ENDLESS[name].endswith("--out") else ""
        process = run(here, f"{ENDLESS[name]} {out}")
        time.sleep(draw.uniform(0.0, draw.choice([0.3, 1.0, 4.0])))
        process.send_signal(number)
        try:
            _, err = process.communicate(timeout=WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"{name} ignored {number.name}")
        code = process.returncode
        print(name, attempt, number.name, code)  # shown with -s
        seen[number.name, code] += 1
        is_ours = code == 128 + number
        assert is_ours or code == -number or (code == 1 and any(words in err for words in BEFORE_US)), (
            seen,
            err,
        )
        assert "Traceback" not in err or not is_ours, err
    assert seen["SIGTERM", 143] > 0
    assert seen["SIGINT", 130] > 0
    print(name, dict(seen))  # shown with -rP


@pytest.mark.slow
def test_a_second_signal_ends_a_command_that_tidies_up(here):
    script = (
        "import signal, sys, time\n"
        "from scratchlm.training.interrupts import process_signals\n"
        "process_signals.install()\n"
        "with process_signals.unwinding():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        print('tidying', flush=True); time.sleep(60)\n"
    )
    with start_python("-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "tidying\n"
        asked_at_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert time.monotonic() - asked_at_s < 5
