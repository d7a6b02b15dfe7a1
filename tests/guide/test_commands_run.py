"""Every command of the README and the guide runs, a page's in order, and prints what the page shows.

A page shows output in lines that begin with `    #> ` below a command. Each is one of the printed lines, in order;
`...` stands for any text, and numbers may differ by 5 %. What a trained model answers is compared only where
SCRATCHLM_QUICKSTART names the folder of a complete quickstart run; without it a short one takes its place.
"""

import json
import os
import pickle
import re
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchlm.data.samples.instructions import sample_instructions
from scratchlm.data.samples.messages import sample_messages
from scratchlm.data.samples.stories import sample_stories
from tests.checkpoints.test_config_of_weights import write_nanogpt

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(f"guide/{page.name}" for page in (ROOT / "guide").glob("*.md"))]
COMMAND = re.compile(
    r"^    ((?:cat \S+ \| )?(?:scratchlm|python llm_from_scratch\.py)\b.*)\n((?:    #> .*\n)*)", re.MULTILINE
)
SHORT_RUN = "--pretrain.max-steps 20 --classify.max-steps 5 --instruct.max-steps 5"
ASSISTANT = "SmolLM2-135M-Instruct.Q4_1.gguf"
ROMEO = "\n :EMOR"

# What cannot run here, by how it begins, and why.
NOT_RUN = {
    "scratchlm weights fetch": "needs the network",
    "scratchlm data fetch gpt2_bpe": "needs the network",
    "scratchlm data fetch sms_spam_collection": "needs the network",
    "scratchlm generate --model gpt2-small": "needs weights from the network",
    "scratchlm finetune classify --base gpt2-small": "needs weights from the network",
    "scratchlm finetune instruct --base gpt2-small": "needs weights from the network",
    "scratchlm evaluate judge --answers runs/quickstart --judge ollama:": "needs a running Ollama",
    "scratchlm evaluate judge --answers answers.jsonl --judge openai:": "needs a running server",
    "python llm_from_scratch.py --full": "needs weights and data from the network",
    "python llm_from_scratch.py": "runs whole in tests/packaging/test_script_and_notebook.py",
    "scratchlm serve": "runs until it is stopped; tests/cli/test_serve.py does both",
    "scratchlm verify": "takes a quarter of an hour; `verify --quick` runs here",
    f"scratchlm chat --model {ASSISTANT}": "has a test of its own below, where the real file is",
}
RUN_THOUGH = ("scratchlm verify --quick",)  # begins like one of them

# Flags behind a command, by how it begins: the same command, over sooner. A later flag wins.
SHORTER = {
    "scratchlm pretrain": "--max-steps 10 --model.size tiny",
    "scratchlm finetune classify": "--max-steps 3",
    "scratchlm finetune instruct": "--max-steps 3 --max-new-tokens 4",
    "scratchlm finetune prefer": "--max-steps 2 --max-new-tokens 4",
    "scratchlm evaluate memorization": "--max-new-tokens 20",
    "scratchlm evaluate judge --answers answers.jsonl --judge local:": "--no-controls",
}


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Each command of a page without its comment, and the lines that it is said to print."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = COMMAND.findall(text)
    return [
        (re.sub(r"\s+#.*", "", line).strip(), [s[7:] for s in shown.splitlines()]) for line, shown in found
    ]


EVERY_COMMAND = [line for page in PAGES for line, _ in commands(page)]


def reason_not_to_run(line: str) -> str | None:
    if line.startswith(RUN_THOUGH):
        return None
    return next((reason for start, reason in NOT_RUN.items() if line.startswith(start)), None)


def test_the_tables_name_only_commands_of_the_pages():
    for start in [*NOT_RUN, *SHORTER, *RUN_THOUGH]:
        assert any(line.startswith(start) for line in EVERY_COMMAND), start
    assert len(EVERY_COMMAND) > 50


