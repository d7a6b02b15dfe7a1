import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scratchlm.model.linear import is_plain_linear
from scratchlm.quantization import layers
from scratchlm.quantization.grids import round_to_nearest
from scratchlm.quantization.layers import QuantizedEmbedding, QuantizedLinear
from tests.quantization.test_matrix import GRIDS
from tests.tolerances import rounding


@pytest.fixture(params=GRIDS)
def matrix(request, generator):
    return round_to_nearest(torch.randn(10, 64, generator=generator), GRIDS[request.param], group_size=32)


@pytest.mark.parametrize("at_once", [1 << 22, 192])
def test_a_layer_computes_as_a_plain_one_with_its_dense_weight(matrix, generator, monkeypatch, at_once):
    """Also in blocks of three rows, which do not divide ten."""
    monkeypatch.setattr(layers, "DEQUANTIZED_AT_ONCE", at_once)
    bias = nn.Parameter(torch.randn(10, generator=generator))
    x, plain_x = (torch.randn(2, 5, 64, generator=generator).requires_grad_() for _ in range(2))
    plain_x = x.detach().clone().requires_grad_()
    found = QuantizedLinear(matrix, bias)(x)
    expected = F.linear(plain_x, matrix.dense(), bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(30.0, n=64))
    upstream = torch.randn(2, 5, 10, generator=generator)
    found.backward(upstream)
    of_bias, bias.grad = bias.grad, None
    expected.backward(upstream)
    torch.testing.assert_close(x.grad, plain_x.grad, rtol=0, atol=rounding(30.0, n=10))
    torch.testing.assert_close(of_bias, bias.grad, rtol=0, atol=rounding(30.0, n=10))


def test_no_float_weight_is_saved_for_the_backward_pass(matrix, generator):
    saved: list[torch.Tensor] = []
    x = torch.randn(2, 64, generator=generator).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        QuantizedLinear(matrix)(x)
    assert not any(tensor.numel() >= 640 for tensor in saved)


def test_no_parameter_holds_the_matrix(matrix):
    layer = QuantizedLinear(matrix, nn.Parameter(torch.zeros(10)))
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert (layer.in_features, layer.out_features, layer.n_weights) == (64, 10, 640)
    assert (layer.group_size, layer.kind) == (32, matrix.kind)


def test_an_embedding_looks_up_rows_of_its_dense_weight(matrix):
    embedding, ids = QuantizedEmbedding(matrix), torch.tensor([[0, 9, 3], [3, 3, 1]])
    assert torch.equal(embedding(ids), matrix.dense()[ids])
    assert tuple(embedding.as_dense().weight.shape) == (10, 64)


@pytest.mark.parametrize("wrong", [10, -1])
def test_an_id_outside_the_vocabulary_is_an_index_error(matrix, wrong):
    with pytest.raises(IndexError):
        QuantizedEmbedding(matrix)(torch.tensor([wrong]))


def test_a_plain_copy_has_the_same_values(matrix, generator):
    bias = nn.Parameter(torch.randn(10, generator=generator))
    plain = QuantizedLinear(matrix, bias).as_dense()
    assert is_plain_linear(plain)
    assert torch.equal(plain.weight, matrix.dense())
    assert plain.bias is bias
    embedding = QuantizedEmbedding(matrix).as_dense()
    assert torch.equal(embedding.weight, matrix.dense())
    assert embedding.weight.requires_grad
