"""Wrong commands and damaged files: each ends with its documented exit code and one line that helps."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from scratchlm.cli.main import main

TEXT = "The cat sat on the mat and saw a bird.\n" * 60
TINY = (
    "--model.n-layers 1 --model.emb-dim 16 --model.n-heads 2 --model.context-length 16 "
    "--tokenizer.vocab-size 300 --batch-size 4 --max-steps 2"
)


@dataclass(frozen=True)
class Place:
    """Where a case is set up: the working folder, and the tiny models that commands made earlier."""

    here: Path
    life: object
    patch: pytest.MonkeyPatch

    def copy_of(self, run: str) -> Path:
        """The model folder of a run, to be damaged, as `model`."""
        checkpoint = next(Path(self.life[run]).glob("checkpoints/step-*"))
        return Path(shutil.copytree(checkpoint, self.here / "model"))


def nothing(place: Place) -> None:
    """The command alone is wrong."""


def file(name: str, content: str | bytes) -> Callable[[Place], None]:
    """A file in the working folder."""

    def set_up(place: Place) -> None:
        path = place.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return set_up


def folder_of_pictures(place: Place) -> None:
    file("pictures/cat.png", b"\x89PNG")(place)


def truncated_model(place: Place) -> None:
    weights = place.copy_of("base") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def flipped_byte(place: Place) -> None:
    weights = place.copy_of("base") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    weights.write_bytes(content)


def damaged_tokenizer(place: Place) -> None:
    """The manifest agrees with the file, so that the reader of tokenizers itself must notice."""
    (place.copy_of("base") / "tokenizer.json").rename(place.here / "tokenizer.json")
    path = place.here / "tokenizer.json"
    path.write_text(path.read_text()[:200])


def damaged_tokenizer_of_model(place: Place) -> None:
    path = place.copy_of("base") / "tokenizer.json"
    path.write_text(path.read_text().replace("merges", "merge", 1))


def model_without_manifest(place: Place) -> None:
    (place.copy_of("base") / "manifest.json").unlink()


def manifest_of_another_version(place: Place) -> None:
    path = place.copy_of("base") / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


def one_class(place: Place) -> None:
    nouns = ["cat", "dog", "bird", "mouse", "tree", "house", "river", "stone", "cloud", "field"]
    rows = [f"ham\t{a} likes {b} near {c}\n" for a in nouns for b in nouns for c in nouns[:3]]
    file("messages.tsv", "".join(rows))(place)


def full_disk(place: Place) -> None:
    file("text.txt", TEXT)(place)

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place.patch.setattr(os, "fsync", no_space)


def locked_folder(place: Place) -> None:
    """The tests may run as root, whom no permission stops; so the refusal is played."""
    file("text.txt", TEXT)(place)
    real = Path.mkdir

    def mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if path.name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        real(path, mode, parents, exist_ok)

    place.patch.setattr(Path, "mkdir", mkdir)


def run_with_other_settings(place: Place) -> None:
    file("recipe.toml", 'stages = ["pretrain"]\n[data]\ntext = ["text.txt"]\n[pretrain]\nmax_steps = 1\n')(
        place
    )
    (place.here / "out").mkdir()
    shutil.copy(place.here / "recipe.toml", place.here / "out" / "recipe.toml")


PRETRAIN = f"pretrain --out out {TINY} --data"
CLASSIFY = "finetune classify --base {base} --out out --max-steps 1 --no-compare-raw-split --data"
INSTRUCT = "finetune instruct --base {base} --out out --max-steps 1 --template plain --data"

# id, how it is set up, the command, its exit code, words that the message must hold
CASES: list[tuple[str, Callable[[Place], None], str, int, tuple[str, ...]]] = [
    (
        "size given twice",
        nothing,
        f"{PRETRAIN} x.txt --config small --model.size tiny",
        2,
        ("--config small", "--model.size tiny", "drop one"),
    ),
    (
        "vocabulary size of GPT-2's tokenizer",
        nothing,
        "pretrain --out out --data x.txt --tokenizer.kind gpt2 --tokenizer.vocab-size 300",
        2,
        ("--tokenizer.vocab-size", "--tokenizer.kind gpt2", "drop one"),
    ),
    (
        "vocabulary size of a finished tokenizer",
        nothing,
        "run quickstart --out out --tokenizer.path t.json --tokenizer.vocab-size=300",
        2,
        ("--tokenizer.vocab-size", "--tokenizer.path t.json", "drop one"),
    ),
    ("unknown command", nothing, "bake", 2, ("'bake'", "pretrain", "--help")),
    ("misspelt command", nothing, "pretran", 2, ("'pretran'", "did you mean 'pretrain'")),
    ("misspelt part", nothing, "finetune clasify", 2, ("'clasify'", "did you mean 'classify'")),
    ("no part", nothing, "finetune", 2, ("classify", "instruct")),
    ("misspelt flag", nothing, "pretrain --max-stpes 3", 2, ("--max-stpes", "did you mean --max-steps?")),
    (
        "misspelt dotted flag",
        nothing,
        "run quickstart --model.n-layer 3",
        2,
        ("--model.n-layer", "did you mean --model.n-layers"),
    ),
    ("stray word", nothing, "pretrain text.txt", 2, ("text.txt", "scratchlm pretrain --help")),
    ("flag without its value", nothing, "pretrain --out", 2, ("Missing value", "--out")),
    ("word for a number", nothing, "pretrain --max-steps many", 2, ("--max-steps", "'many'")),
    ("fraction for a whole number", nothing, "pretrain --batch-size 1.5", 2, ("--batch-size", "'1.5'")),
    ("unknown choice", nothing, "pretrain --config huge", 2, ("'huge'", "--config", "gpt2-small")),
    ("number out of range", nothing, "pretrain --learning-rate -1", 2, ("learning_rate", "-1.0")),
    ("not a number", nothing, "pretrain --learning-rate nan", 2, ("learning_rate", "nan")),
    (
        "heads do not divide",
        file("text.txt", TEXT),
        f"{PRETRAIN} text.txt --model.n-heads 3",
        2,
        ("emb_dim=16", "n_heads=3"),
    ),
    ("temperature below zero", nothing, "generate --model {base} --prompt a --temperature -1", 2, ("-1.0",)),
    ("unknown recipe", nothing, "run quickstrat", 2, ("'quickstrat'", "did you mean 'quickstart'")),
    ("recipe file missing", nothing, "run mine.toml", 2, ("mine.toml", "No such file")),
    (
        "recipe broken",
        file("mine.toml", "stages = []\n[model\n"),
        "run mine.toml",
        2,
        ("mine.toml", "line 2"),
    ),
    (
        "recipe with unknown setting",
        file("mine.toml", "[pretrain]\nmax_step = 3\n"),
        "run mine.toml",
        2,
        ("mine.pretrain", "'max_step'", "did you mean 'max_steps'"),
    ),
    (
        "recipe with wrong type",
        file("mine.toml", "[pretrain]\nmax_steps = 'ten'\n"),
        "run mine.toml",
        2,
        ("mine.pretrain.max_steps", "'ten'"),
    ),
    ("pretrain without data", nothing, "pretrain --out out", 2, ("needs data", "--data")),
    (
        "classifier without data",
        nothing,
        "finetune classify --base {base} --out out",
        2,
        ("needs data", "--data"),
    ),
    ("classifier without base", nothing, "finetune classify --data x.tsv", 2, ("--base", "random:small")),
    ("missing file", nothing, f"{PRETRAIN} nowhere.txt", 3, ("nowhere.txt", "check the path")),
    ("empty file", file("e.txt", ""), f"{PRETRAIN} e.txt", 3, ("e.txt", "is empty or has only white space")),
    (
        "not UTF-8",
        file("old.txt", b"caf\xe9 au lait\n"),
        f"{PRETRAIN} old.txt",
        3,
        ("old.txt", "byte offset 3", "0xe9"),
    ),
    ("folder without text", folder_of_pictures, f"{PRETRAIN} pictures", 3, ("pictures", ".txt")),
    (
        "no text at all",
        file("a.docx", "PK\3\4 word/"),
        f"{PRETRAIN} a.docx",
        3,
        ("a.docx", "Office document"),
    ),
    (
        "jsonl with a bad line",
        file("t.jsonl", '{"text": "fine"}\n{"text": oops}\n'),
        f"{PRETRAIN} t.jsonl",
        3,
        ("t.jsonl line 2", "--skip-bad-lines"),
    ),
    (
        "jsonl without the text field",
        file("t.jsonl", '{"body": "fine"}\n'),
        f"{PRETRAIN} t.jsonl",
        3,
        ("t.jsonl line 1", "'text'", "'body'"),
    ),
    (
        "text shorter than a window",
        file("s.txt", "The cat sat on the mat."),
        f"{PRETRAIN} s.txt --model.context-length 64",
        3,
        ("65 tokens", "got 6"),
    ),
    ("model folder missing", nothing, "generate --model nowhere --prompt a", 3, ("nowhere", "manifest.json")),
    (
        "model truncated",
        truncated_model,
        "generate --model model --prompt a",
        3,
        ("bytes instead of", "use another checkpoint"),
    ),
    (
        "model with a flipped byte",
        flipped_byte,
        "generate --model model --prompt a",
        3,
        ("differs from its sha256", "use another checkpoint"),
    ),
    (
        "model without manifest",
        model_without_manifest,
        "generate --model model --prompt a",
        3,
        ("manifest.json",),
    ),
    (
        "model of another version",
        manifest_of_another_version,
        "generate --model model --prompt a",
        3,
        ("format version 1",),
    ),
    (
        "tokenizer damaged",
        damaged_tokenizer,
        "tokenizer encode hello --tokenizer tokenizer.json",
        3,
        ("tokenizer.json", "line"),
    ),
    (
        "tokenizer of a model damaged",
        damaged_tokenizer_of_model,
        "generate --model model --prompt a",
        3,
        ("tokenizer.json", "use another checkpoint"),
    ),
    (
        "classify with a language model",
        nothing,
        "classify --model {base} hello",
        2,
        ("classifier", "language model"),
    ),
    (
        "generate with a classifier",
        nothing,
        "generate --model {classifier} --prompt a",
        2,
        ("language model", "classifier"),
    ),
    ("chat with a language model", nothing, "chat --model {base}", 2, ("assistant", "finetune instruct")),
    (
        "classifier from a classifier",
        nothing,
        "finetune classify --base {classifier} --data {messages.tsv} --out out",
        3,
        ("language model", "classifier"),
    ),
    ("one class", one_class, f"{CLASSIFY} messages.tsv", 3, ("class",)),
    (
        "label file without tab",
        file("m.tsv", "ham\thello\nspam win a prize\n"),
        f"{CLASSIFY} m.tsv",
        3,
        ("m.tsv line 2", "tab"),
    ),
    (
        "csv without header",
        file("m.csv", "a,b,c\n1,2,3\n"),
        f"{CLASSIFY} m.csv",
        3,
        ("m.csv line 1", "--text-field"),
    ),
    (
        "instructions broken",
        file("i.json", '[{"instruction": "a",\n "output" "b"}]'),
        f"{INSTRUCT} i.json",
        3,
        ("i.json", "line 2"),
    ),
    (
        "instruction without output",
        file("i.json", '[{"instruction": "a", "output": "b"}, {"instruction": "c"}]'),
        f"{INSTRUCT} i.json",
        3,
        ("i.json entry 2", "'output'"),
    ),
    (
        "unknown template",
        nothing,
        "finetune instruct --base {base} --data {entries.json} --out out --template alpacca",
        2,
        ("'alpacca'", "alpaca"),
    ),
    (
        "out holds other files",
        file("out/letter.txt", TEXT),
        f"{PRETRAIN} out/letter.txt",
        2,
        ("files that are not of a run", "--out"),
    ),
    ("out is a file", file("out", TEXT), f"{PRETRAIN} out", 2, ("out is a file", "--out")),
    ("out below a file", file("t.txt", TEXT), f"{PRETRAIN} t.txt --out t.txt/run", 2, ("t.txt/run", "--out")),
    (
        "out holds a run already",
        nothing,
        f"pretrain --data {{text.txt}} --out {{base}} {TINY}",
        2,
        ("--resume", "--fresh"),
    ),
    (
        "run folder with other settings",
        run_with_other_settings,
        "run recipe.toml --out out --pretrain.max-steps 2",
        2,
        ("pretrain.max_steps", "--fresh"),
    ),
    (
        "nothing to resume",
        nothing,
        "pretrain --data {text.txt} --out out --resume",
        2,
        ("no run to resume in out",),
    ),
    (
        "resume with a recipe",
        nothing,
        "pretrain --out {base} --resume --recipe shakespeare",
        2,
        ("--resume", "drop --recipe"),
    ),
    (
        "base inside the folder to be emptied",
        nothing,
        "finetune classify --base {base} --data {messages.tsv} --out {base} --fresh",
        2,
        ("--fresh would delete", "another --out"),
    ),
    ("device not here", file("t.txt", TEXT), f"{PRETRAIN} t.txt --device cuda", 2, ("'cuda'", "auto")),
    ("unwritable folder", locked_folder, f"{PRETRAIN} text.txt --out locked", 2, ("locked", "Permission")),
    ("full disk", full_disk, f"{PRETRAIN} text.txt", 3, ("No space left", "Free some space")),
    (
        "prompt too long",
        nothing,
        f"generate --model {{base}} --overflow error --prompt {'cat,' * 40}",
        3,
        ("32 tokens",),
    ),
    ("id out of range", nothing, "tokenizer decode --tokenizer {base} 999999", 3, ("999999",)),
    ("word for an id", nothing, "tokenizer decode --tokenizer {base} cat", 2, ("cat",)),
    ("asset not here", nothing, "tokenizer encode hello", 3, ("gpt2_bpe/encoder.json", "data fetch")),
    (
        "label unknown to the classifier",
        file("m.tsv", "eggs\thello you\n"),
        "evaluate classify --model {classifier} --data m.tsv",
        3,
        ("'eggs'", "ham, spam"),
    ),
]


@pytest.fixture
def run_case(life, monkeypatch, capsys):
    """Set a case up and run its command; returns exit code, standard output and standard error."""

    def run(set_up: Callable[[Place], None], command: str, *more: str) -> tuple[int, str, str]:
        if "cuda" in command:
            monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        set_up(Place(here=Path.cwd(), life=life, patch=monkeypatch))
        names = ("base", "classifier", "text.txt", "messages.tsv", "entries.json")
        for name in names:
            command = command.replace(f"{{{name}}}", life[name])
        capsys.readouterr()
        code = main([*command.split(), *more])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("set_up", "command", "code", "words"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_a_mistake_gives_its_exit_code_and_one_line_that_helps(run_case, set_up, command, code, words):
    found_code, out, err = run_case(set_up, command)
    assert found_code == code, err
    assert out == ""
    lines = err.splitlines()
    assert lines[-1].startswith("scratchlm: error: ")
    assert sum(line.startswith("scratchlm: error:") for line in lines) == 1
    assert "Traceback" not in err
    for word in words:
        assert word in lines[-1]
    assert "─" not in lines[-1]
    assert "-----" not in lines[-1]


@pytest.mark.parametrize("name", ["misspelt flag", "missing file", "model with a flipped byte"])
def test_debug_shows_the_traceback_before_the_line(run_case, name):
    set_up, command, code = next(case[1:4] for case in CASES if case[0] == name)
    found_code, out, err = run_case(set_up, command, "--debug")
    assert (found_code, out) == (code, "")
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("scratchlm: error: ")


@pytest.mark.parametrize("name", ["missing file", "text shorter than a window", "full disk"])
def test_a_run_that_never_began_leaves_no_folder_behind(run_case, name):
    set_up, command = next(case[1:3] for case in CASES if case[0] == name)
    run_case(set_up, command)
    assert not Path("out").exists()


def test_a_corrected_command_works_after_a_mistake(run_case):
    assert run_case(file("right.txt", TEXT), f"{PRETRAIN} wrong.txt")[0] == 3
    assert run_case(nothing, f"{PRETRAIN} right.txt")[0] == 0


def test_a_base_is_still_there_after_fresh_was_refused(run_case, life):
    run_case(nothing, "finetune classify --base {base} --data {messages.tsv} --out {base} --fresh")
    assert list(Path(life["base"]).glob("checkpoints/step-*/model.safetensors"))


def test_memory_that_ends_while_an_error_is_reported_is_still_reported(monkeypatch, capfd):
    def without_memory(text: str) -> str:
        raise MemoryError

    monkeypatch.setattr("scratchlm.cli.main.printable", without_memory)
    assert main(["no-such-command"]) == 6
    assert capfd.readouterr().err.startswith("scratchlm: error: memory ran out; use a smaller model")


def test_no_case_is_listed_twice():
    assert len({case[0] for case in CASES}) == len(CASES) >= 24
