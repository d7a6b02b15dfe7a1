"""Every command does what its help and DESIGN promise."""

import csv
import importlib
import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scratchlm.cli.arguments import flag_kinds
from scratchlm.cli.commands import COMMANDS, EVERYDAY
from scratchlm.cli.help import positional_fields
from scratchlm.cli.main import main
from scratchlm.cli.parsing import Common, parse_command
from scratchlm.cli.run import Run
from scratchlm.recipes.recipe import load_recipe
from scratchlm.tokenizers.bpe import BPETokenizer

BENCH = ("bench",)  # passes its arguments on to a script of the source checkout
MAX_FLAGS = 20  # commands with more flags than this show only those in EVERYDAY
REPOSITORY = Path(__file__).resolve().parents[2]
QUICK_CLASSIFIER = "--max-steps 1 --batch-size 8 --no-compare-raw-split"


def only_object(out: str) -> dict:
    """What --json printed: one JSON object on one line, nothing else."""
    assert out.count("\n") == 1
    value = json.loads(out)
    assert isinstance(value, dict)
    return value


def example_of(text: str) -> list[str]:
    """The words of a help text's example command."""
    found = re.search(r"^\s*Example: (scratchlm .*)$", text, re.MULTILINE)
    assert found, text
    return shlex.split(found[1])


def finished(command: list[str], *, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """What a process of its own did."""
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


# --- help ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(run, words):
    code, out, err = run(f"{' '.join(words)} --help")
    assert (code, err) == (0, "")
    assert f"Example: scratchlm {' '.join(words)}" in " ".join(out.split())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_flag_is_explained(run, words, monkeypatch):
    """A comment that the formatter moves to another line is lost to the help."""
    monkeypatch.setenv("COLUMNS", "400")
    words_of_help = re.sub("[│─╭╮╰╯]", " ", run(f"{' '.join(words)} --help-all")[1]).split()
    assert (
        re.findall(
            r"(?<!short for )(--[a-z][a-z.-]*)(?: \S+)? \((?:default:|required)", " ".join(words_of_help)
        )
        == []
    )


def command_class_of(words):
    """The dataclass that holds a command's flags: the one that no other extends."""
    module = importlib.import_module(COMMANDS[words].module)
    [found] = [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Common) and found.__module__ == module.__name__ and not found.__subclasses__()
    ]
    return found


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != BENCH], ids=" ".join)
def test_help_shows_the_everyday_flags_in_groups_and_help_all_every_flag(run, words, monkeypatch):
    """A command with many flags names its everyday ones in a table; the others show all of theirs."""
    monkeypatch.setenv("COLUMNS", "400")  # none is cut at the edge of the terminal
    name = " ".join(words)
    cls = command_class_of(words)
    known = {flag for flag in flag_kinds(cls) if not re.match(r"--(.*\.)?no-", flag)}
    known -= {f"--{name}" for name in positional_fields(cls)}
    short, full = (run(f"{name} {flag}")[1] for flag in ("--help", "--help-all"))
    shown = set(re.findall(r"^  (--[a-z][a-z0-9.-]*)", short, re.MULTILINE))
    if name in EVERYDAY:
        everyday = " ".join(EVERYDAY[name].values()).split()
        assert len(known) > MAX_FLAGS >= len(everyday)
        assert set(everyday) <= shown
        assert all(f"\n{heading}:\n" in short for heading in EVERYDAY[name])
    else:
        assert known - shown <= {"--seed"}  # where the training settings have it
        assert len(shown) <= MAX_FLAGS, "name the everyday flags in EVERYDAY"
    assert "\nflags of every command:\n" in short
    assert "--help-all` shows" in short
    for flag in known:  # a flag that is on by default is listed as --no-flag
        assert flag in full or re.sub(r"^(--.*\.|--)", r"\1no-", flag) in full


def test_positional_arguments_are_named_in_the_help(run):
    assert "usage: scratchlm convert SOURCE TARGET [flags]" in run("convert --help")[1]
    assert "usage: scratchlm classify TEXTS... [flags]" in run("classify --help")[1]


