"""Hugging Face's formats against transformers itself: logits within 1e-4, the same 50 greedy tokens."""

import dataclasses
import json
import os
import re

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

from benchmarks.foreign_models import FAMILIES, VOCAB_SIZE, greedy, random_model, save  # noqa: E402
from scratchlm.assets import known_weights, registry  # noqa: E402
from scratchlm.assets.known_weights import GPT2_ASSETS  # noqa: E402
from scratchlm.checkpoints.huggingface import export_huggingface  # noqa: E402
from scratchlm.checkpoints.open_model import cropped, import_model, open_model  # noqa: E402
from scratchlm.checkpoints.store import load_model, save_model  # noqa: E402
from scratchlm.core.errors import CheckpointError, ConfigError, DataError  # noqa: E402
from scratchlm.finetuning.heads import class_logits, replace_head  # noqa: E402
from scratchlm.generation.config import GenerationConfig  # noqa: E402
from scratchlm.generation.generate import generate  # noqa: E402
from scratchlm.model.config import GPTConfig  # noqa: E402
from scratchlm.model.gpt import GPTModel  # noqa: E402
from scratchlm.tokenizers.bpe_trainer import train_bpe  # noqa: E402
from scratchlm.tokenizers.files import load_tokenizer  # noqa: E402
from tests.tokenizers.odd_strings import odd_strings  # noqa: E402
from tests.tokenizers.test_families import FAMILIES as TOKENIZERS  # noqa: E402

TOLERANCE = 1e-4  # largest difference of any logit, float32
N_GREEDY = 50


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sat on the mat and the dog sat by the door"] * 3, VOCAB_SIZE)


@pytest.fixture(scope="module")
def prompts():
    return torch.randint(0, 270, (3, 40), generator=torch.Generator().manual_seed(3))


def assert_agrees(ours, theirs, prompts):
    with torch.no_grad():
        difference = (ours(prompts) - theirs(prompts).logits).abs().max().item()
    assert difference <= TOLERANCE
    settings = GenerationConfig(max_new_tokens=N_GREEDY, temperature=0.0)
    ids = prompts[0, :10].tolist()
    assert [step.id for step in generate(ours, [ids], settings)] == greedy(theirs, ids, N_GREEDY)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_transformers_gives_the_same_logits_and_tokens(family, tokenizer, prompts, tmp_path):
    theirs = random_model(family)
    loaded = import_model(save(theirs, tmp_path / "hf", tokenizer))
    assert_agrees(loaded.model, theirs, prompts)
    assert loaded.config.tie_embeddings == theirs.config.tie_word_embeddings
    assert loaded.tokenizer.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("family", FAMILIES)
def test_our_folder_is_loaded_by_transformers_auto_classes(family, tokenizer, prompts, tmp_path):
    loaded = import_model(save(random_model(family), tmp_path / "hf", tokenizer))
    out = export_huggingface(tmp_path / "out", loaded.model, loaded.tokenizer)
    assert_agrees(loaded.model, transformers.AutoModelForCausalLM.from_pretrained(out).eval(), prompts)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    text = "the cat's door, 12 mats\n and ünïcödé"
    assert their_tokenizer(text)["input_ids"] == tokenizer.encode(text)
    assert their_tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("family", FAMILIES)
def test_native_to_hugging_face_and_back_keeps_every_bit(family, tokenizer, tmp_path):
    loaded = import_model(save(random_model(family), tmp_path / "hf", tokenizer))
    native = save_model(tmp_path / "native", loaded.model, loaded.tokenizer)
    again = import_model(export_huggingface(tmp_path / "out", loaded.model, loaded.tokenizer))
    back = save_model(tmp_path / "back", again.model, again.tokenizer)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (native / name).read_bytes() == (back / name).read_bytes(), name


