"""After a command that produced something, one line on standard error names the command that comes next."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from scratchlm.cli.commands import COMMANDS
from scratchlm.cli.next_steps import suggested_command


def next_lines(err: str) -> list[str]:
    return [line.removeprefix("next: ") for line in err.splitlines() if line.startswith("next: ")]


def suggested(run, command: str) -> str:
    code, out, err = run(command)
    assert code == 0, err
    assert "next:" not in out
    [line] = next_lines(err)
    return line


def test_training_a_tokenizer_then_pretraining_with_it_then_generating(life, run):
    first = suggested(run, f"tokenizer train --data {life['text.txt']} --vocab-size 300 --out t.json")
    assert first == f"scratchlm pretrain --data {life['text.txt']} --tokenizer.path t.json --out runs/mine"
    second = suggested(
        run, f"{first.removeprefix('scratchlm ')} --max-steps 1 --model.size tiny --model.context-length 32"
    )
    program, *args = shlex.split(second)
    assert program == "scratchlm"
    code, out, err = run("", *args, "--max-new-tokens", "1")
    assert code == 0, err
    assert out.startswith("Once upon a time")
    assert next_lines(err) == []


def test_with_json_there_is_no_next_line(life, run):
    code, out, err = run(f"tokenizer train --data {life['text.txt']} --vocab-size 300 --json")
    assert code == 0
    assert json.loads(out)
    assert next_lines(err) == []


@pytest.mark.parametrize("to", ["native", "hf", "gguf", "onnx"])
def test_after_a_conversion_the_model_is_used_where_it_now_belongs(life, run, to):
    if to == "onnx":
        pytest.importorskip("onnx")
    if to == "gguf":
        pytest.importorskip("gguf")
    code, _, err = run(f"convert {life['base']} made.{to} --to {to}")
    assert code == 0, err
    use = f'scratchlm generate --model made.{to} --prompt "Once upon a time"'
    expected = {"gguf": ["ollama create made -f Modelfile"], "onnx": []}.get(to, [use])
    assert next_lines(err) == expected


def test_a_converted_classifier_classifies(life, run):
    line = suggested(run, f"convert {life['classifier']} made --to native")
    code, out, err = run("", *shlex.split(line)[1:])
    assert code == 0, err
    assert out.split("\t")[0] in ("ham", "spam")


@pytest.mark.parametrize(
    ("command", "result", "expected"),
    [
        ("finetune classify", {"out": "runs/a b"}, "scratchlm classify --model 'runs/a b' "),
        ("finetune instruct", {"out": "runs/x"}, "scratchlm chat --model runs/x"),
        ("finetune prefer", {"out": "runs/x"}, "scratchlm chat --model runs/x"),
        ("data split", {"out": "sms"}, "scratchlm data inspect sms/train.jsonl sms/test.jsonl"),
        (
            "data fetch",
            {"fetched": [{"id": "t/a.txt", "path": "/c/a.txt"}]},
            "scratchlm data inspect /c/a.txt",
        ),
        ("evaluate judge", {"out": "a.jsonl"}, "scratchlm evaluate compare a.jsonl "),
    ],
)
def test_each_suggestion_is_a_command_that_exists(command, result, expected):
    line = suggested_command(command, {}, result)
    assert line is not None
    assert line.startswith(expected)
    words = tuple(shlex.split(line)[1:])
    assert words[:1] in COMMANDS or words[:2] in COMMANDS


def test_no_suggestion_where_there_is_nothing_to_continue():
    assert suggested_command("evaluate judge", {}, {"out": None}) is None
    assert suggested_command("data fetch", {}, {"fetched": []}) is None
    assert suggested_command("generate", {}, {}) is None


def test_fetched_weights_need_their_tokenizer_first():
    flags = {"names": ("gpt2-small",), "dir": None}
    result = {"fetched": [{"path": "/cache/gpt2/124M/model.safetensors"}], "tokenizer_here": False}
    assert "scratchlm data fetch gpt2_bpe" in str(suggested_command("weights fetch", flags, result))
    used = suggested_command("weights fetch", flags, result | {"tokenizer_here": True})
    assert used == 'scratchlm generate --model gpt2-small --prompt "Hello, I am"'
    used = suggested_command(
        "weights fetch", flags | {"dir": Path("gpt2")}, result | {"tokenizer_here": True}
    )
    assert used == 'scratchlm generate --model /cache/gpt2/124M --prompt "Hello, I am"'


class TypedInput:
    """Standard input as a person types it."""

    def __init__(self, *lines: str) -> None:
        self.lines = [*lines, ""]

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.lines.pop(0)


def test_chat_greets_says_what_the_model_was_trained_for_and_how_to_leave(life, run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", TypedInput("\n"))
    code, out, err = run(f"chat --model {life['assistant']}")
    assert (code, out) == (0, "")
    assert f"You are talking to {life['assistant']}" in err
    assert "an assistant fine-tuned on single instructions and their answers (template plain)" in err
    assert "An empty line or Ctrl-D ends the chat." in err


def test_chat_does_not_greet_a_pipe(life, run):
    assert "You are talking" not in run(f"chat --model {life['assistant']}", stdin="\n")[2]
