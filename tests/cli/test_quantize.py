"""`scratchlm quantize`, and what other commands do with its result."""

import json

import pytest

from scratchlm.checkpoints.store import load_model
from scratchlm.quantization.apply import quantized_layers


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log. " * 30)
    return path


@pytest.mark.parametrize("flags", ["--bits 8", "--bits 4", "--bits 4 --kind gptq --calibrate {text}"])
def test_json_has_sizes_and_losses(life, run, tmp_path, text, flags):
    out = tmp_path / "q"
    code, printed, err = run(
        f"quantize --model {life['base']} --out {out} {flags.format(text=text)} --text {text} --json"
    )
    assert code == 0, err
    result = json.loads(printed)
    assert {"out", "bits", "size_bytes", "size_before_bytes", "loss", "loss_before"} <= result.keys()
    assert result["size_bytes"] == (out / "model.safetensors").stat().st_size
    assert result["loss"] == pytest.approx(result["loss_before"], rel=0.05)
    assert result["loss"] != result["loss_before"]
    assert result["tokens_per_s"] > 0
    assert {layer.matrix.bits for layer in quantized_layers(load_model(out).model).values()} >= {
        result["bits"]
    }
    assert load_model(out).manifest["step"] == load_model(life["base"]).manifest["step"]


def test_the_result_generates_converts_and_classifies(life, run, tmp_path):
    for name in ("base", "classifier"):
        code, printed, err = run(f"quantize --model {life[name]} --out {tmp_path / name} --bits 8")
        assert (code, "wrote" in printed, "loss:" in printed) == (0, True, name == "base"), err
    assert run(f"generate --model {tmp_path / 'base'} --prompt the --max-new-tokens 3")[0] == 0
    for to, target in (("hf", "hf"), ("gguf", "a.gguf"), ("book", "book/a.pth"), ("native", "again")):
        (tmp_path / "book").mkdir(exist_ok=True)
        code, _, err = run(f"convert {tmp_path / 'base'} {tmp_path / target} --to {to}")
        assert code == 0, err
    assert quantized_layers(load_model(tmp_path / "again").model)
    assert run(f"convert {tmp_path / 'base'} {tmp_path / 'float'} --to native --dtype f32")[0] == 0
    assert not quantized_layers(load_model(tmp_path / "float").model)
    whole, small = (
        json.loads(run(f"classify --model {model} --json", "win a prize now")[1])["results"][0]["probability"]
        for model in (life["classifier"], tmp_path / "classifier")
    )
    assert small == pytest.approx(whole, abs=0.05)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("--bits 4 --kind gptq", 2, "--calibrate names the text for --kind gptq"),
        ("--bits 4 --calibrate some.txt", 2, "give both or neither"),
        ("--bits 5", 2, "Expected one of '4', '8'"),
        ("--bits 4 --group-size 50", 2, "group_size must be 32, 64, 128"),
        ("--bits 8 --kind nf4", 2, "nf4 has 4 bits"),
        ("--loss-tokens 1", 2, "loss_tokens must be at least 2"),
        ("--text nowhere.txt", 3, "nowhere.txt"),
    ],
)
def test_what_cannot_be_done_is_named(life, run, tmp_path, flags, code, message):
    found, _, err = run(f"quantize --model {life['base']} --out {tmp_path / 'q'} {flags}")
    assert found == code
    assert message in err
    assert not (tmp_path / "q").exists()


def test_a_folder_of_transformers_is_quantized(life, run, tmp_path):
    for dtype in ("f32", "bf16"):
        source, out = tmp_path / dtype, tmp_path / f"{dtype}-8"
        assert run(f"convert {life['base']} {source} --to hf --dtype {dtype}")[0] == 0
        code, _, err = run(f"quantize --model {source} --out {out} --bits 8")
        assert code == 0, err
        assert run(f"generate --model {out} --prompt the --max-new-tokens 3")[0] == 0


def test_an_existing_target_is_refused_before_the_work(life, run, tmp_path, monkeypatch):
    (tmp_path / "q").mkdir()
    monkeypatch.setattr("scratchlm.cli.quantize.quantize_model", lambda *_, **__: pytest.fail("quantized"))
    code, _, err = run(f"quantize --model {life['base']} --out {tmp_path / 'q'} --bits 8")
    assert (code, "already exists" in err) == (3, True)
    code, _, err = run(f"quantize --model {life['base']} --out {life['base']} --bits 8 --overwrite")
    assert (code, "is the source" in err) == (2, True)


def test_a_quantized_model_is_refused_before_it_is_measured(life, run, tmp_path, monkeypatch):
    assert run(f"quantize --model {life['base']} --out {tmp_path / 'q'} --bits 8")[0] == 0
    monkeypatch.setattr("scratchlm.cli.quantize.text_loss", lambda *_, **__: pytest.fail("measured"))
    code, _, err = run(f"quantize --model {tmp_path / 'q'} --out {tmp_path / 'again'} --bits 4")
    assert (code, "quantized already" in err) == (2, True)


def test_a_quantized_model_is_not_quantized_again_and_not_trained(life, run, tmp_path, text):
    small = tmp_path / "q"
    assert run(f"quantize --model {life['base']} --out {small} --bits 8")[0] == 0
    code, _, err = run(f"quantize --model {small} --out {tmp_path / 'again'} --bits 4")
    assert (code, "quantized already" in err) == (2, True)
    code, _, err = run(f"quantize --model {life['base']} --out {small} --bits 8")
    assert (code, "already exists" in err) == (3, True)
