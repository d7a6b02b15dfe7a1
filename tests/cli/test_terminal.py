"""Whatever a prompt, a file, a label, a name or a model holds: no command sends it to the terminal as it is."""

import io
import json
import random
import re
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from scratchlm.cli import terminal
from scratchlm.cli.streams import PrintableStream
from scratchlm.core.printable import NOT_PRINTABLE
from scratchlm.generation.requests import TokenEvent

OSC_52 = "\x1b]52;c;cm0gLXJmIC8=\x07"  # would fill the clipboard
LINK = "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\"
EVIL = f"{OSC_52}{LINK}\x1b[2J\x9b31m\rover\b\u202ereversed[bold red]:dog:"


def assert_harmless(*outputs: str) -> None:
    for output in outputs:
        assert NOT_PRINTABLE.findall(output) == []


@pytest.fixture
def evil_data():
    draw = random.Random(0)

    def words() -> str:
        return " ".join("".join(draw.choices("abcdefghij", k=5)) for _ in range(8))

    rows = [f'"{EVIL} {words()}","a{EVIL}"\n"{words()}",b\n' for _ in range(60)]
    Path("evil.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    Path("evil.txt").write_text(f"{EVIL} the cat sat.\n" * 200, encoding="utf-8")
    return Path()


@pytest.mark.parametrize("flags", ["", "--json"])
@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("generate --model {base} --max-new-tokens 3 --prompt", [EVIL]),
        ("generate --model {base} --max-new-tokens 3 --prompt", [EVIL, "cat"]),
        ("generate --model {base} --max-new-tokens 3 --beams 2 --prompt", [EVIL]),
        ("generate --prompt cat --model", [EVIL]),
        ("classify --model {classifier}", [EVIL]),
        ("classify --format jsonl --model {classifier}", [EVIL]),
        ("classify --format csv --model {classifier}", [EVIL]),
        ("tokenizer encode --tokenizer {base}", [EVIL]),
        ("tokenizer compare --tokenizers {base} --text", [EVIL]),
        ("data inspect evil.csv", []),
        ("data inspect evil.txt", []),
        ("data inspect --tokenizer {base} evil.txt", []),
        ("data inspect", [EVIL]),
        ("evaluate classify --model {classifier} --data evil.csv", []),
        ("evaluate loss --model {base} --data evil.txt", []),
        ("runs show", [EVIL]),
        ("runs list --runs-dir", [EVIL]),
        ("run", [EVIL]),
        (EVIL.split()[0], []),
        ("pretrain", [f"--{EVIL}"]),
        ("convert --to huggingface --out x", [EVIL]),
    ],
)
def test_no_command_prints_what_steers_a_terminal(life, run, evil_data, command, more, flags):
    paths = {name: life[name] for name in ("base", "classifier")}
    _, out, err = run(re.sub(r"\{(\w+)\}", lambda m: paths[m[1]], f"{command} {flags}"), *more)
    assert_harmless(out, err)
    if flags and out:
        json.loads(out)


def test_a_training_run_shows_hostile_labels_names_and_samples_harmlessly(life, run, evil_data):
    out_name = f"out{EVIL}".replace("/", "")
    code, out, err = run(
        f"finetune classify --base {life['base']} --data evil.csv --max-steps 1 --no-compare-raw-split --out",
        out_name,
    )
    assert code == 0, err
    assert_harmless(out, err)
    code, out, err = run("runs list --runs-dir .")
    assert code == 0
    assert "reversed[bold red]:dog:" in out
    assert_harmless(out, err)


def test_a_models_own_text_is_shown_harmlessly_while_it_streams(life, run, monkeypatch):
    steps = [TokenEvent(row=0, id=1, prob=1.0, text=c, finished_by=None) for c in EVIL]
    monkeypatch.setattr("scratchlm.cli.generate.generate", lambda *args, **kwargs: iter(steps))
    code, out, _ = run(f"generate --model {life['base']} --prompt cat")
    assert code == 0
    assert "␛[2J" in out
    assert_harmless(out)


def test_lines_of_json_keep_what_is_harmless_as_escapes(life, run):
    _, out, _ = run(f"classify --format jsonl --model {life['classifier']}", EVIL)
    assert json.loads(out)["text"] == EVIL


def test_csv_cells_begin_no_formula(life, run):
    _, out, _ = run(f"classify --format csv --model {life['classifier']}", "=1+1", "@SUM(A1)")
    assert [line[:2] for line in out.splitlines()[1:]] == ["'=", "'@"]


class Screen(io.StringIO):
    """A terminal that takes colours."""

    def isatty(self) -> bool:
        return True


def test_only_styles_of_ours_reach_a_terminal_through_tables_text_and_bars(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stdout", PrintableStream(screen))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "250")
    console = terminal.console()
    table = Table(EVIL)
    table.add_row(EVIL, Text(EVIL))
    console.print(EVIL)
    console.print(table)
    console.print(Text.assemble((EVIL, "bold")))
    with Progress(console=console) as bar:
        bar.add_task(EVIL.replace("[", "\\["), total=1)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())  # rich's own: colours, cursor
    assert "\x1b[2J" not in screen.getvalue()
    assert_harmless(shown.replace("\r", ""))
    assert "[bold red]:dog:" in shown  # neither styled nor an emoji
