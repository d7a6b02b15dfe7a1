"""Conversions keep everything the format can hold, verify themselves, and never leave half a target."""

import copy
import dataclasses

import pytest
import torch

from scratchlm.checkpoints import conversion
from scratchlm.checkpoints.comparison import prompts
from scratchlm.checkpoints.conversion import EXPORT_FORMATS, convert
from scratchlm.checkpoints.gguf.modelfile import PromptFrame
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.store import LoadedModel, load_model, save_model
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.tiny import LLAMA_LAYERS

LLAMA = {**LLAMA_LAYERS, "n_kv_heads": 2, "ff_dim": 64}
KINDS = {
    "gpt2": {"qkv_bias": True},
    "gpt2 tied": {"tie_embeddings": True, "qkv_bias": True},
    "llama": LLAMA,
    "llama tied": LLAMA | {"tie_embeddings": True},
    "qwen3": LLAMA | {"norm_eps": 1e-6, "qk_norm": True, "head_size": 16},
}
NAMES = {"native": "out", "hf": "out", "gguf": "out.gguf", "book": "out.pth", "onnx": "out.onnx"}
KEEPERS = [
    to for to in EXPORT_FORMATS if to != "onnx"
]  # hold the very weights; ONNX holds a graph that scores alike
ONNX_TOLERANCE = 1e-5  # largest difference of any logit, float32


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sat on the mat " * 20], 262, special_tokens=["<|endoftext|>"])


@pytest.fixture
def make_source(tmp_path, tokenizer):
    def make(kind: str = "gpt2", **changes) -> LoadedModel:
        torch.manual_seed(0)
        sizes = {"vocab_size": 262, "context_length": 16, "emb_dim": 32, "n_heads": 4, "n_layers": 2}
        model = GPTModel(GPTConfig(**(sizes | KINDS[kind] | changes)))
        return load_model(
            save_model(tmp_path / "source", model, tokenizer, task={"kind": "none"}, facts={"step": 7})
        )

    return make


@pytest.fixture
def out(tmp_path):
    (tmp_path / "made").mkdir()
    return tmp_path / "made"


def assert_same_bits(one: GPTModel, other: GPTModel) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        assert torch.equal(ours[name], theirs[name]), name


def largest_logit(model: GPTModel) -> float:
    with torch.no_grad():
        return max(1.0, model(prompts(model.config)).abs().max().item())


