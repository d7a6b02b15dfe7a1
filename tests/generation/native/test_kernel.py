import dataclasses
import itertools
import os
from pathlib import Path

import pytest
import torch

from scratchlm.generation.native.compile import NoKernelError, kernel_library
from scratchlm.generation.native.kernel import NativeForward
from scratchlm.generation.work import Work
from scratchlm.model import GPTConfig, GPTModel, KVCache
from scratchlm.quantization.apply import quantize_model
from scratchlm.quantization.config import QuantizationConfig

SMALL = {"vocab_size": 301, "context_length": 300, "n_layers": 3, "drop_rate": 0.0}
CPUINFO = Path("/proc/cpuinfo")
VARIANTS = {
    "gpt2": GPTConfig(**SMALL, emb_dim=48, n_heads=4, qkv_bias=True),
    "tied, no biases": GPTConfig(**SMALL, emb_dim=64, n_heads=4, tie_embeddings=True, linear_bias=False),
    "llama": GPTConfig(
        **SMALL, emb_dim=64, n_heads=4, n_kv_heads=2, norm="rms", positions="rotary", feed_forward="swiglu",
        ff_dim=100, linear_bias=False,
    ),
    "qwen": GPTConfig(
        **SMALL, emb_dim=64, n_heads=6, n_kv_heads=3, norm="rms", positions="rotary", feed_forward="swiglu",
        qk_norm=True, head_size=20, rope_base=1e6, tie_embeddings=True,
    ),
    "long rows": GPTConfig(**SMALL, emb_dim=520, n_heads=4, ff_dim=1036),  # summed in two parts
    "odd sizes": GPTConfig(**SMALL, emb_dim=30, n_heads=3, feed_forward="gelu_exact", n_kv_heads=1, ff_dim=37),
}  # fmt: skip
# float32 sums of up to 128 terms of size 1 in another order: 128 * 2**-24 = 8e-6 at worst, in each of three blocks
TOLERANCE = 2e-5


@pytest.fixture(params=VARIANTS)
def model(request) -> GPTModel:
    torch.manual_seed(1)
    return GPTModel(VARIANTS[request.param]).eval()


def some_ids(model: GPTModel, n: int, *, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab_size, (n,), generator=generator).tolist()


@torch.no_grad()
def logits_of(forward: NativeForward, *works: Work) -> list[torch.Tensor]:
    return [scores.logits for scores in forward(works) if scores is not None]


@torch.no_grad()
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_logits_are_those_of_the_model(model, n_threads):
    forward = NativeForward(model, KVCache(model.config, 2), n_threads=n_threads)
    ids = some_ids(model, 290)  # more than are computed in one call
    [logits] = logits_of(forward, Work(1, ids, len(ids)))
    expected = model(torch.tensor([ids]))[0]
    torch.testing.assert_close(logits, expected, rtol=TOLERANCE, atol=TOLERANCE)


@torch.no_grad()
def test_a_tokens_scores_are_the_same_bits_in_every_company(model):
    ids, others = some_ids(model, 40), some_ids(model, 23, seed=1)
    [expected] = logits_of(NativeForward(model, KVCache(model.config, 1), n_threads=1), Work(0, ids, 40))
    forward = NativeForward(model, KVCache(model.config, 4), n_threads=3)
    found = []
    sizes = itertools.cycle((1, 1, 2, 3, 4, 5, 7))
    n_read = 0
    while n_read < len(ids):
        part = ids[n_read : n_read + next(sizes)]
        n_read += len(part)
        company = [Work(slot, others[: 1 + (n_read + slot) % 5], 1) for slot in (0, 3)]
        scores = forward([company[0], Work(2, part, len(part)), company[1]])
        assert scores[1] is not None
        found.append(scores[1].logits)
    assert torch.equal(torch.cat(found), expected)


@torch.no_grad()
def test_the_best_token_comes_with_its_probability(model):
    forward = NativeForward(model, KVCache(model.config, 1))
    [scores] = forward([Work(0, some_ids(model, 5), 2)])
    assert scores is not None
    assert scores.best is not None
    probs = scores.logits[-1].softmax(dim=-1)
    assert scores.best[0] == int(probs.argmax())
    assert scores.best[1] == pytest.approx(float(probs.max()), rel=1e-5)


@torch.no_grad()
def test_among_equal_scores_the_first_is_the_best():
    model = GPTModel(GPTConfig(**SMALL, emb_dim=16, n_heads=2))
    model.out_head.weight.zero_()
    [scores] = NativeForward(model, KVCache(model.config, 1))([Work(0, [5], 1)])
    assert scores is not None
    assert scores.best is not None
    assert scores.best[0] == 0


def test_weights_are_read_where_they_are(model):
    forward = NativeForward(model, KVCache(model.config, 1))
    [before] = logits_of(forward, Work(0, [1], 1))
    with torch.no_grad():
        model.final_norm.scale.mul_(2)  # its shift is zero, so that the logits double
    [after] = logits_of(NativeForward(model, KVCache(model.config, 1)), Work(0, [1], 1))
    torch.testing.assert_close(after, 2 * before)


def test_other_models_are_left_to_pytorch():
    config = GPTConfig(**SMALL, emb_dim=16, n_heads=2)
    with pytest.raises(NoKernelError, match="float32 weights in memory, not bfloat16 on cpu"):
        NativeForward(GPTModel(config).bfloat16(), cache := KVCache(config, 1))
    assert cache.size_bytes == 0  # PyTorch chooses the number type
    model = GPTModel(config)
    model.trf_blocks[0].ff.layers[0] = torch.nn.Sequential()
    with pytest.raises(NoKernelError, match="the kernel has no Sequential"):
        NativeForward(model, KVCache(config, 1))
    model = GPTModel(config)
    model.register_forward_hook(lambda *_: None)
    with pytest.raises(NoKernelError, match="hooks"):
        NativeForward(model, KVCache(config, 1))


