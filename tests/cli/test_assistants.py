"""`finetune instruct` and `chat`: templates, packing, conversations, and what they say about wrong data."""

import io
import json

import pytest
import torch

from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.store import load_model
from scratchlm.cli.main import main
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.serving import language_model
from scratchlm.tokenizers import train_bpe

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
    real = language_model.assistant_prompt

    def spy(chosen, entry, task, tokenizer, **settings):
        prompt = real(chosen, entry, task, tokenizer, **settings)
        prompts.append(tokenizer.decode(prompt.ids))
        return prompt

    monkeypatch.setattr(language_model, "assistant_prompt", spy)
    return prompts


def test_chat_remembers_the_conversation_when_the_assistant_supports_conversations(run, chats, asked):
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
    assert "was trained on single questions, so earlier ones are not in its prompt" in err
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


def test_what_rows_hold_and_training_does_not_use_is_said_once_by_training_and_inspection(
    run, life, tmp_path
):
    turns = [
        {"from": "gpt", "value": "Hi"},
        {"from": "human", "value": "the cat"},
        {"from": "gpt", "value": "sat"},
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"id": i, "conversations": turns}) + "\n" for i in range(30)))
    told = [
        f"In 30 rows the assistant's message before the first request is left out (the first: {path} line 1).",
        "Fields not used: id.",
    ]
    code, _, err = run(
        f"finetune instruct --base {life['base']} --data {path} --out {tmp_path / 'run'} --template plain {QUICK}"
    )
    assert code == 0, err
    code, out, _ = run(f"data inspect {path}")
    assert code == 0
    for sentence in told:
        assert err.count(sentence) == 1
        assert out.count(sentence) == 1


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


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def foreign(tmp_path):
    """A Hugging Face folder with a chat template of its own, which nobody tuned here."""
    torch.manual_seed(0)
    tokenizer = train_bpe(
        ["user assistant system one two " * 20], 290, special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    model = GPTModel(GPTConfig(vocab_size=290, context_length=64, emb_dim=16, n_heads=2, n_layers=1))
    task = {"stop_ids": [tokenizer.special_tokens["<|im_end|>"]], "chat_template": CHATML}
    export_huggingface(tmp_path / "hf", model, tokenizer, task=task)
    return tmp_path / "hf"


@pytest.mark.parametrize("form", ["hf", "native", "gguf"])
def test_a_model_of_others_is_asked_in_its_own_template_in_every_format(run, foreign, asked, form):
    model = foreign
    if form != "hf":
        model = foreign.with_name("a.gguf" if form == "gguf" else "native")
        assert run(f"convert {foreign} {model} --to {form}")[0] == 0
    code, out, err = run(f"chat --model {model} --max-new-tokens 2 --system S --json", "one\ntwo\n")
    assert code == 0, err
    answer = json.loads(out)["turns"][0]["answer"]
    first = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    assert asked == [
        first, f"{first}{answer}<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
    ]  # fmt: skip


def test_a_long_conversation_goes_on_within_the_context(run, foreign, asked):
    code, out, err = run(
        f"chat --model {foreign} --max-new-tokens 4 --json", "".join(f"one two {i}\n" for i in range(8))
    )
    assert code == 0, err
    assert len(json.loads(out)["turns"]) == 8
    assert asked[-1].endswith("user\none two 7<|im_end|>\n<|im_start|>assistant\n")
    assert 1 < asked[-1].count("<|im_start|>user") < 8


def test_one_of_our_templates_is_taken_when_it_is_named(run, foreign, asked, life):
    assert run(f"chat --model {foreign} --max-new-tokens 2 --template plain", "one\n")[0] == 0
    assert run(f"chat --model {life['base']} --max-new-tokens 2 --template plain", "one\n")[0] == 0
    assert asked == ["Q: one\nA:"] * 2
    code, _, err = run("chat --model nowhere --template plian", "one\n")
    assert (code, "template must be one of" in err) == (2, True)


def test_a_template_that_does_not_work_is_one_line_of_complaint(run, foreign):
    (foreign / "chat_template.jinja").write_text("{{ ''.__class__ }}{{ 1 / 0 }}")
    code, _, err = run(f"chat --model {foreign}", "one\n")
    assert (code, "chat template failed" in err) == (3, True)
    (foreign / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    code, _, err = run(f"chat --model {foreign}", "one\n")
    assert (code, "refuses this conversation: not today" in err) == (3, True)