@pytest.mark.parametrize("to", KEEPERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_source_s_logits(make_source, out, kind, to):
    source = make_source(kind)
    done = convert(source, out / NAMES[to], to=to)
    is_exact = done.compared_with == "scratchlm"  # others add up in another order: see comparison.py
    assert done.max_logit_difference <= (0 if is_exact else 1e-4 * largest_logit(source.model))
    assert done.out == out / NAMES[to]


@pytest.mark.parametrize("kind", KINDS)
def test_a_journey_through_all_formats_keeps_every_bit(make_source, out, kind):
    source = make_source(kind)
    for name, to in (("a", "native"), ("b", "hf"), ("c", "native"), ("d.gguf", "gguf"), ("e", "native")):
        convert(source, out / name, to=to)
        source_of_next = EXPORT_FORMATS[to].read(out / name, source)
        assert_same_bits(source.model, source_of_next.model)
        assert source_of_next.tokenizer.fingerprint == source.tokenizer.fingerprint
        source = source_of_next


def test_a_native_copy_keeps_task_and_facts(make_source, out):
    convert(make_source(), out / "copy", to="native")
    copy = load_model(out / "copy")
    assert copy.task == {"kind": "none"}
    assert copy.manifest["step"] == 7


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_gives_the_source_s_logits(make_source, out, kind):
    done = convert(make_source(kind), out / "a.onnx", to="onnx")
    assert done.max_logit_difference <= ONNX_TOLERANCE
    assert [file.name for file in out.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_onnx_is_written_in_full_precision_only(make_source, out, dtype):
    with pytest.raises(ConfigError, match="omit it"):
        convert(make_source(), out / "a.onnx", to="onnx", dtype=dtype)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("to", KEEPERS)
def test_fewer_bits_are_stored_and_the_difference_is_told(make_source, out, to, dtype):
    done = convert(make_source(), out / NAMES[to], to=to, dtype=dtype)
    assert 0 < done.max_logit_difference < 0.05
    full = convert(make_source(), out / f"full{NAMES[to]}", to=to, overwrite=True)
    size = sum(file.stat().st_size for file in [done.out, *done.out.rglob("*")])
    assert size < sum(file.stat().st_size for file in [full.out, *full.out.rglob("*")])


def test_q8_0_is_significant_from_the_source(make_source, out):
    assert 0 < convert(make_source(), out / "a.gguf", to="gguf", dtype="q8_0").max_logit_difference < 0.1


@pytest.mark.parametrize("to", ["native", "hf", "book"])
def test_q8_0_is_for_gguf_only(make_source, out, to):
    with pytest.raises(ConfigError, match="use --to gguf"):
        convert(make_source(), out / NAMES[to], to=to, dtype="q8_0")


def test_a_weight_beyond_float16_is_an_error(make_source, out):
    source = make_source()
    with torch.no_grad():
        source.model.tok_emb.weight[0, 0] = 1e6
    with pytest.raises(ConfigError, match=r"tok_emb\.weight has weights beyond the range of f16"):
        convert(source, out / "a", to="native", dtype="f16")
    assert list(out.iterdir()) == []


def test_the_book_s_file_has_the_book_s_names_and_masks(make_source, out):
    source = make_source("gpt2 tied")
    convert(source, out / "a.pth", to="book")
    state = torch.load(out / "a.pth", weights_only=True)
    linear = [
        f"{name}.{end}"
        for name in ("ff.layers.0", "ff.layers.2", "att.out_proj")
        for end in ("weight", "bias")
    ]
    norms = [f"{name}.{end}" for name in ("norm1", "norm2") for end in ("scale", "shift")]
    heads = [f"att.W_{name}.{end}" for name in ("query", "key", "value") for end in ("weight", "bias")]
    expected = {f"trf_blocks.{i}.{name}" for i in range(2) for name in [*linear, *norms, *heads, "att.mask"]}
    expected |= {
        "tok_emb.weight",
        "pos_emb.weight",
        "final_norm.scale",
        "final_norm.shift",
        "out_head.weight",
    }
    assert set(state) == expected
    assert torch.equal(state["out_head.weight"], source.model.tok_emb.weight)
    # chapter 3: self.register_buffer("mask", torch.triu(torch.ones(n, n), diagonal=1))
    assert torch.equal(state["trf_blocks.1.att.mask"], torch.triu(torch.ones(16, 16), diagonal=1))


def test_gguf_gets_a_modelfile_with_the_frame(make_source, out):
    done = convert(make_source(), out / "a.gguf", to="gguf", frame=PromptFrame(before="Q: ", after="\nA:"))
    assert done.others == (out / "Modelfile",)
    text = (out / "Modelfile").read_text()
    assert text.startswith('FROM ./a.gguf\nTEMPLATE """Q: {{ .Prompt }}\nA:"""\n')
    assert 'PARAMETER stop "<|endoftext|>"' in text
    assert b"tokenizer.chat_template" in (out / "a.gguf").read_bytes()


def test_no_verify_compares_nothing(make_source, out, monkeypatch):
    monkeypatch.setattr(conversion, "compare", lambda *a, **k: pytest.fail("compared"))
    assert convert(make_source(), out / "a.gguf", to="gguf", verify=False).max_logit_difference is None


@pytest.mark.parametrize("to", [*KEEPERS, pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_existing_target_stays_unless_told_otherwise(make_source, out, to):
    source = make_source()
    convert(source, out / NAMES[to], to=to)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(CheckpointError, match="--overwrite"):
        convert(source, out / NAMES[to], to=to)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    replaced = convert(source, out / NAMES[to], to=to, overwrite=True)
    tolerance = {"onnx": ONNX_TOLERANCE, "hf": 1e-4 * largest_logit(source.model)}
    assert replaced.max_logit_difference <= tolerance.get(to, 0)


def test_overwrite_never_replaces_a_folder_that_is_no_model(make_source, out):
    (out / "letters").mkdir()
    (out / "letters" / "to_mother.txt").write_text("Dear mother")
    with pytest.raises(CheckpointError, match="choose another name"):
        convert(make_source(), out / "letters", to="native", overwrite=True)
    assert (out / "letters" / "to_mother.txt").read_text() == "Dear mother"


@pytest.mark.parametrize(("to", "name"), [("native", "a"), ("gguf", "a.gguf")])
def test_overwrite_never_replaces_another_kind_of_thing(make_source, out, to, name):
    if to == "native":
        (out / name).write_text("a file")
    else:
        (out / name).mkdir()
    with pytest.raises(CheckpointError, match=r"which a file cannot replace|since it is something else"):
        convert(make_source(), out / name, to=to, overwrite=True)


def test_a_model_is_never_written_over_itself_or_its_parents(make_source, tmp_path):
    source = make_source()
    for target in (tmp_path / "source", tmp_path):
        with pytest.raises(ConfigError, match="is the source or contains it"):
            convert(source, target, to="hf", overwrite=True)
    for target in (".", "..", ""):
        with pytest.raises(ConfigError, match="must have a name of its own"):
            convert(source, target, to="native", overwrite=True)
    assert load_model(tmp_path / "source").config == source.config


@pytest.mark.parametrize(("to", "name"), [("gguf", "a"), ("gguf", "a.bin"), ("book", "a.gguf")])
def test_a_file_s_name_must_tell_its_format(make_source, out, to, name):
    with pytest.raises(ConfigError, match="must end in"):
        convert(make_source(), out / name, to=to)


def test_an_unknown_format_is_an_error(make_source, out):
    with pytest.raises(ConfigError, match="--to must be one of native, hf, gguf, book, onnx"):
        convert(make_source(), out / "a", to="tflite")


@pytest.mark.parametrize("to", KEEPERS)
def test_a_result_that_differs_is_not_left_behind(make_source, out, to, monkeypatch):
    way = EXPORT_FORMATS[to]

    def spoilt(path, source):
        loaded = way.read(path, source)
        with torch.no_grad():
            loaded.model.final_norm.scale.mul_(3.0)
        return loaded

    monkeypatch.setitem(EXPORT_FORMATS, to, way._replace(read=spoilt))
    with pytest.raises(CheckpointError, match="nothing was written"):
        convert(make_source(), out / NAMES[to], to=to)
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_an_onnx_graph_that_scores_differently_is_not_left_behind(make_source, out, monkeypatch):
    way = EXPORT_FORMATS["onnx"]

    def other_weights(path, source, dtype, frame):
        other = copy.deepcopy(source.model)
        with torch.no_grad():
            other.final_norm.scale.mul_(3.0)
        way.write(path, dataclasses.replace(source, model=other), dtype, frame)

    monkeypatch.setitem(EXPORT_FORMATS, "onnx", way._replace(write=other_weights))
    with pytest.raises(CheckpointError, match="nothing was written"):
        convert(make_source(), out / "a.onnx", to="onnx")
    assert list(out.iterdir()) == []


def test_a_full_disk_leaves_nothing(make_source, out, monkeypatch):
    import gguf

    def no_space(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        convert(make_source(), out / "a.gguf", to="gguf")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("to", ["native", "book"])
def test_a_classifier_keeps_its_head(make_source, out, to):
    source = make_source()
    source.model.out_head = torch.nn.Linear(32, 2)
    source.task.update(kind="classification", classes=["ham", "spam"])
    assert convert(source, out / NAMES[to], to=to).max_logit_difference == 0


def test_a_read_file_can_be_written_again(make_source, out):
    convert(make_source("llama"), out / "a.gguf", to="gguf", dtype="f16")
    once = read_gguf(out / "a.gguf")
    (out / "second").mkdir()
    assert convert(once, out / "second" / "a.gguf", to="gguf", dtype="f16").max_logit_difference == 0


def test_overwrite_never_replaces_a_model_folder_with_other_work_in_it(make_source, out):
    convert(make_source(), out / "a", to="hf")
    (out / "a" / "notes").mkdir()
    (out / "a" / "notes" / "to_mother.txt").write_text("Dear mother")
    with pytest.raises(CheckpointError, match=r"since it holds other files \(notes\)"):
        convert(make_source(), out / "a", to="hf", overwrite=True)
    assert (out / "a" / "notes" / "to_mother.txt").read_text() == "Dear mother"


@pytest.mark.parametrize("to", ["native", "hf"])
def test_a_folder_is_never_written_into_its_source(make_source, tmp_path, to):
    with pytest.raises(ConfigError, match="lies inside the source folder"):
        convert(make_source(), tmp_path / "source" / "sub", to=to)
    assert not (tmp_path / "source" / "sub").exists()


def test_a_single_file_s_folder_is_not_its_own(make_source, out):
    convert(make_source(), out / "a.gguf", to="gguf")
    assert convert(read_gguf(out / "a.gguf"), out / "back", to="native").max_logit_difference == 0


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_book_s_settings_never_become_another_model_s(make_source, out, overwrite):
    source = make_source()
    convert(source, out / "hf", to="hf")
    before = {file: file.read_bytes() for file in (out / "hf").iterdir()}
    for config in (True, False):  # a missing one would be read with the weights that lie there, too
        if not config:
            (out / "hf" / "config.json").unlink()
            (out / "hf" / "tokenizer.json").unlink()
            before = {file: file.read_bytes() for file in (out / "hf").iterdir()}
        with pytest.raises(CheckpointError, match=r"config\.json (already exists|would also be read)"):
            convert(source, out / "hf" / "w.pth", to="book", overwrite=overwrite)
        assert {file: file.read_bytes() for file in (out / "hf").iterdir()} == before


def test_a_book_file_without_a_task_is_not_put_beside_one(make_source, out):
    source = make_source()
    convert(source, out / "a.pth", to="book")
    assert (out / "task.json").is_file()
    with pytest.raises(CheckpointError, match="belongs to another model"):
        convert(dataclasses.replace(source, task={}), out / "a.pth", to="book", overwrite=True)
