"""`scratchlm convert`: models that other programs open, told in one line or one object."""

import pytest
import torch

from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import load_model
from scratchlm.finetuning.heads import class_logits, replace_head
from scratchlm.finetuning.lora import lora_parameters, replace_linear_with_lora
from scratchlm.finetuning.peft import export_peft


@pytest.mark.parametrize(
    ("to", "name"), [("native", "a"), ("hf", "a"), ("gguf", "a.gguf"), ("book", "a.pth")]
)
def test_json_has_the_difference_and_the_place(life, run_json, tmp_path, to, name):
    result = run_json(f"convert {life['base']} {tmp_path / name} --to {to}")
    assert result.keys() == {"max_logit_difference", "compared_with", "out", "kind"}
    assert (result["max_logit_difference"] < 1e-4, result["out"]) == (True, str(tmp_path / name))
    assert ("transformers" if to == "hf" else "scratchlm") in result["compared_with"]
    assert (tmp_path / name).exists()


def test_a_person_is_told_what_was_written_and_compared(life, run, tmp_path):
    code, out, _ = run(f"convert {life['base']} {tmp_path / 'a.gguf'} --to gguf --dtype f16")
    assert code == 0
    first, second = out.splitlines()
    assert first == f"wrote {tmp_path / 'a.gguf'}, {tmp_path / 'Modelfile'}"
    assert 0 < float(second.removeprefix("largest difference between logits: ").partition(" ")[0]) < 0.1


def test_without_comparison_there_is_no_number(life, run, run_json, tmp_path):
    assert run_json(f"convert {life['base']} {tmp_path / 'a'} --to native --no-verify") == {
        "max_logit_difference": None,
        "compared_with": None,
        "kind": "language model",
        "out": str(tmp_path / "a"),
    }
    _, out, _ = run(f"convert {life['base']} {tmp_path / 'b'} --to native --no-verify")
    assert out.splitlines()[-1] == "not compared (--no-verify)"


@pytest.mark.parametrize(("to", "name"), [("hf", "a"), ("gguf", "a.gguf"), ("book", "a.pth")])
def test_what_was_written_is_a_source_too(life, run_json, tmp_path, to, name):
    run_json(f"convert {life['base']} {tmp_path / name} --to {to}")
    run_json(f"convert {tmp_path / name} {tmp_path / 'b'} --to native")
    source, copy = load_model(life["base"]), load_model(tmp_path / "b")
    weights = source.model.state_dict()
    assert all(copy.model.state_dict()[name].equal(tensor) for name, tensor in weights.items())


def test_the_books_file_of_a_classifier_comes_back_as_a_classifier_with_its_names(life, run_json, tmp_path):
    run_json(f"convert {life['classifier']} {tmp_path / 'a.pth'} --to book")
    found = sorted(path.name for path in tmp_path.iterdir())
    assert {"a.pth", "config.json", "task.json", "tokenizer.json"} <= set(found)
    source, copy = load_model(life["classifier"]), open_model(tmp_path / "a.pth")
    assert copy.task == source.task
    assert copy.model.out_head.weight.equal(source.model.out_head.weight)
    assert copy.tokenizer.fingerprint == source.tokenizer.fingerprint


def test_a_graph_is_no_source(life, run, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"graph")
    code, _, err = run(f"convert {tmp_path / 'a.onnx'} {tmp_path / 'b'} --to native")
    assert code == 3
    assert "got .onnx" in err


def test_a_shorter_context_crops_the_positions(life, run_json, tmp_path):
    run_json(f"convert {life['base']} {tmp_path / 'short'} --to native --context-length 8")
    source, short = load_model(life["base"]), load_model(tmp_path / "short")
    assert short.config.context_length == 8
    assert short.model.pos_emb.weight.equal(source.model.pos_emb.weight[:8])
    ids = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(short.model(ids), source.model(ids), atol=0, rtol=0)


def test_a_classifier_with_a_shorter_context_reads_shorter_texts(life, run_json, tmp_path):
    run_json(f"convert {life['classifier']} {tmp_path / 'short'} --to native --context-length 8")
    assert load_model(tmp_path / "short").task["max_length"] == 8


def test_two_models_in_one_folder_have_a_modelfile_each(life, run_json, tmp_path):
    for _ in range(2):  # written anew, each keeps its place
        run_json(f"convert {life['base']} {tmp_path / 'one.gguf'} --to gguf --overwrite")
        run_json(f"convert {life['assistant']} {tmp_path / 'two.gguf'} --to gguf --overwrite")
    assert "FROM ./one.gguf\n" in (tmp_path / "Modelfile").read_text()
    assert "FROM ./two.gguf\n" in (tmp_path / "Modelfile.two").read_text()


def test_settings_of_another_model_are_not_replaced_unasked(life, run, run_json, tmp_path):
    run_json(f"convert {life['base']} {tmp_path / 'a.pth'} --to book")
    run_json(f"convert {life['base']} {tmp_path / 'b.pth'} --to book")  # the same settings serve both
    code, _, err = run(f"convert {life['base']} {tmp_path / 'c.pth'} --to book --context-length 8")
    assert code == 3
    assert "config.json already exists" in err
    assert not (tmp_path / "c.pth").exists()