def test_a_model_without_query_biases_keeps_that_through_hugging_face(tokenizer, prompts, tmp_path):
    config = GPTConfig(vocab_size=300, context_length=64, emb_dim=24, n_heads=2, n_layers=2, drop_rate=0.0)
    model = GPTModel(config).eval()
    out = export_huggingface(tmp_path / "out", model, tokenizer)
    assert_agrees(model, transformers.AutoModelForCausalLM.from_pretrained(out).eval(), prompts)
    again = import_model(out)
    assert again.config == config
    assert all(
        torch.equal(again.model.state_dict()[name], value) for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize("family", ["gpt2", "qwen 3"])
def test_shards_and_pytorch_files_are_read_as_well(family, tokenizer, prompts, tmp_path):
    theirs = random_model(family)
    sharded = save(theirs, tmp_path / "sharded", tokenizer, max_shard_size="30KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    assert_agrees(import_model(sharded).model, theirs, prompts)
    (tmp_path / "bin").mkdir()
    theirs.config.save_pretrained(tmp_path / "bin")
    torch.save(theirs.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    tokenizer.save(tmp_path / "bin" / "tokenizer.json")
    assert_agrees(import_model(tmp_path / "bin").model, theirs, prompts)


def test_weights_without_prefix_and_with_masks_are_the_same_model(tokenizer, prompts, tmp_path):
    theirs = random_model("gpt2")
    state = {
        name.removeprefix("transformer."): t
        for name, t in theirs.state_dict().items()
        if "lm_head" not in name
    }
    for i in range(3):
        state[f"h.{i}.attn.bias"] = torch.ones(1, 1, 128, 128).tril()
        state[f"h.{i}.attn.masked_bias"] = torch.tensor(-10000.0)
    theirs.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    tokenizer.save(tmp_path / "tokenizer.json")
    assert_agrees(import_model(tmp_path).model, theirs, prompts)


def test_matrices_in_linears_layout_are_the_same_model(tokenizer, prompts, tmp_path):
    theirs = random_model("gpt2")
    conv1d = re.compile(r".*(c_attn|c_proj|c_fc)\.weight")
    state = {n: t.T.contiguous() if conv1d.fullmatch(n) else t for n, t in theirs.state_dict().items()}
    theirs.config.save_pretrained(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    tokenizer.save(tmp_path / "tokenizer.json")
    assert_agrees(import_model(tmp_path).model, theirs, prompts)


def test_half_precision_files_become_float32(tokenizer, prompts, tmp_path):
    half, theirs = random_model("llama 3").to(torch.bfloat16), random_model("llama 3")
    theirs.load_state_dict(half.state_dict())  # rounded weights, but angles in float32
    loaded = import_model(save(half, tmp_path / "hf", tokenizer))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert_agrees(loaded.model, theirs, prompts)


def test_positions_are_cropped_on_request(tokenizer, prompts, tmp_path):
    theirs = random_model("gpt2")
    folder = save(theirs, tmp_path / "hf", tokenizer)
    short = cropped(import_model(folder), 40)
    assert short.config.context_length == 40
    with torch.no_grad():
        assert (short.model(prompts) - theirs(prompts).logits).abs().max() <= TOLERANCE
    with pytest.raises(ConfigError, match="context_length must be 1 to 128 for this model, got 129"):
        cropped(import_model(folder), 129)


@pytest.mark.parametrize("is_theirs", [True, False])
def test_classifiers_travel_both_ways(is_theirs, tokenizer, prompts, tmp_path):
    classes = ["ham", "spam", "news"]
    if is_theirs:
        settings = {**FAMILIES["gpt2"][1], "num_labels": 3, "pad_token_id": 299}
        config = transformers.GPT2Config(**settings, id2label=dict(enumerate(classes)))
        theirs = transformers.GPT2ForSequenceClassification(config).eval()
        loaded = import_model(save(theirs, tmp_path / "hf", tokenizer))
        assert loaded.task == {"kind": "classification", "classes": classes, "max_length": 128}
        ours = loaded.model
    else:
        torch.manual_seed(1)
        ours = GPTModel(
            GPTConfig(vocab_size=300, context_length=64, emb_dim=24, n_heads=2, n_layers=2)
        ).eval()
        replace_head(ours, 3)
        task = {"kind": "classification", "classes": classes, "max_length": 60}
        out = export_huggingface(tmp_path / "out", ours, tokenizer, task=task)
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
        assert theirs.config.id2label == dict(enumerate(classes))
        assert open_model(out).task["classes"] == classes
    with torch.no_grad():
        difference = class_logits(ours, prompts, None) - theirs(prompts).logits
    assert difference.abs().max() <= TOLERANCE


def edited(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, r"model_type 'mamba', which is not supported"),
        ({"model_type": None}, "model_type None, which is not supported"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ({"activation_function": "relu"}, "activation_function = 'relu'"),
        ({"n_layer": 2}, r"unexpected: transformer\.h\.2\.attn"),
        ({"n_layer": 4}, r"missing: trf_blocks\.3\.att"),
        ({"n_embd": 42}, "misshapen: transformer"),
        ({"n_layer": 10**12}, "blocks"),
        ({"n_embd": 6 * 10**18}, "damaged"),
        ({"n_head": 7}, "n_heads=7"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number"),
    ],
)
def test_a_wrong_config_is_named(changes, message, tokenizer, tmp_path):
    folder = edited(save(random_model("gpt2"), tmp_path / "hf", tokenizer), **changes)
    with pytest.raises(CheckpointError, match=message):
        import_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type = 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type = 'linear'"),
        ({"attention_bias": True}, "attention_bias and mlp_bias"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "layer_types"),
        ({"hidden_size": None}, "lacks hidden_size"),
    ],
)
def test_a_llama_with_what_we_lack_is_refused(changes, message, tokenizer, tmp_path):
    folder = edited(save(random_model("llama 2"), tmp_path / "hf", tokenizer), **changes)
    with pytest.raises(CheckpointError, match=message):
        import_model(folder)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../model.safetensors"}, "must name weight files in its own folder"),
        (
            {"a": "model.safetensors.index.json"},
            "must name weight files in its own folder",
        ),  # itself, forever
        ({"a": "missing.safetensors"}, "does not exist"),
        ({"a": 3}, "must map weights to files"),
        (None, "must map weights to files"),
    ],
)
def test_a_damaged_index_is_an_error(weight_map, message, tokenizer, tmp_path):
    folder = save(random_model("gpt2"), tmp_path / "hf", tokenizer)
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        import_model(folder)


