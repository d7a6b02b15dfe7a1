"""Products agree with float64 and with torch's own, by whichever library, and so do their gradients."""

import pytest
import torch
import torch.nn.functional as F

from scratchlm.core import matrix_product
from scratchlm.core.errors import ConfigError
from scratchlm.core.matrix_product import product, product_into, product_library

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # of sums of some 100 products of normal numbers in float32
has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(
    params=["torch", pytest.param("onednn", marks=pytest.mark.skipif(not has_onednn, reason="no oneDNN"))]
)
def library(request, monkeypatch):
    """Every product is computed by this library, however small it is."""
    monkeypatch.setenv("SCRATCHLM_PRODUCTS", request.param)
    monkeypatch.setattr(matrix_product, "LEAST_WORK", 0)
    product_library.cache_clear()
    yield request.param
    product_library.cache_clear()


def test_values_and_gradients_are_those_of_float64(library):
    x, weight, bias = _numbers(2, 7, 96), _numbers(33, 96), _numbers(33)
    weights_of_loss = _numbers(2, 7, 33)
    found, wanted = [], []
    for dtype, multiply, results in ((torch.float32, product, found), (torch.float64, F.linear, wanted)):
        tensors = [tensor.detach().to(dtype, copy=True).requires_grad_() for tensor in (x, weight, bias)]
        output = multiply(*tensors)
        (output * weights_of_loss.to(dtype)).sum().backward()
        results += [output, *(tensor.grad for tensor in tensors)]
    assert product_library() == library
    for ours, exact in zip(found, wanted):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, **TOLERANCE)


def test_a_frozen_weight_gets_no_gradient(library):
    x, weight = _numbers(5, 8).requires_grad_(), _numbers(3, 8)
    product(x, weight).sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(x.grad, weight.sum(dim=0).expand(5, 8))


def test_second_gradients(library):
    """The gradient of |d (x w)^2 / dx|^2 with respect to w, against float64."""
    found = []
    for dtype in (torch.float32, torch.float64):
        x, weight = (_numbers(4, 6).to(dtype).requires_grad_(), _numbers(3, 6).to(dtype).requires_grad_())
        (gradient,) = torch.autograd.grad(product(x, weight).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), weight)[0].double())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_a_transposed_weight_and_input(library):
    x, weight = _numbers(8, 5).mT, _numbers(8, 3).mT
    torch.testing.assert_close(product(x, weight), F.linear(x, weight), **TOLERANCE)


@pytest.mark.parametrize("shape", [(3, 40, 7), (40, 3, 7), (1, 1, 1)])
@pytest.mark.parametrize("add", [False, True])
def test_an_output_in_parts(library, monkeypatch, shape, add):
    monkeypatch.setattr(matrix_product, "OUTPUTS_AT_ONCE", 17)  # several parts, the last one shorter
    n, n_out, n_in = shape
    x, weight = _numbers(n, n_in), _numbers(n_out, n_in)
    before = torch.full((n, n_out), 2.0) if add else torch.full((n, n_out), torch.nan)
    output = before.clone()
    product_into(output, x, weight, add=add)
    torch.testing.assert_close(output, F.linear(x, weight) + (before if add else 0), **TOLERANCE)


def test_nan_and_infinity_go_through(library):
    x = torch.ones(2, 16)
    x[0, 3], x[1, 5] = torch.nan, torch.inf
    output = product(x, torch.ones(4, 16))
    assert output[0].isnan().all()
    assert output[1].isposinf().all()


def test_under_autocast_products_are_in_bfloat16(library):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(_numbers(4, 8), _numbers(3, 8)).dtype == torch.bfloat16


def test_other_number_types_are_torchs(library):
    for dtype in (torch.float64, torch.bfloat16):
        x, weight = _numbers(4, 8).to(dtype), _numbers(3, 8).to(dtype)
        assert torch.equal(product(x, weight), F.linear(x, weight))


def test_an_exported_program_has_plain_operators(library):
    class Layer(torch.nn.Module):
        def forward(self, x, weight):
            return product(x, weight)

    exported = torch.export.export(Layer(), (_numbers(4, 8), _numbers(3, 8)))
    assert "mkldnn" not in str(exported.graph)
    torch.testing.assert_close(
        exported.module()(_numbers(4, 8), _numbers(3, 8)), F.linear(_numbers(4, 8), _numbers(3, 8))
    )


def test_small_products_are_torchs(monkeypatch):
    def never(*_):
        raise AssertionError("a small product was given to oneDNN")

    monkeypatch.setattr(matrix_product, "_onednn", never)
    assert product(_numbers(4, 8), _numbers(3, 8)).shape == (4, 3)


@pytest.mark.parametrize(
    ("capability", "maker", "chosen"),
    [
        ("AVX512", "AuthenticAMD", "onednn"),
        ("AVX512", "GenuineIntel", "torch"),
        ("AVX2", "AuthenticAMD", "torch"),
        ("DEFAULT", "", "torch"),
    ],
)
def test_the_library_by_processor(monkeypatch, tmp_path, capability, maker, chosen):
    monkeypatch.delenv("SCRATCHLM_PRODUCTS", raising=False)
    monkeypatch.setattr(matrix_product, "CPU_DESCRIPTION", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"processor: 0\nvendor_id: {maker}\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert product_library.__wrapped__() == (chosen if has_onednn else "torch")


def test_an_unknown_library_is_refused(monkeypatch):
    monkeypatch.setenv("SCRATCHLM_PRODUCTS", "blas")
    with pytest.raises(ConfigError, match="SCRATCHLM_PRODUCTS must be auto, torch or onednn, got 'blas'"):
        product_library.__wrapped__()


def _numbers(*shape):
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    return torch.randn(shape, generator=generator)
