"""`evaluate compare`: better, worse, or chance."""

import json
from pathlib import Path

import pytest


def write(name: str, n: int = 20, *, n_right: int, first: int = 0) -> str:
    entries = [
        {
            "instruction": f"Say {i}.",
            "output": f"word{i}",
            "model_response": f"word{i}" if i < n_right else "no",
        }
        for i in range(first, n)
    ]
    Path(name).write_text(json.dumps(entries))
    return name


def test_a_clear_difference_is_told_and_so_is_its_side(run, run_json):
    a, b = write("a.json", n_right=4), write("b.json", n_right=18)
    found = run_json(f"evaluate compare {a} {b}")
    assert (found["verdict"], found["mean_a"], found["mean_b"], found["higher"]) == ("B", 20, 90, 14)
    assert found["low"] > 0
    code, out, _ = run(f"evaluate compare {b} {a}")
    assert code == 0
    assert out.rstrip().endswith("A scores higher than B.")


def test_a_difference_of_one_item_is_chance(run):
    code, out, _ = run(f"evaluate compare {write('a.json', n_right=10)} {write('b.json', n_right=11)}")
    assert code == 0
    assert "do not differ significantly" in out


def test_result_files_and_answers_of_the_offline_judge_go_together(run, run_json):
    a, b = write("a.json", n_right=4), write("b.json", n_right=18)
    assert run(f"evaluate judge --answers {a} --judge offline --out a.jsonl")[0] == 0
    assert run_json(f"evaluate compare a.jsonl {b}") == run_json(f"evaluate compare {a} {b}")


def test_unequal_items_are_refused_unless_asked_for(run, run_json):
    a, b = write("a.json", n_right=4), write("b.json", n_right=18, first=2)
    code, _, err = run(f"evaluate compare {a} {b}")
    assert code == 3
    assert "--shared-only compares the 18" in err
    found = run_json(f"evaluate compare {a} {b} --shared-only")
    assert (found["n"], found["left_out"]) == (18, 2)
    assert "left out: 2 of 20 items" in run(f"evaluate compare {a} {b} --shared-only")[1]


def test_an_unreliable_judgement_is_still_unreliable_beside_another(run, run_json):
    """Every answer is its own reference's twin, so the control "another's reference" scores two words of three."""
    Path("a.json").write_text(
        json.dumps(
            [
                {"instruction": f"Say {i}.", "output": f"it is word{i}", "model_response": f"it is word{i}"}
                for i in range(10)
            ]
        )
    )
    assert run("evaluate judge --answers a.json --judge offline --out a.jsonl")[0] == 0
    found = run_json("evaluate compare a.jsonl a.json")
    assert found["unreliable"]["B"] == []
    assert "another's reference" in found["unreliable"]["A"][0]
    out = run("evaluate compare a.jsonl a.json")[1]
    assert 'A is UNRELIABLE: the control "another\'s reference" scored 66.7' in out
    assert "B is UNRELIABLE" not in out


@pytest.mark.parametrize(
    ("files", "code", "complaint"),
    [
        ("", 2, "got 0"),
        ("a.json", 2, "got 1"),
        ("a.json b.json a.json", 2, "got 3"),
        ("a.json none.json", 3, "none"),
    ],
)
def test_two_files_that_are_there_are_needed(run, files, code, complaint):
    write("a.json", n_right=4)
    write("b.json", n_right=4)
    found, out, err = run(f"evaluate compare {files}")
    assert (found, out) == (code, "")
    assert complaint in err
