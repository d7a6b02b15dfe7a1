"""`evaluate memorization`: a reciting text is found, a new one is not, and real text stands beside them."""

import json
from pathlib import Path

import pytest

from scratchlm.assets.cache_folder import cache_folder


@pytest.fixture
def command(life):
    return f"evaluate memorization --model {life['base']} --data {life['text.txt']}"


def test_samples_are_seeded_and_measured_by_tokens_and_words(command, run_json):
    settings = f"{command} --n-samples 4 --max-new-tokens 12"
    found = run_json(settings)
    assert (found["samples"], len(found["items"]), found["reference"]) == (4, 4, None)
    assert run_json(settings) == found
    assert run_json(f"{settings} --seed 5")["items"] != found["items"]
    assert len({item["text"] for item in found["items"]}) == 4
    assert 0 <= found["generated"]["novel_5grams_tokens"] <= 1


def test_recited_text_is_found_and_the_passage_is_shown(life, command, run, run_json, tmp_path):
    training = Path(life["text.txt"]).read_text()
    recited = " ".join(training.split()[100:130])
    new = "nobody ever wrote these strange seven words anywhere"
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in (f"Zzz {recited} zzz", new)))
    found = run_json(f"{command} --texts {texts}")
    assert [item["longest_words"] for item in found["items"]] == [30, 0]
    assert found["items"][0]["passage"] == recited
    assert found["generated"]["longest_words"] == 30
    assert found["items"][1]["novel_5grams_words"] == 1
    code, out, _ = run(f"{command} --texts {texts}")
    assert code == 0
    assert recited in out


def test_held_out_text_is_a_yardstick_of_the_same_length(command, run, run_json, tmp_path):
    reference = tmp_path / "real.txt"
    reference.write_text("A hen and a fox once met on a long road near the sea. " * 5)
    settings = f"{command} --n-samples 2 --max-new-tokens 10 --reference {reference}"
    found = run_json(settings)
    assert found["reference_samples"] == 2
    assert set(found["reference"]) == set(found["generated"])
    code, out, _ = run(settings)
    assert code == 0
    assert "reference (2)" in out


def test_what_is_wrong_is_told(life, command, run, tmp_path):
    (tmp_path / "short.txt").write_text("a")
    assert run(f"{command} --n-samples 0")[0] == 2
    assert run(f"evaluate memorization --model {life['base']}")[0] == 2
    code, _, err = run(f"{command} --n-samples 1 --max-new-tokens 12 --reference {tmp_path / 'short.txt'}")
    assert (code, "less than one sample" in err) == (3, True)
    code, _, err = run(
        f"evaluate memorization --model {life['classifier']} --data {life['text.txt']} --n-samples 1"
    )
    assert (code, "classifier" in err) == (2, True)


def test_token_shards_hold_no_words(life, run, run_json):
    run_json(
        f"evaluate loss --model {life['base']} --data {life['text.txt']}"
    )  # leaves its tokens in the cache
    (shards,) = (cache_folder() / "tokens").glob("tokens-*")
    code, _, err = run(f"evaluate memorization --model {life['base']} --data {shards}")
    assert (code, "holds token shards" in err) == (3, True)


def test_no_new_tokens_are_no_samples(command, run):
    code, _, err = run(f"{command} --max-new-tokens 0")
    assert (code, "max_new_tokens must be at least 1" in err) == (2, True)


def test_bad_lines_are_left_out_when_that_is_said(life, run, run_json, tmp_path):
    rows = tmp_path / "rows.jsonl"
    text = "The cat sat on the mat and the dog sat on the log"
    rows.write_text(json.dumps({"text": text}) + "\n{broken\n")
    words = f"evaluate memorization --model {life['base']} --data {rows} --texts {rows}"
    code, _, err = run(words)
    assert (code, "--skip-bad-lines" in err) == (3, True)
    found = run_json(f"{words} --skip-bad-lines")
    assert (found["samples"], found["generated"]["longest_words"]) == (1, 13)