def test_the_help_of_run_shows_the_values_of_the_recipe(run):
    assert "(default: 1400)" in run("run quickstart --help")[1]
    assert "(default: 800)" in run("run shakespeare --help")[1]


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != BENCH], ids=" ".join)
def test_every_example_can_be_parsed(words):
    command_class = command_class_of(words)
    program, *args = example_of(command_class.__doc__)
    assert (program, *args[: len(words)]) == ("scratchlm", *words)
    args, default = args[len(words) :], None
    if command_class is Run:
        default = Run(settings=load_recipe(args.pop(0))[1])
    command = parse_command(command_class, args, prog="scratchlm", default=default)
    assert isinstance(command, command_class)


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != BENCH], ids=" ".join)
def test_every_command_takes_a_seed_and_refuses_one_that_is_none(run, words):
    name = " ".join(words)
    assert "--seed INT" in run(f"{name} --help")[1]
    code, _, err = run(f"{name} --seed -1")
    assert code == 2
    assert "seed must be a whole number" in err


def test_the_example_of_bench_names_a_benchmark_that_exists(run):
    example = example_of(run("bench --help")[1])
    assert (REPOSITORY / "benchmarks" / f"{example[2]}.py").is_file()


@pytest.mark.parametrize("group", sorted({words[0] for words in COMMANDS if len(words) == 2}))
def test_a_group_lists_its_parts(run, group):
    code, out, err = run(f"{group} --help")
    assert (code, err) == (0, "")
    for words in COMMANDS:
        assert (f"  {' '.join(words)} " in out) == (words[0] == group)


def test_the_overview_lists_every_command(run):
    for asked in ("--help", "-h", "help", "--help-all"):
        code, out, _ = run(asked)
        assert code == 0
        for words, entry in COMMANDS.items():
            assert f"  {' '.join(words)} " in out
            assert f"\n{entry.group}:\n" in out


def test_a_removed_command_names_what_takes_its_place(run):
    code, out, err = run("evaluate", "harness", "--model", "runs/x", "--tasks", "arc_easy")
    assert (code, out) == (2, "")
    assert "was removed" in err
    assert "scratchlm convert RUN OUT --to hf" in err
    assert "lm_eval --model hf --model_args pretrained=OUT" in err


def test_help_and_version_do_not_wait_for_slow_imports():
    script = (
        "import sys; from scratchlm.cli.main import main; main([sys.argv[1]]); "
        "sys.exit(bool({'torch', 'tyro', 'rich', 'numpy'} & set(sys.modules)))"
    )
    for asked in ("--help", "--version"):
        assert finished([sys.executable, "-c", script, asked]).returncode == 0


def test_running_the_module_is_running_the_program():
    program = Path(sys.executable).parent / "scratchlm"
    if not program.exists():
        pytest.skip("the program is not installed beside this Python")
    for args in (["--version"], ["--help"], ["bake"]):
        ways = [finished([*start, *args]) for start in ([str(program)], [sys.executable, "-m", "scratchlm"])]
        assert ways[0].stdout == ways[1].stdout
        assert ways[0].stderr == ways[1].stderr
        assert ways[0].returncode == ways[1].returncode == (2 if args == ["bake"] else 0)


# --- --json ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("pretrain", "out step train_loss val_loss bits_per_byte tokens tokens_per_s seconds resumed_from"),
        (
            "classify",
            "out rows groups duplicates classes test_n test_accuracy test_accuracy_raw baseline_majority "
            "baseline_tfidf seconds",
        ),
        ("instruct", "out rows val_loss exact_match seconds"),
    ],
)
def test_training_commands_print_one_object_with_the_keys_of_the_design(life, name, keys):
    assert set(keys.split()) <= only_object(life.made[name].out).keys()


def test_progress_goes_to_standard_error(life):
    for name, outcome in life.made.items():
        assert f"[1/1] {name}" in outcome.err
        assert "step" in outcome.err


def test_classify_prints_text_label_and_probability(life, run_json):
    found = run_json(f"classify --model {life['classifier']}", "win a prize now", "see you at home")
    assert [row["text"] for row in found["results"]] == ["win a prize now", "see you at home"]
    for row in found["results"]:
        assert row.keys() >= {"text", "label", "probability"}
        assert row["label"] in ("ham", "spam")
        assert 0.5 <= row["probability"] <= 1


