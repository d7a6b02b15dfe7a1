"""Adapters with random settings of peft compute the same as in peft, or are refused by the setting's name."""

import json
import os
import random
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from benchmarks.foreign_models import VOCAB_SIZE, random_model, save  # noqa: E402
from scratchlm.checkpoints.open_model import import_model  # noqa: E402
from scratchlm.core.errors import CheckpointError  # noqa: E402
from scratchlm.finetuning.peft import import_peft  # noqa: E402
from scratchlm.finetuning.peft_config import PeftConfig  # noqa: E402
from scratchlm.tokenizers.bpe_trainer import train_bpe  # noqa: E402

NAMES = [f"model.layers.{i}.self_attn.{part}_proj" for i in range(12) for part in "qkvo"]
NAMES += [f"model.layers.{i}.mlp.{part}_proj" for i in range(12) for part in ("gate", "up", "down")]
NAMES += ["lm_head"]


def settings_of(folder, **values: Any) -> PeftConfig:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, **values}))
    return PeftConfig(folder)


def targets_of(folder, **values: Any) -> set[str]:
    return settings_of(folder, **values).targets(NAMES, usual=("q_proj",), head="lm_head")


def scales_of(folder, patterns) -> dict[str, float]:
    settings = settings_of(folder, lora_alpha=8, alpha_pattern=patterns)
    settings.check_patterns(NAMES)
    return {name: settings.scale(name) for name in NAMES}


@pytest.mark.parametrize(
    "pattern",
    [
        r"layers\.0\.self_attn\.[qv]_proj",
        r"model\.layers\.0\.self_attn\.(q|v)_proj",
        r"^model.*\.0\..*[qv]_proj",
    ],
)
def test_a_pattern_means_what_the_whole_names_say(tmp_path, pattern):
    literal = {f"layers.0.self_attn.{part}_proj": 100 for part in "qv"}
    assert scales_of(tmp_path, {pattern: 100}) == scales_of(tmp_path, literal)


def test_the_first_pattern_that_matches_decides(tmp_path):
    scales = scales_of(tmp_path, {"q_proj": 40, r"layers\.0\..*": 80})
    assert scales["model.layers.0.self_attn.q_proj"] == 10
    assert scales["model.layers.0.self_attn.k_proj"] == 20
    assert scales["model.layers.1.self_attn.k_proj"] == 2


def test_a_pattern_matches_whole_parts_of_a_name_only(tmp_path):
    scales = scales_of(tmp_path, {"1.self_attn.q_proj": 40})
    assert {name for name, scale in scales.items() if scale == 10} == {"model.layers.1.self_attn.q_proj"}


@pytest.mark.parametrize("setting", ["alpha_pattern", "rank_pattern"])
@pytest.mark.parametrize("key", ["proj", "c_attn", "layers.12.mlp.up_proj", "layers", ""])
def test_a_pattern_that_matches_nothing_is_named(tmp_path, setting, key):
    with pytest.raises(CheckpointError, match=rf"has {setting} for '{key}', which matches no linear module"):
        settings_of(tmp_path, **{setting: {key: 4}}).check_patterns(NAMES)


@pytest.mark.parametrize("pattern", ["(", "[a", "a{1000}{1000}{1000}", "(?P<x>a)(?P<x", "a" * 2000])
def test_a_pattern_that_is_none_is_our_error(tmp_path, pattern):
    with pytest.raises(CheckpointError, match=r"alpha_pattern in .* must hold a valid regular expression"):
        settings_of(tmp_path, alpha_pattern={pattern: 4}).check_patterns(NAMES)
    with pytest.raises(CheckpointError, match=r"target_modules in .* must hold a valid regular expression"):
        targets_of(tmp_path, target_modules=pattern)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, lambda n: n.endswith("q_proj") or n == "lm_head"),
        ({"target_modules": "q_proj"}, lambda n: False),
        ({"target_modules": r".*\.1\..*"}, lambda n: ".1." in n),
        ({"target_modules": "all-linear"}, lambda n: n != "lm_head"),
        (
            {"target_modules": "All-Linear", "exclude_modules": ["mlp.up_proj"]},
            lambda n: "up" not in n and n != "lm_head",
        ),
        ({}, lambda n: n.endswith("q_proj")),
        (
            {"target_modules": ["q_proj"], "exclude_modules": r".*\.1.*"},
            lambda n: n.endswith("q_proj") and ".1" not in n,
        ),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": 3},
            lambda n: ".3." in n and n.endswith("q_proj"),
        ),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": [1, 3], "layers_pattern": ["h", "layers"]},
            lambda n: (".1." in n or ".3." in n) and n.endswith("q_proj"),
        ),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "h"}, lambda n: False),
        (
            {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]},
            lambda n: n.endswith("q_proj"),
        ),
        ({"target_modules": ["lm_head"], "layers_to_transform": [1]}, lambda n: n == "lm_head"),
    ],
)
def test_the_targets_are_those_of_peft(tmp_path, values, expected):
    assert targets_of(tmp_path, **values) == {name for name in NAMES if expected(name)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora_bias", True),
        ("trainable_token_indices", [1]),
        ("layer_replication", [[0, 2]]),
        ("target_parameters", ["x"]),
        ("use_qalora", True),
        ("kasa_config", {"beta": 1}),
        ("a_setting_of_the_future", 3),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", 1),
    ],
)
def test_an_unsupported_setting_is_refused_by_its_name(tmp_path, name, value):
    with pytest.raises(CheckpointError, match=rf"has {name} = .*merge_and_unload, then save_pretrained"):
        settings_of(tmp_path, **{name: value})