def test_closing_twice_is_no_error():
    config = GPTConfig(**SMALL, emb_dim=16, n_heads=2)
    forward = NativeForward(GPTModel(config), KVCache(config, 1), n_threads=3)
    forward.close()
    forward.close()


QUANTIZATIONS = [
    {"bits": 8},
    {"bits": 8, "group_size": 32},
    {"bits": 8, "group_size": 128},
    {"bits": 4, "group_size": 64},
    {"bits": 4, "group_size": 128, "head_bits": 4},
    {"bits": 4, "group_size": 32, "symmetric": True},
    {"bits": 4, "kind": "nf4"},
    {"bits": 4, "skip_head": True},
]


def quantized(name: str, settings: dict[str, int], **sizes: int) -> GPTModel:
    torch.manual_seed(1)
    model = GPTModel(dataclasses.replace(VARIANTS[name], **sizes)).eval()
    quantize_model(model, QuantizationConfig(**settings))
    return model


@torch.no_grad()
def assert_computes_what_pytorch_computes(model: GPTModel) -> None:
    """All tokens in one call, one at a time, and PyTorch's."""
    ids = some_ids(model, 30)
    forward = NativeForward(model, KVCache(model.config, 2), n_threads=2)
    [together] = logits_of(forward, Work(0, ids, 30))
    alone = torch.cat([logits_of(forward, Work(1, [one], 1))[0] for one in ids])
    forward.close()
    expected = model(torch.tensor([ids]))[0]
    torch.testing.assert_close(
        together, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max())
    )
    assert torch.equal(alone, together)


@pytest.mark.parametrize("settings", QUANTIZATIONS, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "qwen"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"emb_dim": 256, "n_heads": 4, "head_size": 32, "ff_dim": 384},
        {"emb_dim": 160, "n_heads": 6, "head_size": 32, "ff_dim": 288},  # no whole number of blocks
        {"emb_dim": 64, "n_heads": 6, "head_size": 16, "ff_dim": 96},  # less than a block
    ],
    ids=str,
)
def test_quantized_matrices_compute_what_pytorch_computes(name, settings, sizes):
    if VARIANTS[name].n_kv_heads:
        sizes = sizes | {"n_kv_heads": sizes["n_heads"] // 2}
    assert_computes_what_pytorch_computes(quantized(name, settings, **sizes))


def test_8_bits_have_rows_of_any_length():
    assert_computes_what_pytorch_computes(quantized("long rows", {"bits": 8}))


@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 4, "group_size": 32}], ids=str)
def test_matrices_of_several_kinds_share_their_inputs(settings):
    sizes = {"emb_dim": 256, "ff_dim": 256, "n_heads": 4, "head_size": 32}
    model = quantized("llama", {"bits": 4, "group_size": 64}, **sizes)
    other = quantized("llama", settings, **sizes)
    for block, other_block in zip(model.trf_blocks, other.trf_blocks, strict=True):
        block.att.W_value = other_block.att.W_value
        block.ff.gate = other_block.ff.gate
    assert_computes_what_pytorch_computes(model)


@torch.no_grad()
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(number):
    model = quantized("gpt2", {"bits": 4}, emb_dim=256, n_heads=4, ff_dim=256)
    model.trf_blocks[1].norm2.scale[3] = number
    [logits] = logits_of(NativeForward(model, KVCache(model.config, 1)), Work(0, [1, 2], 2))
    assert logits.isnan().all()


@torch.no_grad()
def test_inputs_of_zero_count_for_zero():
    model = quantized("gpt2", {"bits": 4, "head_bits": 4}, emb_dim=256, n_heads=4, ff_dim=256)
    model.final_norm.scale.zero_()
    [logits] = logits_of(NativeForward(model, KVCache(model.config, 1)), Work(0, [1], 1))
    assert torch.equal(logits, torch.zeros_like(logits))


@torch.no_grad()
@pytest.mark.parametrize(
    "flags",
    [("-O2", "-march=x86-64"), ("-O3", "-march=x86-64-v3"), ("-O1", "-march=x86-64-v4")],
    ids=str,
)
def test_other_processors_compute_the_same(tmp_path, monkeypatch, flags):
    needed = {"-march=x86-64-v3": "avx2", "-march=x86-64-v4": "avx512bw"}.get(flags[1], "")
    if os.uname().machine != "x86_64" or needed not in CPUINFO.read_text():
        pytest.skip("this processor has no such instructions")
    strict = ("-std=gnu11", "-Wall", "-Wextra", "-Wno-psabi", "-Werror", "-ffp-contract=fast")
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path))
    monkeypatch.setattr("scratchlm.generation.native.compile.FLAGS", (*flags, *strict))
    monkeypatch.setattr("scratchlm.generation.native.kernel.kernel_library", kernel_library.__wrapped__)
    for config in VARIANTS.values():
        torch.manual_seed(1)
        model = GPTModel(config).eval()
        ids = some_ids(model, 20)
        forward = NativeForward(model, KVCache(config, 1), n_threads=2)
        parts = [logits_of(forward, Work(0, [one], 1))[0] for one in ids]
        forward.close()
        torch.testing.assert_close(
            torch.cat(parts), model(torch.tensor([ids]))[0], rtol=TOLERANCE, atol=TOLERANCE
        )
    for settings in QUANTIZATIONS:
        assert_computes_what_pytorch_computes(
            quantized("gpt2", settings, emb_dim=160, n_heads=5, head_size=32, ff_dim=288)
        )
