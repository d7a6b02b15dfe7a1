from dataclasses import replace

import pytest
import torch

from scratchlm.model import TransformerBlock


def test_both_halves_add_to_the_stream(tiny_config, generator):
    block = TransformerBlock(tiny_config).eval()
    x = torch.randn(2, 5, 16, generator=generator)
    after_attention = x + block.att(block.norm1(x))
    torch.testing.assert_close(block(x), after_attention + block.ff(block.norm2(after_attention)))


def test_silenced_halves_leave_the_stream_as_it_is(tiny_config, generator):
    block = TransformerBlock(tiny_config).eval()
    torch.nn.init.zeros_(block.att.out_proj.weight)
    torch.nn.init.zeros_(block.att.out_proj.bias)
    torch.nn.init.zeros_(block.ff.layers[2].weight)
    torch.nn.init.zeros_(block.ff.layers[2].bias)
    x = torch.randn(2, 5, 16, generator=generator)
    assert torch.equal(block(x), x)


def test_the_books_dictionary_and_both_names_of_its_dropout_are_known():
    block = TransformerBlock({"emb_dim": 8, "n_heads": 2, "context_length": 4, "drop_rate": 0.3})
    assert block.drop_resid is block.drop_shortcut
    assert block.drop_shortcut.p == 0.3


@pytest.mark.parametrize("silenced", ["att.out_proj", "ff.layers.2"])
def test_dropout_acts_on_each_half_in_training_only(tiny_config, generator, silenced):
    """With one half silenced and attention's own dropout off, what varies is the other half's dropout."""
    torch.manual_seed(0)
    block = TransformerBlock(tiny_config)
    block.att.dropout.p = 0.0
    torch.nn.init.zeros_(block.get_submodule(silenced).weight)
    torch.nn.init.zeros_(block.get_submodule(silenced).bias)
    x = torch.randn(2, 5, 16, generator=generator)
    assert not torch.allclose(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_attention_and_shortcut_may_have_dropouts_of_their_own():
    block = TransformerBlock({"emb_dim": 8, "n_heads": 2, "drop_rate_attn": 0.2, "drop_rate_shortcut": 0.3})
    assert (block.att.dropout.p, block.drop_shortcut.p) == (0.2, 0.3)


def test_activation_checkpointing_gives_the_same_bits_with_dropout(tiny_config, generator):
    x = torch.randn(2, 5, 16, generator=generator)
    block = TransformerBlock(replace(tiny_config, drop_rate=0.3))
    found = []
    for is_on in (False, True):
        block.activation_checkpointing = is_on
        torch.manual_seed(1)
        y = block(x)
        y.square().sum().backward()
        found.append(
            [y, torch.rand(3), *(p.grad for p in block.parameters())]
        )  # also the next random numbers
        block.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_activation_checkpointing_keeps_the_blocks_input_only(tiny_config, generator):
    x = torch.randn(2, 5, 16, generator=generator)
    block = TransformerBlock(tiny_config)
    for is_on in (False, True):
        block.activation_checkpointing = is_on
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            block(x)
        assert ([t.data_ptr() for t in kept] == [x.data_ptr()]) == is_on


def test_a_reader_may_put_in_a_network_that_keeps_its_output(tiny_config, generator):
    block = TransformerBlock(replace(tiny_config, drop_rate=0.0))
    block.ff = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh())
    seen = []
    block.ff.register_forward_hook(lambda _module, _inputs, output: seen.append((output, output.clone())))
    block(torch.randn(2, 5, 16, generator=generator)).sum().backward()
    assert torch.equal(*seen[0])
    assert block.ff[0].weight.grad.abs().sum() > 0
