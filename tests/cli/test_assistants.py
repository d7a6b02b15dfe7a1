"""`finetune instruct` and `chat`: templates, packing, conversations, and what they say about wrong data."""

from __future__ import annotations

import io
import json

import pytest

from scratchlm.checkpoints.store import load_model
from scratchlm.cli.main import main
from scratchlm.serving import language_model

QUICK = "--max-steps 2 --batch-size 4 --max-new-tokens 3 --device cpu"


@pytest.fixture
def run(capsys, monkeypatch):
    """Run one command in this process; returns exit code, standard output and standard error."""

    def run(command: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main(command.split())
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def chats(tmp_path):
    """40 conversations of two exchanges with a system message."""
    lines = [
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": f"a{i}"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": "d"},
            ]
        }
        for i in range(40)
    ]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(tmp_path / "chats.jsonl")


@pytest.mark.parametrize("name", ["alpaca", "phi3", "chatml", "llama3"])
def test_every_template_makes_an_assistant_that_chat_asks_in_it(run, life, name):
    made = run(
        f"finetune instruct --base random:tiny --data {life['entries.json']} --out a --template {name} {QUICK} --json"
    )
    assert made[0] == 0, made[2]
    assert json.loads(made[1]).keys() >= {
        "padding_share", "tokens_per_s", "duplicates", "dropped", "leaked_test", "left_out", "truncated",
    }  # fmt: skip
    assert load_model("a").task["template"] == name
    code, out, err = run("chat --model a --max-new-tokens 2 --json", "hello\n")
    assert code == 0, err
    assert [turn["instruction"] for turn in json.loads(out)["turns"]] == ["hello"]


def test_speed_and_padding_are_printed(run, life):
    code, out, err = run(
        f"finetune instruct --base {life['base']} --data {life['entries.json']} --out a {QUICK} "
        "--template plain --packing"
    )
    assert code == 0, err
    assert "real tokens/s" in out
    assert "of the positions are padding; 0 entries cut, 0 left out" in out
    assert "entries nearly repeat an earlier one" in err


@pytest.fixture
def asked(monkeypatch):
    """The prompts that the assistant was given."""
    prompts = []
    real = language_model.answer_all

    def spy(entries, model, tokenizer, chosen, **settings):
        prompts.extend(chosen.prompt(entry) for entry in entries)
        return real(entries, model, tokenizer, chosen, **settings)

    monkeypatch.setattr(language_model, "answer_all", spy)
    return prompts


def test_chat_remembers_the_conversation_when_the_assistant_knows_conversations(run, chats, asked):
    code, _, err = run(
        f"finetune instruct --base random:tiny --data {chats} --out a --template chatml --system S {QUICK} --json"
    )
    assert code == 0, err
    code, out, err = run("chat --model a --max-new-tokens 2 --json", "one\ntwo\n")
    assert code == 0, err
    assert "forgets" not in err
    answer = json.loads(out)["turns"][0]["answer"]
    first = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    assert asked == [
        first, f"{first}{answer}<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
    ]  # fmt: skip
    asked.clear()
    run("chat --model a --max-new-tokens 2 --memory 0 --system T", "one\ntwo\n")
    assert [prompt.count("<|im_start|>user") for prompt in asked] == [1, 1]
    assert all(prompt.startswith("<|im_start|>system\nT<|im_end|>") for prompt in asked)


def test_an_assistant_of_single_questions_is_not_reminded_unless_asked_to(run, life, asked):
    code, _, err = run(f"chat --model {life['assistant']} --max-new-tokens 2", "one\ntwo\n")
    assert code == 0
    assert "it forgets the earlier ones (--memory N reminds it)" in err
    assert asked[1] == "Q: two\nA:"
    asked.clear()
    run(f"chat --model {life['assistant']} --max-new-tokens 2 --memory 1", "one\ntwo\n")
    assert asked[1].startswith("Q: one\nA:")
    assert asked[1].endswith("\nQ: two\nA:")
    code, _, err = run(f"chat --model {life['assistant']} --memory -1", "one\n")
    assert (code, "memory must be at least 0" in err) == (2, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": [{"role": "alien", "content": "x"}]}, "must have a known role, got 'alien'"),
        (
            {"messages": [{"role": "assistant", "content": "x"}]},
            "no request has an answer: the row is left out",
        ),
        ({"ask": "x", "output": "y"}, "must have text under 'instruction', got only 'ask', 'output'"),
    ],
)
def test_wrong_entries_are_one_line_of_complaint(run, life, tmp_path, line, message):
    (tmp_path / "bad.jsonl").write_text(json.dumps(line))
    code, out, err = run(
        f"finetune instruct --base {life['base']} --data {tmp_path / 'bad.jsonl'} --out a {QUICK}"
    )
    assert (code, out) == (3, "")
    assert message in err
    assert "bad.jsonl line 1" in err


@pytest.mark.parametrize("flags", ["--template chatm", "--augment 99", "--split random"])
def test_wrong_settings_are_told_before_anything_runs(run, life, flags):
    code, _, err = run(
        f"finetune instruct --base {life['base']} --data {life['entries.json']} --out a {QUICK} {flags}"
    )
    assert code == 2
    assert err.startswith("scratchlm: error: ")


def test_leak_free_split_duplicates_and_copies_are_flags(run, tmp_path, life):
    entries = [{"instruction": f"Say the word {chr(97 + i % 26) * 6}{i}", "output": "x"} for i in range(150)]
    (tmp_path / "many.json").write_text(json.dumps([*entries, entries[0]]))
    code, out, err = run(
        f"finetune instruct --base {life['base']} --data {tmp_path / 'many.json'} --out a --template plain {QUICK} "
        "--split leak-free --drop-duplicates --augment 1 --json"
    )
    assert code == 0, err
    figures = json.loads(out)
    assert (figures["rows"], figures["dropped"], figures["leaked_test"]) == (150, 1, 0)
    assert figures["train_n"] % 2 == 0
