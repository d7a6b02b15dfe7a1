import copy

import pytest
import torch
from torch import nn

from scratchlm.checkpoints.store import own_weights
from scratchlm.core.errors import ConfigError
from scratchlm.model import GPTConfig, GPTModel, named_config
from scratchlm.quantization.apply import dequantize_model, is_quantized, quantize_model, quantized_layers
from scratchlm.quantization.config import QuantizationConfig
from tests.tolerances import assert_same_logits

CONFIGS = {
    "int8": QuantizationConfig(bits=8),
    "int8 in groups": QuantizationConfig(bits=8, group_size=32),
    "int4": QuantizationConfig(bits=4),
    "symmetric": QuantizationConfig(bits=4, symmetric=True, group_size=32),
    "nf4": QuantizationConfig(bits=4, kind="nf4"),
    "gptq": QuantizationConfig(bits=4, kind="gptq"),
    "gptq int8": QuantizationConfig(bits=8, kind="gptq"),
}


def quantized(model: GPTModel, config: QuantizationConfig, ids: torch.Tensor) -> GPTModel:
    made = copy.deepcopy(model)
    quantize_model(made, config, calibration=ids if config.kind == "gptq" else None)
    return made


@pytest.mark.parametrize("name", CONFIGS)
def test_a_quantized_model_computes_as_its_dequantized_copy(wide_model, ids, name):
    model = quantized(wide_model, CONFIGS[name], ids)
    plain = dequantize_model(copy.deepcopy(model))
    assert is_quantized(model)
    assert not is_quantized(plain)
    assert plain.state_dict().keys() == wide_model.state_dict().keys()
    assert plain.has_tied_head() == wide_model.has_tied_head()
    assert_same_logits(model(ids), plain(ids), model.config)


def test_every_matrix_is_quantized_but_positions(wide_model, ids):
    model = quantized(wide_model, CONFIGS["int8"], ids)
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    assert {p for name, p in model.named_parameters() if "weight" in name and "pos_emb" not in name} == set()
    assert model.n_parameters() == wide_model.n_parameters()


def test_skip_head_leaves_embedding_and_head(wide_model):
    left = quantize_model(wide_model, QuantizationConfig(bits=4, skip_head=True))
    assert left == (["tok_emb"] if wide_model.config.tie_embeddings else ["tok_emb", "out_head"])
    assert isinstance(wide_model.tok_emb, nn.Embedding)
    assert isinstance(wide_model.out_head, nn.Linear)
    assert all(name.startswith("trf_blocks") for name in quantized_layers(wide_model))


def test_the_head_of_a_classifier_stays(wide_model, ids):
    wide_model.out_head = nn.Linear(64, 3)
    assert quantize_model(wide_model, CONFIGS["int8"]) == ["out_head"]
    assert wide_model(ids).shape == (3, 16, 3)
    assert not is_quantized(dequantize_model(wide_model))


def test_a_tied_head_shares_the_embedding_s_codes_and_keeps_doing_so(wide_model, ids):
    model = quantized(wide_model, CONFIGS["int4"], ids)
    for moved in (model, copy.deepcopy(model), model.to(torch.device("cpu")), model.double().float()):
        is_shared = (
            moved.out_head.codes is moved.tok_emb.codes and moved.out_head.scale is moved.tok_emb.scale
        )
        assert is_shared == wide_model.config.tie_embeddings


def test_more_bits_and_calibration_lower_the_error(wide_model, ids):
    torch.manual_seed(1)
    for parameter in wide_model.parameters():  # as large as those of a trained model, so that layers matter
        nn.init.normal_(parameter, std=0.15)

    @torch.no_grad()
    def error(name: str) -> float:
        return float((quantized(wide_model, CONFIGS[name], ids)(ids) - wide_model(ids)).square().mean())

    assert error("int8") < 0.05 * error("int4")
    assert error("int8 in groups") < error("int8")
    assert error("gptq") < error("int4")


def test_a_matrix_without_a_fitting_group_stays(tiny_model):
    """Rows of 16 weights, and of 64 in the second layer of the feed-forward networks."""
    left = quantize_model(tiny_model, QuantizationConfig(bits=4))
    linears = {name for name, layer in tiny_model.named_modules() if isinstance(layer, nn.Linear)}
    ends = {f"trf_blocks.{i}.ff.layers.2" for i in (0, 1)}
    assert set(left) == {"tok_emb", *linears} - ends - {"out_head"}
    assert set(quantized_layers(tiny_model)) == {"out_head", *ends}


def test_a_model_that_cannot_be_quantized_says_so(wide_model, ids):
    small = GPTModel(GPTConfig(vocab_size=61, context_length=12, emb_dim=12, n_heads=2, n_layers=1))
    with pytest.raises(ConfigError, match="no group size divides rows of 12 or 48"):
        quantize_model(small, CONFIGS["int4"])
    with pytest.raises(ConfigError, match="already"):
        quantize_model(quantized(wide_model, CONFIGS["int4"], ids), CONFIGS["int8"])


def test_the_head_has_8_bits_unless_told_otherwise(wide_model):
    eight, four = copy.deepcopy(wide_model), wide_model
    quantize_model(eight, CONFIGS["int4"])
    quantize_model(four, QuantizationConfig(bits=4, head_bits=4))
    of_embedding = 8 if wide_model.config.tie_embeddings else 4
    assert (eight.tok_emb.matrix.bits, eight.out_head.matrix.bits) == (of_embedding, 8)
    assert eight.trf_blocks[0].att.W_key.matrix.bits == 4
    assert (four.tok_emb.matrix.bits, four.out_head.matrix.bits) == (4, 4)


def test_calibration_ids_are_for_gptq_alone(wide_model, ids):
    with pytest.raises(ConfigError, match="gptq needs a calibration text"):
        quantize_model(wide_model, CONFIGS["gptq"])
    with pytest.raises(ConfigError, match="rtn uses no calibration text"):
        quantize_model(wide_model, CONFIGS["int4"], calibration=ids)


@pytest.mark.parametrize("kind", ["rtn", "gptq"])
def test_a_model_of_16_bits_computes_in_float32_afterwards(wide_model, ids, kind):
    model = copy.deepcopy(wide_model).bfloat16()
    quantize_model(model, QuantizationConfig(bits=8, kind=kind), calibration=ids if kind == "gptq" else None)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model(ids), wide_model(ids), atol=0.05, rtol=0)  # bfloat16 has 8 bits


def test_progress_ends_at_the_number_of_matrices(wide_model):
    calls: list[tuple[int, int]] = []
    quantize_model(wide_model, CONFIGS["int8"], progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] == len(calls)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "most"), [(8, 0.30), (4, 0.20)])
@pytest.mark.parametrize("tie", [True, False])
def test_gpt2_small_shrinks_with_its_head(bits, most, tie):
    model = GPTModel(named_config("gpt2-small", tie_embeddings=tie, qkv_bias=True, init="gpt2"))
    n_before = sum(tensor.nbytes for tensor in own_weights(model).values())
    quantize_model(model, QuantizationConfig(bits=bits))
    assert sum(tensor.nbytes for tensor in own_weights(model).values()) <= most * n_before
