"""Adapter folders against peft itself: the same logits, both ways."""

import json
import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from benchmarks.foreign_models import VOCAB_SIZE, random_model, save  # noqa: E402
from scratchlm.checkpoints.open_model import import_model  # noqa: E402
from scratchlm.core.errors import CheckpointError, ConfigError  # noqa: E402
from scratchlm.finetuning.dora import LinearWithDoRA  # noqa: E402
from scratchlm.finetuning.heads import class_logits, replace_head  # noqa: E402
from scratchlm.finetuning.lora import LinearWithLoRA, merge_lora, replace_linear_with_lora  # noqa: E402
from scratchlm.finetuning.peft import export_peft, import_peft  # noqa: E402
from scratchlm.tokenizers.bpe_trainer import train_bpe  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own

TOLERANCE = 1e-4  # largest difference of any logit, float32
TARGETS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama 2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"],
    "qwen 3": ["q_proj", "v_proj"],
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sat on the mat and the dog sat by the door"] * 3, VOCAB_SIZE)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 270, (3, 30), generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=TARGETS)
def pair(request, tokenizer, tmp_path):
    """transformers' model and ours with the same weights, and the family."""
    theirs = random_model(request.param)
    return theirs, import_model(save(theirs, tmp_path / "base", tokenizer)).model, request.param


def shake(model) -> None:
    """New updates are zero; fill them with random values."""
    for name, parameter in model.named_parameters():
        if ".lora_B." in name or name.endswith(".lora.B"):
            torch.nn.init.normal_(parameter, std=0.2)


def differences(ours, theirs, ids) -> float:
    with torch.no_grad():
        return (ours.eval()(ids) - theirs.eval()(ids).logits).abs().max().item()


@pytest.mark.parametrize("use_rslora", [False, True])
def test_an_adapter_that_peft_trained_gives_its_logits(pair, ids, tmp_path, use_rslora):
    theirs, ours, family = pair
    before = differences(ours, theirs, ids)
    settings = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=TARGETS[family], use_rslora=use_rslora, task_type="CAUSAL_LM",
        fan_in_fan_out=family == "gpt2",
    )  # fmt: skip
    adapted = peft.get_peft_model(theirs, settings)
    shake(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    assert import_peft(ours, tmp_path / "adapter") > 0
    assert differences(ours, adapted, ids) <= TOLERANCE
    merge_lora(ours)
    assert differences(ours, adapted, ids) <= TOLERANCE
    assert before <= TOLERANCE
    with torch.no_grad():
        assert (ours(ids) - adapted.get_base_model()(ids).logits).abs().max() <= TOLERANCE


def test_a_dora_adapter_that_peft_trained_gives_its_logits(pair, ids, tmp_path):
    theirs, ours, family = pair
    settings = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=TARGETS[family], use_dora=True, task_type="CAUSAL_LM",
        fan_in_fan_out=family == "gpt2",
    )  # fmt: skip
    adapted = peft.get_peft_model(theirs, settings)
    shake(adapted)
    for name, parameter in adapted.named_parameters():
        if "magnitude" in name:
            with torch.no_grad():
                parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    assert import_peft(ours, tmp_path / "adapter") > 0
    assert any(isinstance(module, LinearWithDoRA) for module in ours.modules())
    assert differences(ours, adapted, ids) <= TOLERANCE
    merge_lora(ours)
    assert differences(ours, adapted, ids) <= TOLERANCE


@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha/sqrt(rank)", "alpha"])
def test_our_adapter_gives_the_same_logits_in_peft(pair, ids, tmp_path, scaling):
    theirs, ours, _ = pair
    replace_linear_with_lora(ours.trf_blocks, 4, 2, scaling=scaling)
    shake(ours)
    folder = export_peft(tmp_path / "adapter", ours)
    adapted = peft.PeftModel.from_pretrained(theirs, folder)
    assert differences(ours, adapted, ids) <= TOLERANCE


