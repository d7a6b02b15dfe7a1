"""`evaluate loss`: every text its row, and one figure over all of them."""

from pathlib import Path

import pytest


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.txt"
    path.write_text("Thé cat sat on thé mat. " * 100, encoding="utf-8")
    return path


def test_the_keys_that_scripts_rely_on(life, run_json):
    found = run_json(f"evaluate loss --model {life['base']} --data {life['text.txt']}")
    assert {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"} <= set(found)
    assert (found["stride"], found["context_length"]) == (16, 32)
    assert found["characters"] == len(Path(life["text.txt"]).read_text())
    low, high = found["interval"]
    assert low < found["loss"] < high
    assert found["bits_per_character"] == pytest.approx(found["bits_per_byte"])


def test_several_files_have_a_row_each_and_are_summed_by_tokens(life, run_json, run, other):
    command = f"evaluate loss --model {life['base']} --data {life['text.txt']} {other}"
    found = run_json(command)
    rows = found["files"]
    assert [row["data"] for row in rows] == [life["text.txt"], str(other)]
    assert found["tokens"] == sum(row["tokens"] for row in rows)
    assert found["loss"] == pytest.approx(sum(row["loss"] * row["tokens"] for row in rows) / found["tokens"])
    assert rows[1]["bytes"] == rows[1]["characters"] + 200
    assert rows[1]["bits_per_character"] > rows[1]["bits_per_byte"]
    code, out, _ = run(command)
    assert code == 0
    assert "all 2:" in out
    assert "16 apart" in out


def test_the_batch_size_changes_nothing(life, run_json, other):
    command = f"evaluate loss --model {life['base']} --data {other} --stride 5 --batch-size"
    losses = [run_json(f"{command} {size}")["loss"] for size in (1, 40)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_wrong_settings_are_told(life, run, other):
    code, _, err = run(f"evaluate loss --model {life['base']} --data {other} --stride 33")
    assert (code, "context length 32" in err) == (2, True)
    code, _, err = run(f"evaluate loss --model {life['classifier']} --data {other}")
    assert (code, "classifier" in err) == (2, True)
