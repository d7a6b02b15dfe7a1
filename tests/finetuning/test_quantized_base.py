"""QLoRA: adapters beside a quantized base, through training, resuming, saving and merging."""

import copy
import gc
from pathlib import Path

import pytest
import torch

from scratchlm.checkpoints.store import load_model, save_model
from scratchlm.core.errors import ConfigError
from scratchlm.core.seed import seed_everything
from scratchlm.finetuning.base import load_base
from scratchlm.finetuning.classifier_training import ClassifySettings
from scratchlm.finetuning.freeze import freeze_all_but
from scratchlm.finetuning.heads import replace_head
from scratchlm.finetuning.instruction import finetune_instructions
from scratchlm.finetuning.lora import lora_parameters, merged_copy, replace_linear_with_lora
from scratchlm.finetuning.peft import import_peft
from scratchlm.finetuning.settings import FineTuningSettings
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import dense_model, is_quantized, quantize_model, quantized_layers
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.training.interrupts import StoppedBySignal
from tests.finetuning.test_instruction import CPU, SPLIT, quick
from tests.tolerances import assert_same_logits


@pytest.fixture
def wide_model(base_tokenizer):
    seed_everything(5)
    config = GPTConfig(
        vocab_size=base_tokenizer.vocab_size, context_length=48, emb_dim=32, n_heads=2, n_layers=2,
        drop_rate=0.0, tie_embeddings=True, init="gpt2",
    )  # fmt: skip
    return GPTModel(config)


@pytest.fixture
def wide_folder(wide_model, base_tokenizer, tmp_path):
    return save_model(tmp_path / "base", wide_model, base_tokenizer)


@pytest.fixture
def quantized_folder(wide_model, base_tokenizer, tmp_path):
    quantize_model(wide_model, QuantizationConfig(bits=4, kind="nf4"))
    return save_model(tmp_path / "quantized", wide_model, base_tokenizer)


def tune(out, base, *, resume=False, callbacks=(), **changes):
    settings = quick(lora_rank=2, max_steps=6, checkpoint_every_steps=3, max_new_tokens=2, **changes)
    return finetune_instructions(
        SPLIT, settings, out, base=str(base), device=CPU, resume=resume, callbacks=callbacks
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list mapped files")
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_base_that_was_quantized_keeps_no_float_weights_mapped(wide_folder, bits):
    base = load_base(str(wide_folder), training_texts=[], device=CPU, base_bits=bits)
    gc.collect()
    is_mapped = str(wide_folder / "model.safetensors") in Path("/proc/self/maps").read_text()
    assert is_mapped == (bits is None)
    assert is_quantized(base.model) == (bits is not None)


@pytest.mark.parametrize("targets", [("trf_blocks.*",), ("*",)])
def test_the_updates_of_a_quantized_base_get_the_gradients_of_its_dense_copy(wide_model, targets):
    """A tied head too, which merging unties."""
    quantize_model(wide_model, QuantizationConfig(bits=4))
    dense = dense_model(wide_model)
    ids, losses = torch.tensor([[5, 7, 9, 11]]), []
    for model in (wide_model, dense):
        model.requires_grad_(False)
        seed_everything(1)
        replace_linear_with_lora(model, 2, 2, targets=targets)
        for parameter in lora_parameters(model):
            torch.nn.init.normal_(parameter, std=0.1)
        losses.append(model(ids).square().mean())
        losses[-1].backward()
    for ours, theirs in zip(lora_parameters(wide_model), lora_parameters(dense), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)  # sums in another order
    merged = merged_copy(wide_model)
    assert_same_logits(merged(ids), wide_model(ids), merged.config)
    assert merged.config.tie_embeddings == ("*" not in targets)
    assert set(quantized_layers(merged)) == ({"tok_emb"} if "*" in targets else {"tok_emb", "out_head"})


@pytest.mark.parametrize("bits", [8, 4])
def test_a_run_trains_adapters_alone_and_resumes_bit_for_bit(wide_folder, tmp_path, stop_at, bits):
    whole = tune(tmp_path / "a", wide_folder, base_bits=bits)
    with pytest.raises(StoppedBySignal):
        tune(tmp_path / "b", wide_folder, base_bits=bits, callbacks=[stop_at(4)])
    resumed = tune(tmp_path / "b", wide_folder, base_bits=bits, resume=True)
    assert resumed.resumed_from == 4
    one, other = (load_model(tmp_path / run).model for run in ("a", "b"))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
    assert whole.n_trained == 2 * sum(
        2 * (n_in + n_out) for n_in, n_out in [(32, 32)] * 4 + [(32, 128), (128, 32)]
    )


def test_the_saved_model_is_the_quantized_base_with_the_adapter_merged(quantized_folder, tmp_path):
    tune(tmp_path / "run", quantized_folder)
    merged, beside = load_model(tmp_path / "run").model, load_model(quantized_folder).model
    import_peft(beside, tmp_path / "run" / "adapter")
    ids = torch.tensor([[5, 7, 9, 11]])
    assert_same_logits(merged(ids), beside(ids), merged.config)
    assert not torch.equal(merged(ids), load_model(quantized_folder).model(ids))


def test_a_base_quantized_on_the_way_is_the_one_that_quantize_writes(wide_folder, quantized_folder):
    start = load_base(str(wide_folder), training_texts=(), device=CPU, base_bits=4)
    saved = load_model(quantized_folder).model
    assert all(
        torch.equal(tensor, start.model.state_dict()[name]) for name, tensor in saved.state_dict().items()
    )


def test_quantized_weights_are_not_trained(quantized_folder, tmp_path):
    with pytest.raises(
        ConfigError, match=r"the weights of .* are quantized and cannot be trained; train adapters"
    ):
        finetune_instructions(SPLIT, quick(), tmp_path / "run", base=str(quantized_folder), device=CPU)
    with pytest.raises(ConfigError, match="the model is quantized already"):
        tune(tmp_path / "run", quantized_folder, base_bits=4)


def test_a_classifier_trains_its_new_head_on_a_quantized_base(quantized_folder):
    model = load_model(quantized_folder).model
    replace_head(model, 2)
    assert freeze_all_but(copy.deepcopy(model), "head") == 2 * 32 + 2
    for part in ("last-block", "last-two-blocks", "all"):
        with pytest.raises(ConfigError, match="quantized and cannot be trained"):
            freeze_all_but(copy.deepcopy(model), part)
    assert is_quantized(model)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4, "lora_kind": "dora"}])
def test_base_bits_need_lora(settings):
    with pytest.raises(ConfigError, match=r"base_bits=4 .* needs LoRA"):
        FineTuningSettings(base_bits=4, **settings)
    assert ClassifySettings(train="lora", base_bits=4).base_bits == 4