def test_classify_counts_the_texts_that_it_cut(life, run_json):
    assert run_json(f"classify --model {life['classifier']}", "short")["truncated"] == 0
    assert run_json(f"classify --model {life['classifier']}", "the cat " * 50)["truncated"] == 1


def test_evaluate_classify_prints_its_figures(life, run_json):
    found = run_json(f"evaluate classify --model {life['classifier']} --data {life['messages.tsv']}")
    assert found["n"] == 120
    assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1


def test_evaluate_classify_knows_folders_and_known_names(life, run, run_json):
    shutil.copy(life["messages.tsv"], "messages.tsv")
    command = f"evaluate classify --model {life['classifier']} --data"
    assert [run_json(f"{command} {name}")["n"] for name in (".", "*.tsv")] == [120, 120]
    code, _, err = run(f"{command} sms_spam_collection")  # not on this machine
    assert code == 3
    assert "scratchlm data fetch" in err


def test_evaluate_classify_works_on_short_texts(life, run_json):
    Path("short.tsv").write_text("ham\thome\nspam\tprize\n")
    found = run_json(f"evaluate classify --model {life['classifier']} --data short.tsv")
    assert (found["n"], found["truncated"]) == (2, 0)


def test_evaluate_loss_prints_its_figures(life, run_json):
    found = run_json(f"evaluate loss --model {life['base']} --data {life['text.txt']}")
    assert found.keys() >= {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    assert found["bytes"] == Path(life["text.txt"]).stat().st_size


def test_tokenizer_encode_prints_ids_and_tokens(life, run_json):
    found = run_json(f"tokenizer encode --tokenizer {life['base']}", "the cat")
    assert found.keys() >= {"ids", "tokens"}
    assert "".join(found["tokens"]) == "the cat"
    decoded = run_json(f"tokenizer decode --tokenizer {life['base']}", *map(str, found["ids"]))
    assert decoded["text"] == "the cat"


@pytest.mark.parametrize(("kind", "kept"), [("bpe", True), ("word", False), ("lossless-word", True)])
def test_tokenizers_of_every_kind_can_be_trained(life, run, run_json, kind, kept):
    made = run_json(f"tokenizer train --data {life['text.txt']} --kind {kind} --out t.json")
    ids = run_json("tokenizer encode --tokenizer t.json", "the  cat sat")["ids"]
    assert max(ids) < made["vocab_size"]
    assert (run_json("tokenizer decode --tokenizer t.json", *map(str, ids))["text"] == "the  cat sat") is kept
    code, _, err = run(f"tokenizer train --data {life['text.txt']} --kind {kind} --vocab-size 300")
    assert code == (0 if kind == "bpe" else 2)
    assert ("drop one" in err) == (kind != "bpe")


@pytest.mark.parametrize("flags", ["--json", ""])
def test_a_terminal_that_is_not_utf8_is_no_obstacle(life, monkeypatch, flags):
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main([*f"classify {flags} --model {life['classifier']}".split(), "smörgås"]) == 0
    out = shown.getvalue().decode("ascii")
    if flags:
        assert only_object(out)["results"][0]["text"] == "smörgås"
    else:
        assert out.endswith("\tsm\\xf6rg\\xe5s\n")


# --- generate --------------------------------------------------------------------------------------------------


def test_one_prompt_gives_one_list_and_one_text(life, run_json):
    found = run_json(f"generate --model {life['base']} --max-new-tokens 5 --prompt", "the cat")
    assert all(isinstance(token_id, int) for token_id in found["prompt_ids"] + found["ids"])
    assert len(found["ids"]) <= 5
    assert isinstance(found["text"], str)


def test_several_prompts_give_lists_in_their_order(life, run_json):
    prompts = ["the cat", "a dog sat on"]
    together = run_json(f"generate --model {life['base']} --max-new-tokens 5 --prompt", *prompts)
    alone = [run_json(f"generate --model {life['base']} --max-new-tokens 5 --prompt", p) for p in prompts]
    for key in ("prompt_ids", "ids", "text"):
        assert together[key] == [found[key] for found in alone]


def test_the_same_seed_gives_the_same_text(life, run_json):
    command = f"generate --model {life['base']} --temperature 1.5 --max-new-tokens 20 --prompt cat --seed"
    first, again, other = (run_json(f"{command} {seed}") for seed in (7, 7, 8))
    assert first == again
    assert first["ids"] != other["ids"]


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        ("--top-k 3 --seed 1", "--top-k, --seed"),
        ("--top-p 0.9 --min-p 0.1", "--top-p, --min-p"),
        ("--top-k 3 --seed 1 --temperature 1", None),
        ("", None),
    ],
)
def test_settings_without_effect_are_named(life, run, flags, idle):
    code, _, err = run(f"generate --model {life['base']} --max-new-tokens 1 {flags} --prompt cat")
    assert code == 0
    note = f"{idle} have no effect: temperature 0 always takes the most likely token"
    assert err.strip() == ("" if idle is None else note)