def test_out_and_in_again_computes_the_same(pair, ids, tmp_path, tokenizer):
    theirs, ours, _ = pair
    replace_linear_with_lora(ours.trf_blocks, 4, 2)
    shake(ours)
    with torch.no_grad():
        expected = ours.eval()(ids)
    again = import_model(save(theirs, tmp_path / "again", tokenizer)).model
    import_peft(again, export_peft(tmp_path / "adapter", ours))
    for name, parameter in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], parameter), name
    with torch.no_grad():
        torch.testing.assert_close(again(ids), expected, atol=1e-4, rtol=0)


def edited(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "must describe a LoRA adapter, got 'IA3'"),
        ({"use_dora": True}, r"and lora_magnitude_vector \(\d+,\)"),
        ({"use_dora": "yes"}, "true or false as use_dora, got 'yes'"),
        ({"lora_dropout": 1.5}, "a number from 0 to below 1 as lora_dropout, got 1.5"),
        ({"bias": "some"}, "bias = 'some'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights = 'pissa_niter_4'"),  # shifts the base
        ({"init_lora_weights": "olora"}, "init_lora_weights = 'olora'"),
        ({"use_qalora": True}, "use_qalora = True"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"modules_to_save": ["lm_head"]}, "lacks lm_head.weight, although"),
        ({"modules_to_save": ["input_layernorm"]}, "lacks model.layers.0.input_layernorm.weight, although"),
        (
            {"modules_to_save": ["score"], "task_type": "SEQ_CLS"},
            "lacks score.weight, although adapter_config.json has",
        ),
        ({"lora_alpha": "big"}, "must hold a number as lora_alpha, got 'big'"),
        ({"alpha_pattern": [1]}, r"must hold a table as alpha_pattern, got \[1\]"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(changes, message, tokenizer, tmp_path):
    model = import_model(save(random_model("llama 2"), tmp_path / "base", tokenizer)).model
    replace_linear_with_lora(model.trf_blocks, 2, 2)
    folder = edited(export_peft(tmp_path / "adapter", model), **changes)
    fresh = import_model(tmp_path / "base").model
    with pytest.raises(CheckpointError, match=message):
        import_peft(fresh, folder)
    assert not any(isinstance(module, LinearWithLoRA) for module in fresh.modules())


def test_an_adapter_of_another_model_is_refused_and_changes_nothing(tokenizer, tmp_path):
    model = import_model(save(random_model("llama 2"), tmp_path / "base", tokenizer)).model
    replace_linear_with_lora(model.trf_blocks, 2, 2)
    folder = export_peft(tmp_path / "adapter", model)
    for family, message in (
        ("gpt2", "does not belong to a linear layer of this model"),
        ("qwen 3", "got {'A'"),
    ):
        other = import_model(save(random_model(family), tmp_path / family, tokenizer)).model
        with pytest.raises(CheckpointError, match=message):
            import_peft(other, folder)
        assert not any(isinstance(module, LinearWithLoRA) for module in other.modules())


def test_a_model_without_lora_is_refused(tokenizer, tmp_path):
    model = import_model(save(random_model("gpt2"), tmp_path / "base", tokenizer)).model
    with pytest.raises(ConfigError, match="has no LoRA layers to export"):
        export_peft(tmp_path / "adapter", model)


def test_what_the_format_cannot_store_is_refused(tokenizer, tmp_path):
    model = import_model(save(random_model("gpt2"), tmp_path / "base", tokenizer)).model
    attention = model.trf_blocks[0].att
    attention.W_query = LinearWithLoRA(attention.W_query, 2, 2)
    attention.W_value = LinearWithLoRA(attention.W_value, 3, 2)
    with pytest.raises(CheckpointError, match="one matrix in peft's format, but their 2 LoRA layers differ"):
        export_peft(tmp_path / "adapter", model)
    attention.W_value = LinearWithLoRA(attention.W_value.linear, 2, 2)
    attention.out_proj = LinearWithDoRA(attention.out_proj, 2, 2)
    with pytest.raises(CheckpointError, match="has LoRA and DoRA layers"):
        export_peft(tmp_path / "adapter", model)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("layer_type", [LinearWithLoRA, LinearWithDoRA])
def test_updates_of_some_layers_only_give_the_same_logits_in_peft(pair, ids, tmp_path, layer_type):
    """GPT-2's joint matrix then has an update for queries and values, and zeros for keys."""
    theirs, ours, _ = pair
    before = differences(ours, theirs, ids)
    replace_linear_with_lora(
        ours, 4, 3, scaling="alpha/sqrt(rank)", targets=("W_query", "W_value"), layer_type=layer_type
    )
    shake(ours)
    folder = export_peft(tmp_path / "adapter", ours)
    adapted = peft.PeftModel.from_pretrained(theirs, folder)
    assert before <= TOLERANCE
    assert differences(ours, adapted, ids) <= TOLERANCE
    again = import_model(tmp_path / "base").model
    import_peft(again, folder)
    assert differences(again, adapted, ids) <= TOLERANCE
    corrected = {name: m for name, m in again.named_modules() if isinstance(m, LinearWithLoRA)}
    assert {name.rpartition(".")[2] for name in corrected} >= {"W_query", "W_value"}
    assert all(m.lora.rank == 4 for name, m in corrected.items() if not name.endswith("W_key"))


def test_an_adapter_of_other_weights_is_refused_and_changes_nothing(tokenizer, tmp_path):
    model = import_model(save(random_model("gpt2"), tmp_path / "base", tokenizer)).model
    replace_linear_with_lora(model.trf_blocks, 2, 2)
    folder = export_peft(tmp_path / "adapter", model)
    assert import_peft(import_model(tmp_path / "base").model, folder) == 18  # 3 blocks of 6
    other = import_model(tmp_path / "base").model
    with torch.no_grad():
        other.final_norm.scale[0] += 1e-3
    with pytest.raises(CheckpointError, match="load the base that the adapter was trained on"):
        import_peft(other, folder)
    assert not any(isinstance(module, LinearWithLoRA) for module in other.modules())


def sequence_classifier(base_folder, n_classes: int):
    """transformers' classifier with a language model's weights and a random head."""
    torch.manual_seed(4)
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        base_folder, num_labels=n_classes, pad_token_id=299
    ).eval()