class World:
    """A folder that holds what a page names, and a shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SCRATCHLM_HOME": str(folder / "home"), "COLUMNS": "200"}
        self.environment.pop("SCRATCHLM_ASSETS", None)

    def run(self, line: str, *, typed: str = "") -> subprocess.CompletedProcess[str]:
        shell = f'set -o pipefail; scratchlm() {{ "{sys.executable}" -m scratchlm "$@"; }}; {line}'
        return subprocess.run(
            ["bash", "-c", shell],
            cwd=self.folder, env=self.environment, input=typed, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def make(self, line: str) -> None:
        """Runs a command that must succeed for the page's own to be tried."""
        done = self.run(line)
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def write_lines(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        self.write(name, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def complete() -> bool:
    """Whether the quickstart that the commands find was trained to its end."""
    return "SCRATCHLM_QUICKSTART" in os.environ


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory, complete) -> Path:
    if complete:
        return Path(os.environ["SCRATCHLM_QUICKSTART"])
    world = World(tmp_path_factory.mktemp("quickstart"))
    world.make(f"scratchlm run quickstart {SHORT_RUN}")
    return world.folder / "runs" / "quickstart"


def write_data(world: World) -> None:
    """Stories, messages, instructions, pairs, questions and scores, under the names of the pages."""
    stories = sample_stories(n=120)
    for name, part in (("my_books/one.txt", stories[:60]), ("my_books/two.txt", stories[60:])):
        world.write(name, "\n\n".join(part))
    world.write("train.txt", "\n\n".join(stories))
    world.write("chapter.txt", "\n\n".join(sample_stories(n=8, split="val")))
    world.write("held_out.txt", "\n\n".join(sample_stories(n=40, split="val")))
    rows = [f"{message.label}\t{message.text}" for message in sample_messages()[:300]]
    for name, part in (("messages.tsv", rows), ("train.tsv", rows[:240]), ("test.tsv", rows[240:])):
        world.write(name, "\n".join(part) + "\n")
    world.write("messages.txt", "See you at six\nYou won a prize\n")
    entries = [
        {"instruction": one.instruction, "input": one.input, "output": one.output}
        for one in sample_instructions().train[:60]
    ]
    for name in ("instructions.json", "entries.json"):
        world.write(name, json.dumps(entries))
    pairs = [{"prompt": f"Say {i}", "chosen": f"The number {i}.", "rejected": "no"} for i in range(40)]
    world.write("pairs.json", json.dumps(pairs))
    endings = ["sat down.", "flew to the moon."]
    world.write_lines(
        "hellaswag.jsonl",
        [{"ctx": f"The cat no. {i}", "endings": endings, "label": 0, "ind": i} for i in range(6)],
    )
    world.write_lines("questions.jsonl", [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(4)])
    answers = [entry | {"model_response": entry["output"][::-1]} for entry in entries[:6]]
    world.write_lines("answers.jsonl", answers[:2])
    for name, score in (("a.jsonl", 50), ("b.jsonl", 60)):
        scores = [answer | {"score": score + i} for i, answer in enumerate(answers)]
        world.write_lines(name, scores)


def write_nanogpt_folders(folder: Path) -> None:
    """A checkpoint and a data folder, as nanoGPT's scripts leave them."""
    write_nanogpt(folder / "out-shakespeare-char")
    data = folder / "data" / "shakespeare_char"
    data.mkdir(parents=True)
    letters = "\n " + string.ascii_letters  # training writes a sample after a prompt in these
    for place, characters in ((data, letters), (folder / "out-shakespeare-char", ROMEO)):
        ids_of = {character: i for i, character in enumerate(characters)}
        meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": ids_of}
        (place / "meta.pkl").write_bytes(pickle.dumps(meta))
    ids = np.random.default_rng(0).integers(0, len(letters), 6000).astype(np.uint16)
    ids[:5000].tofile(data / "train.bin")
    ids[5000:].tofile(data / "val.bin")


PEFT_ADAPTER = """
import peft, transformers
model = transformers.AutoModelForCausalLM.from_pretrained("path/to/folder")
settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
peft.get_peft_model(model, settings).save_pretrained("adapter")
"""


@pytest.fixture
def world(request, quickstart, tmp_path) -> World:
    """What the page `request.param` names and does not make by its own commands."""
    made = World(tmp_path)
    shutil.copytree(quickstart, tmp_path / "runs" / "quickstart")
    write_data(made)
    lines = " \n".join(line for line, _ in commands(request.param) if reason_not_to_run(line) is None) + " "

    def needs(name: str, maker: str) -> bool:
        return name in lines and f"{maker}{name} " not in lines

    if needs("runs/books", "--out "):
        shutil.copytree(quickstart, tmp_path / "runs" / "books")
    if needs("runs/assistant", "--out "):  # a judge reads the question and 300 tokens about it
        made.make(
            "scratchlm pretrain --data my_books --model.size tiny --model.context-length 1024 --batch-size 1 "
            "--max-steps 1 --out runs/long"
        )
        made.make(
            "scratchlm finetune instruct --base runs/long --data entries.json --max-steps 1 --max-new-tokens 4 "
            "--out runs/assistant"
        )
    if needs("runs/wider", "--out "):
        for name, width in (("small", 32), ("wider", 64)):
            made.make(
                f"scratchlm pretrain --data my_books --model.size tiny --model.emb-dim {width} --max-steps 2 "
                f"--out runs/{name}"
            )
    if "path/to/folder" in lines or "somebody-elses-folder" in lines:
        made.make("scratchlm convert runs/quickstart path/to/folder --to hf")
        shutil.copytree(tmp_path / "path" / "to" / "folder", tmp_path / "somebody-elses-folder")
    if "convert adapter" in lines:
        made.write("make_adapter.py", PEFT_ADAPTER)
        made.make(f'"{sys.executable}" make_adapter.py')
    if "nanoGPT/" in lines:
        write_nanogpt_folders(tmp_path / "nanoGPT")
    return made


def numbers_and_words(line: str) -> list[str]:
    return re.findall(r"-?\d+(?:\.\d+)?|[^\s\d]+", line)


def agrees(shown: str, printed: str) -> bool:
    """Whether a printed line is the one shown: `...` is any text, numbers may differ by 5 %."""
    if "..." in shown:
        pattern = ".*".join(re.escape(part.strip()) for part in shown.split("..."))
        return re.fullmatch(pattern, printed.strip()) is not None
    ours, theirs = numbers_and_words(shown), numbers_and_words(printed)
    if len(ours) != len(theirs):
        return False
    is_number = re.compile(r"-?\d").match
    return all(
        a == b or (is_number(a) and is_number(b) and float(b) == pytest.approx(float(a), rel=0.05))
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize(
    ("shown", "printed", "is_same"),
    [
        ("spam\t0.98\tYou won", "spam 0.99 You won", True),
        ("spam 0.98 You won", "ham 0.98 You won", False),
        ("spam 0.98 You won", "spam 0.80 You won", False),
        ("spam ... You won", "spam\t0.51\tYou won", True),
        ("spam ... You won", "ham 0.51 You won", False),
        ("a (b)", "a (b) c", False),
    ],
)
def test_shown_lines_agree_with_printed_ones(shown, printed, is_same):
    assert agrees(shown, printed) == is_same


def missing_lines(shown: list[str], printed: str) -> list[str]:
    """The shown lines that were not printed, each looked for behind the one before it."""
    rest = iter(printed.splitlines())
    return [line for line in shown if not any(agrees(line, one) for one in rest)]


def complaint(world: World, line: str, shown: list[str], *, complete: bool) -> str | None:
    """What is wrong with a command of a page, or None."""
    ending = next((flags for start, flags in SHORTER.items() if line.startswith(start)), "")
    if line == "scratchlm run" and not complete:
        ending = f"quickstart {SHORT_RUN}"
    started_at_s = time.perf_counter()
    done = world.run(f"{line} {ending}", typed="Name a colour.\nAnd another?\n" if " chat " in line else "")
    print(f"{time.perf_counter() - started_at_s:.1f} s: {line} {ending}")
    if done.returncode != 0 or "Traceback" in done.stdout + done.stderr:
        return f"{line}\n  ended with {done.returncode}: {done.stderr[-1200:]}"
    is_trained = "runs/quickstart" in line
    missing = missing_lines(shown, done.stdout) if complete or not is_trained else []
    return f"{line}\n  should print {missing}, printed:\n{done.stdout[-1200:]}" if missing else None


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("world", "page"), [(page, page) for page in PAGES if commands(page)], ids=str, indirect=["world"]
)
def test_a_pages_commands_run_and_print_what_it_shows(world, page, complete):
    tried = [(line, shown) for line, shown in commands(page) if reason_not_to_run(line) is None]
    wrong = [complaint(world, line, shown, complete=complete) for line, shown in tried]
    assert not any(wrong), "\n\n".join(text for text in wrong if text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_assistant_of_the_pages_chats(real_data, tmp_path):
    weights = real_data / "weights" / ASSISTANT
    if not weights.is_file():
        pytest.skip(f"{ASSISTANT} is not among the files of SCRATCHLM_TEST_DATA")
    (tmp_path / ASSISTANT).symlink_to(weights)
    line = next(line for line in EVERY_COMMAND if line.startswith(f"scratchlm chat --model {ASSISTANT}"))
    done = World(tmp_path).run(line, typed="What is the capital of France?\n")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Paris" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2_bpe", "sms_spam_collection"])
def test_data_of_the_pages_is_found_in_a_folder_of_assets(real_data, tmp_path, name):
    world = World(tmp_path)
    world.environment["SCRATCHLM_ASSETS"] = str(real_data)
    line = f"scratchlm data fetch {name}"
    assert line in EVERY_COMMAND
    done = world.run(line)
    assert done.returncode == 0, done.stderr[-2000:]
