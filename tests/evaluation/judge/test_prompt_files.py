"""The prompts: whole, filled once, and refused where they could not work."""

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.evaluation.judge.prompt_files import fill_in, packaged_prompt, read_prompt
from scratchlm.evaluation.judge.protocols import PROTOCOLS


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_packaged_prompt_is_whole_and_can_be_copied(tmp_path, protocol):
    (tmp_path / "mine.toml").write_text(packaged_prompt(protocol))
    assert read_prompt(protocol, tmp_path / "mine.toml") == read_prompt(protocol)


def test_every_protocol_asks_in_its_own_words():
    assert len({read_prompt(protocol).sha256 for protocol in PROTOCOLS}) == len(PROTOCOLS)


@pytest.mark.parametrize("change", ["question", "reminder", "system"])
def test_another_word_is_another_prompt(tmp_path, change):
    text = packaged_prompt("score")
    changed = (
        f'system = "Be strict."\n{text}'
        if change == "system"
        else text.replace(f'{change} = """', f'{change} = """Well. ')
    )
    (tmp_path / "mine.toml").write_text(changed)
    assert read_prompt("score", tmp_path / "mine.toml").sha256 != read_prompt("score").sha256


def test_what_is_filled_in_is_not_filled_again():
    assert fill_in("{task}|{code}", {"task": "{code} {nothing} {}", "code": "x"}) == "{code} {nothing} {}|x"


def test_other_braces_are_left_alone():
    assert fill_in('{"score": N} {task}', {"task": "t"}) == '{"score": N} t'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("question = ", "is not valid TOML"),
        ('question = "{task} {answer}"', "needs a value for 'reminder'"),
        ('question = "{task}"\nreminder = "{reply_code}"', r"must contain \{answer\}"),
        ('question = "{task} {answer}"\nreminder = "again"', r"must contain \{reply_code\}"),
        ('question = "{task} {anwser}"\nreminder = "{reply_code}"', "did you mean 'answer'"),
        (
            'question = "{task} {answer}"\nreminder = "{reply_code} {answer}"',
            r"unknown placeholder \{answer\}",
        ),
        ('question = "{task} {answer}"\nreminder = "{reply_code}"\nsystem = "{task}"', "remove it"),
        (
            'question = "{task} {answer}"\nreminder = "{reply_code}"\nquestions = ["a?"]',
            "got 1 questions for score",
        ),
        ('question = "{task} {answer}"\nreminder = "{reply_code}"\nremider = "x"', "did you mean 'reminder'"),
        ("question = 3\nreminder = 4", "must be str"),
    ],
)
def test_a_prompt_that_could_not_work_is_refused(tmp_path, text, complaint):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_prompt("score", tmp_path / "mine.toml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read_prompt("score", tmp_path / "none.toml")
