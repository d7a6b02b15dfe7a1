"""The command line in this process: fast, its output caught, its files in temporary folders."""

import contextlib
import io
import json
import logging
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scratchlm.cli.main import main
from tests.processes import WORDS

TINY_MODEL = (
    "--model.n-layers 1 --model.emb-dim 16 --model.n-heads 2 --model.context-length 32 "
    "--tokenizer.vocab-size 300 --batch-size 4"
)
QUICK_CLASSIFIER = "--max-steps 2 --batch-size 8 --no-compare-raw-split"
QUICK_ASSISTANT = "--max-steps 2 --batch-size 4 --template plain --max-new-tokens 3"


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


def scratchlm(command: str) -> Outcome:
    """Run one command where no fixture can catch what it says."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command.split())
    return Outcome(code=code, out=out.getvalue(), err=err.getvalue())


@contextlib.contextmanager
def process_state_kept() -> Iterator[None]:
    """Commands set up logging and a signal handler for the process they own; tests share one."""
    root, earlier = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], _ = handlers, root.setLevel(level)
        signal.signal(signal.SIGTERM, earlier)


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SCRATCHLM_ASSETS", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with process_state_kept():
        yield


@dataclass(frozen=True)
class Life:
    """A tiny model's whole life, made once by the commands themselves."""

    folder: Path
    made: dict[str, Outcome]  # what each command said, with --json

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="session")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """`text.txt messages.tsv entries.json`, and out of them the runs `base classifier assistant`."""
    folder = tmp_path_factory.mktemp("life")
    draw = random.Random(0)

    def words(n: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(n))

    (folder / "text.txt").write_text("".join(f"The {words(8)}.\n" for _ in range(300)))
    spam = [f"spam\twin a free prize now {words(6)}" for _ in range(60)]
    ham = [f"ham\tsee you at home {words(6)}" for _ in range(60)]
    (folder / "messages.tsv").write_text("".join(f"{row}\n" for pair in zip(spam, ham) for row in pair))
    entries = [
        {"instruction": f"Say the word {words(2)}", "input": "", "output": words(1)} for _ in range(40)
    ]
    (folder / "entries.json").write_text(json.dumps(entries))
    made = {}
    with pytest.MonkeyPatch.context() as patch, process_state_kept():
        patch.setenv("SCRATCHLM_HOME", str(folder / "home"))
        patch.chdir(folder)
        made["pretrain"] = scratchlm(
            f"pretrain --data text.txt --out base --max-steps 4 {TINY_MODEL} --device cpu --json"
        )
        made["classify"] = scratchlm(
            f"finetune classify --base base --data messages.tsv --out classifier {QUICK_CLASSIFIER} --json"
        )
        made["instruct"] = scratchlm(
            f"finetune instruct --base base --data entries.json --out assistant {QUICK_ASSISTANT} --json"
        )
    for outcome in made.values():
        assert outcome.code == 0, outcome.err
    return Life(folder=folder, made=made)


@pytest.fixture
def run(capsys, monkeypatch):
    """Run one command in this process; returns exit code, standard output and standard error."""

    def run_one(command: str, *more: str, stdin: str | bytes | None = None) -> tuple[int, str, str]:
        if stdin is not None:
            content = stdin if isinstance(stdin, bytes) else stdin.encode()
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        capsys.readouterr()
        try:
            code = main([*command.split(), *more])
        except SystemExit as stop:  # how --help ends
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_one


@pytest.fixture
def run_json(run):
    """Run one command with --json; returns the one object that it printed."""

    def run_one(command: str, *more: str, stdin: str | bytes | None = None) -> dict:
        code, out, err = run(command, *more, "--json", stdin=stdin)
        assert code == 0, err
        assert out.count("\n") == 1
        value = json.loads(out)
        assert isinstance(value, dict)
        return value

    return run_one
