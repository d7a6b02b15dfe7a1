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


def test_texts_are_mixed_by_weight_and_each_is_named_with_its_tokens(life, run):
    Path("other.txt").write_text("a bird sang in the tree and flew away over the hill. " * 60)
    command = f"pretrain --data {life['text.txt']} other.txt --data-weights 3 1 --out run {TINY}"
    code, out, err = run(f"{command} --tokenizer.vocab-size 300 --json")
    assert code == 0, err
    found = json.loads(out)
    assert [source["name"] for source in found["sources"]] == [life["text.txt"], "other.txt"]
    assert [source["share"] for source in found["sources"]] == [0.75, 0.25]
    assert sum(source["tokens"] for source in found["sources"]) == found["tokens"] == 2 * 4 * 16
    assert "75.0% of the training tokens" in err
    code, out, err = run("pretrain --resume --out run --max-steps 40")
    assert code == 0, err
    lines = [line for line in out.splitlines() if "tokens trained on" in line]
    assert [line.split(":")[0].strip() for line in lines] == [life["text.txt"], "other.txt"]
    assert all("validation loss" in line for line in lines)


def test_weights_without_a_text_each_are_refused_before_anything_is_read(run):
    code, _, err = run(f"pretrain --data missing.txt --data-weights 3 1 --out run {TINY}")
    assert code == 2
    assert "got 2 for 1 (missing.txt); give as many --data-weights as --data" in err


def test_a_text_that_is_missing_from_a_mixture_is_named(life, run):
    code, _, err = run(f"pretrain --data {life['text.txt']} missing.txt --data-weights 3 1 --out run {TINY}")
    assert code == 3
    assert "missing.txt does not exist" in err


def test_a_model_trained_within_documents_is_evaluated_within_documents(run_json):
    for name, n in (("train.jsonl", 80), ("val.jsonl", 20)):
        rows = [json.dumps({"text": f"the {n} cats sat on mat {i}. a bird sang."}) for i in range(n)]
        Path(name).write_text("\n".join(rows))
    command = f"pretrain --data train.jsonl --val-data val.jsonl --out run {TINY} --tokenizer.vocab-size 300"
    trained = run_json(f"{command} --attend-within-documents")
    measure = "evaluate loss --model run --data val.jsonl"
    assert run_json(f"{measure} --attend-within-documents")["loss"] == trained["val_loss"]
    assert run_json(measure)["loss"] != trained["val_loss"]
