"""Pre-training from the command line: tokenizers of every kind, data of every kind."""

import json
import os
from pathlib import Path

import pytest

TINY = (
    "--model.n-layers 1 --model.emb-dim 16 --model.n-heads 2 --model.context-length 16 --batch-size 4 "
    "--max-steps 2 --device cpu"
)


@pytest.mark.parametrize("kind", ["word"])
def test_a_model_of_words_trains_and_says_that_its_bytes_do_not_count(life, run, run_json, kind):
    code, out, err = run(f"pretrain --data {life['text.txt']} --out run {TINY} --tokenizer.kind {kind}")
    assert code == 0, err
    assert "bits per byte not comparable" in out

    measure = f"evaluate loss --model run --data {life['text.txt']}"
    assert run_json(measure)["bits_per_byte"] is None
    assert "bits per byte not comparable" in run(measure)[1]

    found = run_json("generate --model run --max-new-tokens 3 --prompt", "The cat")
    assert found["text"].startswith(" ")
    assert (
        run("generate --model run --max-new-tokens 3 --prompt", "The cat")[1] == f"The cat{found['text']}\n"
    )


def test_a_lossless_model_of_words_counts_bytes(life, run_json):
    found = run_json(f"pretrain --data {life['text.txt']} --out run {TINY} --tokenizer.kind lossless-word")
    assert found["bits_per_byte"] > 0


def test_token_shards_are_data_too(life, run_json):
    made = run_json(f"pretrain --data {life['text.txt']} --out first {TINY} --tokenizer.vocab-size 300")
    [shards] = Path(os.environ["SCRATCHLM_HOME"]).glob("tokens/tokens-*")
    again = run_json(f"pretrain --data {shards} --tokenizer.path first/tokenizer.json --out second {TINY}")
    assert again["val_loss"] == made["val_loss"]


@pytest.mark.parametrize(
    "command",
    [
        f"pretrain --out run {TINY} --tokenizer.vocab-size 300",
        "evaluate loss --model {base}",
        "tokenizer train --vocab-size 300",
    ],
)
def test_a_bad_line_can_be_skipped_wherever_text_is_read(life, run, command):
    rows = [json.dumps({"body": f"the cat sat on mat {i}. " * 5}) for i in range(40)]
    Path("rows.jsonl").write_text("\n".join([*rows, "{broken"]))
    command = f"{command.replace('{base}', life['base'])} --data rows.jsonl --text-field body --json"
    code, _, err = run(command)
    assert code == 3
    assert "--skip-bad-lines" in err
    code, out, err = run(f"{command} --skip-bad-lines")
    assert code == 0, err
    assert json.loads(out)["skipped_lines"] == 1
    assert err.count("skipped 1 lines") == 1
    assert "rows.jsonl line 41" in err


def test_a_learning_rate_is_searched_for_and_no_run_is_left(life, run):
    model = "--model.n-layers 1 --model.emb-dim 16 --model.n-heads 2 --model.context-length 16 --batch-size 4"
    command = f"pretrain --data {life['text.txt']} {model} --tokenizer.vocab-size 300 --find-lr"
    code, out, err = run(f"{command} --json")
    assert code == 0, err
    found = json.loads(out)
    points = found["points"]
    best = min(points, key=lambda point: point["loss"])
    assert found["learning_rate"] == pytest.approx(best["learning_rate"] / 10)
    assert points[0]["learning_rate"] == 1e-6
    assert not Path("runs").exists()
    assert "suggested: --learning-rate" in run(command)[1]
    code, _, err = run(f"{command} --out here")
    assert code == 2
    assert "--find-lr writes no run; drop --resume and --out" in err