# ------------------------------------------------------------------ against peft itself

PARTS = {
    "gpt2": ["c_attn", "c_proj", "c_fc", "lm_head", "attn.c_proj", "transformer.h.0.attn.c_attn", "wte"],
    "llama 2": ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "lm_head", "embed_tokens"],
}
EXPRESSIONS = {
    "gpt2": [r".*c_attn", r"transformer\.h\.[01]\.attn\.c_(attn|proj)", r".*\.mlp\..*"],
    "llama 2": [r".*[qv]_proj", r"model\.layers\.1\..*_proj", r".*mlp.*proj"],
}
KEYS = {
    "gpt2": ["c_attn", r"h\.0\..*", r"attn\.c_proj", "c_proj", "^transformer.h.1.attn.c_attn", ".*"],
    "llama 2": [
        "q_proj",
        r"layers\.0\..*",
        r".*[vq]_proj",
        "^model.layers.0.self_attn.q_proj",
        "q_proj|down_proj",
    ],
}
SAVED = ["lm_head", "wte", "embed_tokens", "ln_f", "norm", "wpe", "c_fc", "mlp"]


def random_settings(draw: random.Random, family: str) -> dict[str, Any]:
    def sometimes(chance: float, name: str, *choices: Any) -> dict[str, Any]:
        return {name: draw.choice(choices)} if draw.random() < chance else {}

    some = draw.sample(PARTS[family], draw.choice([1, 2, 3]))
    targets = draw.choice([some, some, draw.choice(EXPRESSIONS[family]), "all-linear", None])
    values = {
        "r": draw.choice([1, 2, 4]),
        "lora_alpha": draw.choice([1, 8, 16]),
        "task_type": "CAUSAL_LM",
        "target_modules": targets,
    }
    values |= sometimes(0.4, "alpha_pattern", *({key: draw.choice([1, 32, 100])} for key in KEYS[family]))
    values |= sometimes(0.4, "rank_pattern", *({key: draw.choice([1, 3, 8])} for key in KEYS[family]))
    if isinstance(targets, list) and draw.random() < 0.3:
        values |= {"layers_to_transform": draw.choice([0, [1], [0, 1]])}
        values |= sometimes(0.3, "layers_pattern", "h", "layers", ["layers", "h"])
    values |= sometimes(0.2, "exclude_modules", [some[0]], r".*0.*", ["mlp.c_proj", "down_proj"])
    values |= sometimes(0.3, "modules_to_save", draw.sample(SAVED, 1), draw.sample(SAVED, 2))
    values |= sometimes(0.2, "use_rslora", True) | sometimes(0.2, "use_dora", True)
    values |= sometimes(0.2, "bias", "all", "lora_only") | sometimes(0.1, "fan_in_fan_out", True)
    values |= sometimes(0.05, "lora_bias", True) | sometimes(0.05, "trainable_token_indices", [1, 2])
    return values | sometimes(0.05, "init_lora_weights", "pissa", "gaussian", "orthogonal")


def write_with_peft(base, folder, values: dict[str, Any]) -> torch.Tensor | None:
    """peft's own logits of a model with a random adapter of these settings, or None where peft refuses them."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    try:
        adapted = peft.get_peft_model(load(base), peft.LoraConfig(**values))
        for name, parameter in adapted.named_parameters():
            is_trained = parameter.requires_grad or "lora_" in name or "modules_to_save" in name
            parameter.data += 0.2 * torch.randn_like(parameter) if is_trained else 0.0
        adapted.save_pretrained(folder)
        adapted = peft.PeftModel.from_pretrained(load(base), folder).eval()
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError):
        return None
    with torch.no_grad():
        logits: torch.Tensor = adapted(IDS).logits
    return logits


IDS = torch.arange(20)[None] * 13 % 270


@pytest.mark.filterwarnings("ignore")  # peft's, about settings that it does not like
@pytest.mark.parametrize(
    ("seed", "n"), [(0, 12), *(pytest.param(seed, 60, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_random_adapters_compute_what_peft_does_or_are_refused_by_name(tmp_path, seed, n):
    tokenizer = train_bpe(["the cat sat on the mat and the dog sat by the door"] * 3, VOCAB_SIZE)
    bases = {family: save(random_model(family), tmp_path / family, tokenizer) for family in PARTS}
    torch.manual_seed(seed)
    n_read = 0
    for number in range(n):
        draw = random.Random(f"{seed} {number}")
        family = draw.choice(list(PARTS))
        values, folder = random_settings(draw, family), tmp_path / f"adapter-{number}"
        expected = write_with_peft(bases[family], folder, values)
        if expected is None:
            continue
        ours = import_model(bases[family]).model
        try:
            import_peft(ours, folder)
        except CheckpointError as error:
            refusal = str(error)
        else:
            refusal = ""
        if refusal:
            unread = ("lora_bias", "trainable_token_indices", "init_lora_weights", "lora_embedding_")
            assert any(name in refusal for name in unread), (values, refusal)
            continue
        n_read += 1
        with torch.no_grad():
            difference = (ours(IDS) - expected).abs().max()
        # float32, and updates that are a hundred times as large as the weights: a wrong scale shows as 0.1
        assert difference <= 1e-4 * max(1.0, expected.abs().max().item()), (values, difference)
    assert n_read >= n // 3