def test_generate_shows_the_prompt_and_its_continuation(life, run, run_json):
    command = f"generate --model {life['base']} --max-new-tokens 5"
    found = run_json(f"{command} --prompt", "the cat")
    assert run(f"{command} --prompt", "the cat")[1] == f"the cat{found['text']}\n"
    assert run(f"generate --model {life['base']} --max-new-tokens 0 --prompt", "the cat")[1] == "the cat\n"


def test_generate_puts_the_token_that_begins_text_before_a_prompt(life, run_json, monkeypatch):
    command = f"generate --model {life['base']} --max-new-tokens 1 --prompt cat"
    plain = run_json(command)["prompt_ids"]
    monkeypatch.setattr(BPETokenizer, "begin_of_text_id", 7)
    assert run_json(command)["prompt_ids"] == [7, *plain]


def test_generate_shows_the_best_of_the_beams(life, run, run_json):
    command = f"generate --model {life['base']} --max-new-tokens 4 --beams 3 --prompt"
    found = run_json(command, "the cat")
    scores = [beam["score"] for beam in found["beams"]]
    assert scores == sorted(scores, reverse=True)
    assert found["text"] == found["beams"][0]["text"]
    assert run(command, "the cat")[1] == f"the cat{found['text']}\n"
    assert run_json(command, "the cat", "a dog")["text"][0] == found["text"]
    code, _, err = run(f"{command} cat --temperature 0.5")
    assert code == 2
    assert "beam search does not sample" in err


def test_generate_reads_a_prompt_from_standard_input(life, run_json):
    command = f"generate --model {life['base']} --max-new-tokens 3 --prompt"
    for end in ("", "\n", "\r\n"):  # `echo` ends its line
        assert run_json(f"{command} -", stdin=f"the cat{end}") == run_json(command, "the cat")
    assert run_json(f"{command} -", stdin="the cat\n\n") == run_json(command, "the cat\n")


# --- standard input --------------------------------------------------------------------------------------------


def test_classify_reads_lines_and_keeps_their_order(life, run_json):
    lines = [f"line {number} {'long ' * (number % 7)}end" for number in range(80)]
    found = run_json(f"classify --model {life['classifier']} -", stdin="\n".join(lines) + "\n")
    assert [row["text"] for row in found["results"]] == lines


def test_classify_writes_csv_and_json_lines_in_the_order_of_the_texts(life, run):
    texts = ['win a "prize", now', "the cat " * 50, "see you at home"]
    command = f"classify --model {life['classifier']} --batch-size 2 -"
    code, out, err = run(f"{command} --format csv", stdin="\n".join(texts) + "\n")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, [row["text"] for row in rows]) == (0, texts)
    assert [row["truncated"] for row in rows] == ["False", "True", "False"]
    assert "1 of 3 texts were longer than the model reads (number 2)" in err
    code, out, _ = run(f"{command} --format jsonl", stdin="\n".join(texts) + "\n")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert [(line["label"], str(line["truncated"])) for line in lines] == [
        (row["label"], row["truncated"]) for row in rows
    ]