def test_a_mix_that_no_family_has_is_refused_on_the_way_out(tokenizer, tmp_path):
    sizes = {"vocab_size": 300, "context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    for changes in (
        {"norm": "rms"},
        {"positions": "rotary"},
        {"n_kv_heads": 1},
        {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "linear_bias": True},
    ):
        with pytest.raises(ConfigError, match="Hugging Face has no family for this mix"):
            export_huggingface(tmp_path / "out", GPTModel(GPTConfig(**sizes, **changes)), tokenizer)
        assert not (tmp_path / "out").exists()


def test_a_folder_without_a_tokenizer_says_what_to_add(tokenizer, tmp_path):
    folder = save(random_model("gpt2"), tmp_path / "hf", tokenizer)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json, no vocab\.json with merges\.txt"):
        import_model(folder)


def test_a_model_folder_and_a_foreign_one_open_by_the_same_name(tokenizer, tmp_path):
    loaded = open_model(save(random_model("gpt2"), tmp_path / "hf", tokenizer))
    native = save_model(tmp_path / "native", loaded.model, tokenizer)
    assert open_model(native).config == loaded.config == load_model(native).config
    with pytest.raises(CheckpointError, match="must be a model folder"):
        open_model(tmp_path / "nothing")
    assert dataclasses.asdict(loaded.config)["init"] == "gpt2"


def test_published_weights_open_by_their_name_once_they_were_fetched(
    tokenizer, prompts, tmp_path, monkeypatch
):
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(tmp_path / "assets"))
    (tmp_path / "assets").mkdir()
    with pytest.raises(DataError, match="scratchlm weights fetch gpt2-medium --source hf"):
        open_model("gpt2-medium")
    unsized = tuple(dataclasses.replace(asset, settings=()) for asset in GPT2_ASSETS)
    for module in (registry, known_weights):  # the model here is small
        monkeypatch.setattr(module, "GPT2_ASSETS", unsized)
    theirs = random_model("gpt2")
    folder = save(theirs, tmp_path / "cache" / "gpt2" / "774M", tokenizer)  # its hash is not published
    for name in ("gpt2-large", "774M"):
        assert_agrees(open_model(name).model, theirs, prompts)
    assert folder.is_dir()


def random_ours():
    return GPTModel(GPTConfig(vocab_size=300, context_length=8, emb_dim=8, n_heads=2, n_layers=1))


def test_an_export_never_replaces_a_folder_of_other_things(tokenizer, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_mother.txt").write_text("Dear mother")
    model = random_ours()
    with pytest.raises(CheckpointError, match=r"since it holds other files \(to_mother\.txt\)"):
        export_huggingface(tmp_path / "letters", model, tokenizer)
    assert (tmp_path / "letters" / "to_mother.txt").read_text() == "Dear mother"
    export_huggingface(tmp_path / "a", model, tokenizer)
    export_huggingface(tmp_path / "a", model, tokenizer)  # an older model may go


def test_a_record_of_ours_that_sees_the_future_is_not_believed(tokenizer, tmp_path):
    folder = export_huggingface(tmp_path / "a", random_ours(), tokenizer)
    values = json.loads((folder / "config.json").read_text())
    values["scratchlm_config"]["is_causal"] = False
    (folder / "config.json").write_text(json.dumps(values))
    assert open_model(folder).config.is_causal


@pytest.mark.parametrize("family", TOKENIZERS)
def test_auto_tokenizer_gives_the_ids_of_an_exported_tokenizer(family, tmp_path):
    (tmp_path / "tokenizer.json").write_text(TOKENIZERS[family]().to_str(), encoding="utf-8")
    ours = load_tokenizer(tmp_path)
    sizes = {"vocab_size": ours.vocab_size, "context_length": 8, "emb_dim": 16, "n_heads": 2, "n_layers": 1}
    model = GPTModel(GPTConfig(**sizes, drop_rate=0.0))
    theirs = transformers.AutoTokenizer.from_pretrained(export_huggingface(tmp_path / "hf", model, ours))
    for text in odd_strings(200, also=[token.content for token in ours.added_tokens]):
        ids = ours.encode(text, allowed_special="all")
        assert theirs(text, add_special_tokens=False).input_ids == ids, repr(text)
        assert theirs.decode(ids) == ours.decode(ids)