def class_differences(ours, theirs, ids) -> float:
    with torch.no_grad():
        return (class_logits(ours.eval(), ids, None) - theirs.eval()(ids).logits).abs().max().item()


@pytest.mark.parametrize("family", ["gpt2", "llama 2"])
def test_a_default_classifier_adapter_of_peft_gives_its_scores(family, ids, tokenizer, tmp_path):
    base = save(random_model(family), tmp_path / "base", tokenizer)
    settings = peft.LoraConfig(r=3, lora_alpha=7, task_type="SEQ_CLS", fan_in_fan_out=family == "gpt2")
    adapted = peft.get_peft_model(sequence_classifier(base, 3), settings)
    shake(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    ours = import_model(base).model
    assert import_peft(ours, tmp_path / "adapter") > 0
    assert ours.out_head.out_features == 3
    assert class_differences(ours, adapted, ids) <= TOLERANCE
    merge_lora(ours)
    assert class_differences(ours, adapted, ids) <= TOLERANCE


@pytest.mark.parametrize("layer_type", [LinearWithLoRA, LinearWithDoRA])
@pytest.mark.parametrize("has_head_update", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_our_classifier_adapter_gives_the_same_scores_in_peft(
    ids, tokenizer, tmp_path, has_head_update, has_bias, layer_type
):
    base = save(random_model("gpt2"), tmp_path / "base", tokenizer)
    ours = import_model(base).model
    replace_head(ours, 2)
    torch.nn.init.constant_(ours.out_head.bias, 0.7 if has_bias else 0.0)
    replace_linear_with_lora(ours if has_head_update else ours.trf_blocks, 4, 2, layer_type=layer_type)
    shake(ours)
    folder = export_peft(tmp_path / "adapter", ours)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == (["score", "ln_f"] if has_bias else ["score"])
    adapted = peft.PeftModel.from_pretrained(sequence_classifier(base, 2), folder)
    assert class_differences(ours, adapted, ids) <= TOLERANCE
    again = import_model(base).model
    import_peft(again, folder)
    with torch.no_grad():
        difference = class_logits(again.eval(), ids, None) - class_logits(ours.eval(), ids, None)
    assert difference.abs().max() <= TOLERANCE
