"""`evaluate task`: what kind a file is of is seen by itself; chance stands beside accuracy."""

import json

import pytest


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        path = tmp_path / "task.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


CHOICE = {"prompt": "The cat", "choices": ["sat on the mat", "zebra", "xylophone"], "answer": 0}


def test_a_choice_file_has_accuracies_with_intervals_beside_chance(life, run, run_json, file):
    data = file(*[CHOICE] * 4)
    found = run_json(f"evaluate task --model {life['base']} --data {data} --limit 3")
    assert (found["kind"], found["n"]) == ("choice", 3)
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert {"accuracy_characters", "accuracy_bytes"} <= set(found)
    code, out, _ = run(f"evaluate task --model {life['base']} --data {data}")
    assert code == 0
    assert "guessing gives 33.3%" in out


def test_a_cloze_file_has_a_perplexity_and_every_question_is_written_down(life, run_json, file, tmp_path):
    data, out = (
        file({"text": "The cat sat on the mat"}, {"text": "The " * 60 + "dog"}),
        tmp_path / "items.jsonl",
    )
    found = run_json(f"evaluate task --model {life['base']} --data {data} --out {out}")
    assert (found["kind"], found["chance"], found["cropped"]) == ("cloze", None, 1)
    assert found["perplexity"] > 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["target"] for row in rows] == ["mat", "dog"]
    assert found["accuracy"] == sum(row["right"] for row in rows) / 2


def test_a_generation_file_is_answered(life, run_json, file):
    data = file({"prompt": "The cat", "answer": "sat"})
    found = run_json(f"evaluate task --model {life['base']} --data {data} --max-new-tokens 4")
    assert (found["kind"], found["n"]) == ("generation", 1)
    assert found["accuracy"] in (0, 1)


def test_gsm8ks_solutions_are_compared_by_their_final_number(life, run, run_json, file, tmp_path):
    data = file({"question": "How many?", "answer": "7*10=<<7*10=70>>70\n#### 70"})
    out = tmp_path / "items.jsonl"
    found = run_json(f"evaluate task --model {life['base']} --data {data} --out {out}")
    assert {"accuracy", "accuracy_strict"} <= set(found)
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["answers"] == ["7*10=<<7*10=70>>70\n#### 70"]
    assert "correct and written after ####" in run(f"evaluate task --model {life['base']} --data {data}")[1]


def test_what_is_wrong_is_told(life, run, file):
    base = f"evaluate task --model {life['base']}"
    assert run(base)[0] == 2
    assert run(f"{base} --data {file(CHOICE)} --limit 0")[0] == 2
    assert run(f"{base} --data {file(CHOICE)} --kind cloze")[0] == 3
    code, _, err = run(f"evaluate task --model {life['classifier']} --data {file(CHOICE)}")
    assert (code, "classifier" in err) == (2, True)


def test_few_questions_are_told_as_few(life, run, file):
    code, out, _ = run(f"evaluate task --model {life['base']} --data {file({'text': 'The ' * 60 + 'dog'})}")
    assert code == 0
    assert "1 question\n" in out
    assert "too few questions for an interval" in out
    assert "1 question longer than the context" in out