def test_an_assistant_brings_its_template(life, run_json, tmp_path):
    run_json(f"convert {life['assistant']} {tmp_path / 'a.gguf'} --to gguf")
    assert 'TEMPLATE """Q: {{ .Prompt }}\nA:"""' in (tmp_path / "Modelfile").read_text()
    assert read_gguf(tmp_path / "a.gguf").task["template"] == "plain"


def test_a_base_model_just_continues(life, run_json, tmp_path):
    run_json(f"convert {life['base']} {tmp_path / 'a.gguf'} --to gguf")
    assert 'TEMPLATE """{{ .Prompt }}"""' in (tmp_path / "Modelfile").read_text()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("convert", 2, "needs a source, a target and --to"),
        ("convert {base} a.gguf", 2, "needs a source, a target and --to"),
        (
            "convert {base} a.gguf --to ggml",
            2,
            "Expected one of 'book', 'gguf', 'hf', 'native', 'onnx', 'peft' (",
        ),
        ("convert {base} a --to native --context-length 4000", 2, "context_length must be 1 to"),
        ("convert {base} a --to native --context-length 0", 2, "context_length must be"),
        ("convert {base} a.bin --to gguf", 2, "must end in .gguf"),
        ("convert {base} a --to native --dtype q8_0", 2, "q8_0 is for gguf only"),
        ("convert {base} {base} --to native --overwrite", 2, "is the source or contains it"),
        ("convert nowhere a.gguf --to gguf", 3, "nowhere"),
        ("convert nowhere.gguf a --to native", 3, "nowhere.gguf"),
        ("convert {base} there.gguf --to gguf", 3, "--overwrite"),
        ("convert {classifier} a.gguf --to gguf", 3, "a head for another task"),
    ],
)
def test_a_mistake_is_one_line_with_its_exit_code(life, run, tmp_path, monkeypatch, command, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.gguf").write_text("older")
    before = sorted(tmp_path.iterdir())
    found, out, err = run(command.format(base=life["base"], classifier=life["classifier"]))
    assert found == code, err
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_classifiers_adapter_makes_a_classifier_of_its_base(life, run_json, tmp_path):
    base = load_model(life["base"]).model
    torch.manual_seed(2)
    replace_head(base, 3)
    replace_linear_with_lora(base.trf_blocks, 2, 4)
    adapter = export_peft(tmp_path / "adapter", base)
    run_json(f"convert {adapter} {tmp_path / 'made'} --to native --base {life['base']}")
    made = load_model(tmp_path / "made")
    assert made.task["classes"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected, found = (class_logits(model.eval(), ids, None) for model in (base, made.model))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_an_adapter_is_added_to_its_base(life, run, run_json, tmp_path):
    base = load_model(life["base"])
    for parameter in base.model.parameters():
        parameter.requires_grad_(False)
    replace_linear_with_lora(base.model.trf_blocks, 2, 4)
    for parameter in lora_parameters(base.model):
        torch.nn.init.normal_(parameter, std=0.1)
    adapter = export_peft(tmp_path / "adapter", base.model)
    run_json(f"convert {adapter} {tmp_path / 'merged'} --to native --base {life['base']}")
    ids = torch.arange(12)[None]
    with torch.no_grad():
        merged = load_model(tmp_path / "merged").model(ids)
        torch.testing.assert_close(merged, base.model.eval()(ids), atol=1e-4, rtol=1e-4)
    code, _, err = run(f"convert {adapter} {tmp_path / 'b'} --to native")
    assert code == 2
    assert "is a LoRA adapter and needs its base model" in err
    code, _, err = run(f"convert {life['base']} {tmp_path / 'c'} --to native --base {life['base']}")
    assert (code, (tmp_path / "c").exists()) == (2, False)
    assert "--base is for a LoRA adapter, but" in err
    named = run_json(f"convert {adapter} {tmp_path / 'lora'} --to peft --base {life['base']}")
    assert named["max_logit_difference"] < 1e-6
    run_json(f"convert {tmp_path / 'lora'} {tmp_path / 'again'} --to native")  # it knows its base now
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path / "again").model(ids), merged, atol=1e-5, rtol=1e-5)


def test_a_runs_adapter_is_found_and_a_run_without_one_is_told(life, run, run_json, tmp_path):
    base = load_model(life["base"])
    replace_linear_with_lora(base.model.trf_blocks, 2, 4)
    export_peft(tmp_path / "run" / "adapter", base.model, base=str(life["base"]))
    assert run_json(f"convert {tmp_path / 'run'} {tmp_path / 'out'} --to peft")["out"] == str(
        tmp_path / "out"
    )
    code, _, err = run(f"convert {life['base']} {tmp_path / 'b'} --to peft")
    assert code == 2
    assert "has no LoRA adapter for --to peft" in err
    code, _, err = run(f"convert {tmp_path / 'run'} {tmp_path / 'c'} --to peft --dtype f16")
    assert code == 2
    assert "got --dtype" in err
