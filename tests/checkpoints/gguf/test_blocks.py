import pytest
import torch

from scratchlm.checkpoints.gguf import gguf_file
from scratchlm.checkpoints.gguf.blocks import has_our_layout, matrix_from_blocks
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.quantization.apply import dense_model, is_quantized, quantized_layers
from tests.tiny import LLAMA_LAYERS
from tests.tolerances import assert_same_logits

gguf = pytest.importorskip("gguf")
LLAMA = {**LLAMA_LAYERS, "ff_dim": 96, "n_kv_heads": 2, "tie_embeddings": True, "init": "gpt2"}
KINDS = {"q8_0": "int8", "q4_0": "int4", "q4_1": "int4_asymmetric"}


@pytest.mark.parametrize("dtype", KINDS)
def test_the_weights_are_exactly_those_that_the_gguf_library_unpacks(dtype, generator):
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    data = gguf.quants.quantize(torch.randn(6, 96, generator=generator).numpy(), kind)
    matrix = matrix_from_blocks(data.reshape(-1), (6, 96), kind.name)
    assert has_our_layout(kind.name)
    assert (matrix.problem(), matrix.kind, matrix.group_size) == (None, KINDS[dtype], 32)
    assert torch.equal(matrix.dense(), torch.from_numpy(gguf.quants.dequantize(data, kind)))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", KINDS)
def test_a_quantized_file_opens_as_a_quantized_model_with_its_weights(
    tmp_path, tiny_tokenizer, generator, monkeypatch, dtype, family
):
    """Also where llama.cpp joins queries, keys and values, or orders the rows of the heads differently."""
    torch.manual_seed(0)
    shared = {
        "vocab_size": tiny_tokenizer.vocab_size,
        "context_length": 32,
        "emb_dim": 64,
        "n_heads": 4,
        "n_layers": 2,
    }
    model = GPTModel(GPTConfig(**shared, **(LLAMA if family == "llama" else {"qkv_bias": True}))).eval()
    path = export_gguf(tmp_path / "a.gguf", model, tiny_tokenizer, dtype=dtype)
    found = read_gguf(path).model
    monkeypatch.setattr(gguf_file, "has_our_layout", lambda kind: False)
    unpacked = read_gguf(path).model
    assert not is_quantized(unpacked)
    layers = quantized_layers(found)
    assert {layer.kind for name, layer in layers.items() if "trf" in name} == {KINDS[dtype]}
    assert {layers[name].kind for name in ("tok_emb", "out_head")} == {"int8"}  # more bits, as llama.cpp does
    assert found.has_tied_head() == (family == "llama")
    for name, tensor in dense_model(found).state_dict().items():
        assert torch.equal(tensor, unpacked.state_dict()[name]), name
    ids = torch.randint(0, tiny_tokenizer.vocab_size, (2, 8), generator=generator)
    assert_same_logits(found(ids), unpacked(ids), found.config)


def test_a_row_that_blocks_of_32_do_not_divide_stays_in_floating_point(tmp_path, tiny_tokenizer):
    config = GPTConfig(
        vocab_size=tiny_tokenizer.vocab_size, context_length=32, emb_dim=48, n_heads=4, n_layers=1
    )
    path = export_gguf(tmp_path / "a.gguf", GPTModel(config), tiny_tokenizer, dtype="q4_0")
    assert list(quantized_layers(read_gguf(path).model)) == ["trf_blocks.0.ff.layers.2"]