def test_a_classifier_is_trained_by_the_table_of_the_book(life, run_json):
    found = run_json(
        f"finetune classify --base {life['base']} --data {life['messages.tsv']} --out run {QUICK_CLASSIFIER} "
        "--train last-layer --position last --pad longest --no-causal-mask --ignore-index 50256 "
        "--grad-accumulation 2 --seeds 2 --learning-curve 0.5 --choose-threshold --trunk-cache-mb 64"
    )
    assert found["seeds"]["n"] == 2
    assert len(found["learning_curve"]) == 2
    assert 0 <= found["calibration_error"] <= 1
    assert found["threshold"]["label"] == "spam"
    settings = load_recipe("run")[1].classify
    assert (settings.accumulate, settings.pad, settings.train) == (2, "longest", "last-layer")
    assert settings.activation_cache_mb == 64  # by its old name
    said = run_json("classify --model run", "see you at home")
    assert said["results"][0]["label"] in ("ham", "spam")


def test_classify_without_a_line_has_no_results(life, run_json):
    assert run_json(f"classify --model {life['classifier']} -", stdin="")["results"] == []


def test_the_table_of_the_book_refuses_no_seed_at_all(life, run, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    code, out, err = run(f"bench finetune-table --data {life['messages.tsv']} --rows 10 --seeds 0")
    assert (code, out) == (2, "")
    assert "--seeds must be at least 1, got 0" in err


def test_classify_without_a_line_still_names_the_columns_of_csv(life, run):
    code, out, _ = run(f"classify --model {life['classifier']} --format csv -", stdin="")
    assert (code, out) == (0, "text,label,probability,truncated\n")


def test_classify_takes_a_dash_for_standard_input_or_not_at_all(life, run):
    code, out, err = run(f"classify --model {life['classifier']} - more", stdin="hello\n")
    assert (code, out) == (2, "")
    assert "- (standard input) cannot be combined with other texts" in err


def test_classify_names_an_empty_line(life, run):
    code, out, err = run(f"classify --model {life['classifier']} -", stdin="hello\n\nyou\n")
    assert (code, out) == (3, "")
    assert "line 2" in err


@pytest.mark.parametrize(
    "command",
    [
        "classify --model {classifier} -",
        "generate --model {base} --prompt -",
        "tokenizer encode --tokenizer {base} -",
        "chat --model {assistant}",
    ],
)
def test_standard_input_that_is_not_utf8_is_one_line_of_complaint(life, run, command):
    for name in ("base", "classifier", "assistant"):
        command = command.replace(f"{{{name}}}", life[name])
    code, out, err = run(command, stdin=b"caf\xe9 au lait\n")
    assert (code, out) == (3, "")
    assert err.startswith("scratchlm: error: standard input is not utf-8 text: byte 0xe9")


def test_chat_answers_until_an_empty_line(life, run_json):
    command = f"chat --model {life['assistant']} --max-new-tokens 2"
    turns = run_json(command, stdin="Say cat\nSay dog\n\nSay nothing\n")["turns"]
    assert [turn["instruction"] for turn in turns] == ["Say cat", "Say dog"]
    assert all(isinstance(turn["answer"], str) for turn in turns)


# --- standard output -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_behind_standard_output_is_one_line_of_complaint():
    with Path("/dev/full").open("w") as full:
        done = finished([sys.executable, "-m", "scratchlm", "--help"], stdout=full)
    assert done.returncode == 3
    assert done.stderr.startswith("scratchlm: error: the output could not be written: No space left")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = finished([sys.executable, "-m", "scratchlm", "--help"], stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


# --- run folders -----------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_recipe(life) -> str:
    """A recipe of all three stages, two steps each."""
    Path("tiny.toml").write_text(f"""
stages = ["pretrain", "classify", "instruct"]
[data]
text = [{life["text.txt"]!r}]
messages = [{life["messages.tsv"]!r}]
instructions = [{life["entries.json"]!r}]
[tokenizer]
vocab_size = 300
[model]
n_layers = 1
emb_dim = 16
n_heads = 2
context_length = 32
[pretrain]
max_steps = 2
batch_size = 4
[classify]
max_steps = 2
compare_raw_split = false
[instruct]
max_steps = 2
template = "plain"
max_new_tokens = 3
""")
    return "tiny.toml"


def test_run_prints_the_keys_of_the_design_and_says_complete_the_second_time(
    life, tiny_recipe, run, run_json
):
    first = run_json(f"run {tiny_recipe}")
    assert first.keys() >= {"recipe", "out", "report", "seconds", "pretrain", "classify", "instruct"}
    assert first["pretrain"].keys() >= {"val_loss", "bits_per_byte"}
    assert "test_accuracy" in first["classify"]
    assert "exact_match" in first["instruct"]
    assert [first[stage]["out"] for stage in ("pretrain", "classify", "instruct")] == [
        str(Path("runs/tiny", part)) for part in ("", "classify", "instruct")
    ]
    for command, stage in (
        ("classify cat", "classify"),
        (f"evaluate classify --data {life['messages.tsv']}", "classify"),
        ("chat", "instruct"),
    ):
        code, _, err = run(f"{command} --model runs/tiny")
        assert code == 2
        assert f"name {Path('runs/tiny', stage)}" in err
    assert (first["recipe"], first["out"]) == ("tiny", str(Path("runs/tiny")))
    assert Path(first["report"]).read_text().startswith("<!")

    written_at_ns = Path(first["report"]).stat().st_mtime_ns
    code, out, err = run(f"run {tiny_recipe}")
    assert code == 0, err
    assert "is complete; nothing to do" in out
    assert run_json("run runs/tiny") == {**first, "was_complete": True}
    assert Path(first["report"]).stat().st_mtime_ns == written_at_ns

    assert run(f"run {tiny_recipe} --stages pretrain")[0] == 2  # other settings
    again = run_json(f"run {tiny_recipe} --fresh")
    assert again["was_complete"] is False
    assert again["pretrain"]["val_loss"] == first["pretrain"]["val_loss"]
    assert Path(first["report"]).stat().st_mtime_ns > written_at_ns


def test_a_seed_changes_the_run(tiny_recipe, run_json):
    command = f"run {tiny_recipe} --stages pretrain"
    losses = [run_json(f"{command} --out out{seed} --seed {seed}")["pretrain"]["val_loss"] for seed in (0, 1)]
    assert losses[0] != losses[1]


def test_a_stages_own_seed_counts_before_the_seed_of_all(tiny_recipe, run_json):
    assert (
        run_json(f"run --out out --seed 5 {tiny_recipe} --stages pretrain --pretrain.seed 4")["recipe"]
        == "tiny"
    )
    recipe = load_recipe("out")[1]
    assert (recipe.pretrain.seed, recipe.classify.seed, recipe.instruct.seed) == (4, 5, 5)


@pytest.mark.parametrize(
    "command",
    [
        "classify --no-compare-raw-split --data {messages.tsv}",
        "instruct --template plain --max-new-tokens 1 --data {entries.json}",
    ],
)
def test_a_batch_larger_than_the_data_is_told(life, run, command):
    for name in ("messages.tsv", "entries.json"):
        command = command.replace(f"{{{name}}}", life[name])
    code, _, err = run(f"finetune {command} --base {life['base']} --max-steps 1 --batch-size 5000")
    assert code == 0, err
    assert "batch_size 5000 is more than the" in err


def test_finetuning_takes_the_next_free_folder(life, run_json):
    command = f"finetune classify --base {life['base']} --data {life['messages.tsv']} {QUICK_CLASSIFIER}"
    assert [run_json(command)["out"] for _ in range(2)] == [
        str(Path("runs/classify")),
        str(Path("runs/classify-2")),
    ]


def test_a_finished_run_can_go_on_for_more_steps(life, run_json):
    command = "pretrain --out out --batch-size 4 --model.n-layers 1 --model.context-length 32"
    command += f" --tokenizer.vocab-size 300 --data {life['text.txt']}"
    assert run_json(f"{command} --max-steps 2")["resumed_from"] is None
    longer = run_json("pretrain --out out --resume --max-steps 3")
    assert (longer["step"], longer["resumed_from"]) == (3, 2)
