"""Appendix D on a small model: the learning rates, the clipping, and what is printed."""

import math
import re

import pytest
import torch
from torch.utils.data import DataLoader

from scratchlm.book import appendix_d, ch05
from scratchlm.core.errors import ConfigError
from scratchlm.model import GPTConfig, GPTModel

PEAK, INITIAL, FLOOR = 1e-2, 1e-4, 1e-5


def train(tokenizer, **changes):
    """2 epochs of 4 batches; the norms are the gradients' at each step, as the optimizer finds them."""
    torch.manual_seed(123)
    rows = torch.randint(0, 61, (8, 9))
    data = DataLoader([(row[:-1], row[1:]) for row in rows], batch_size=2, shuffle=True)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": 12, "emb_dim": 16, "n_heads": 4}
    model = GPTModel(GPTConfig(**sizes, n_layers=1, drop_rate=0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.1)
    norms: list[float] = []
    optimizer.register_step_pre_hook(
        lambda *_: norms.append(math.hypot(*(float(p.grad.norm()) for p in model.parameters())))
    )
    settings = {"n_epochs": 2, "eval_freq": 3, "eval_iter": 1, "start_context": "The cat"}
    rates = {"warmup_steps": 3, "initial_lr": INITIAL, "min_lr": FLOOR} | changes
    results = appendix_d.train_model(
        model, data, data, optimizer, "cpu", tokenizer=tokenizer, **settings, **rates
    )
    return results, norms


def test_the_learning_rate_rises_to_the_peak_and_falls_as_a_cosine(tiny_tokenizer, capsys):
    (_, _, tokens_seen, rates), _ = train(tiny_tokenizer)
    rise = [INITIAL + step * (PEAK - INITIAL) / 3 for step in range(3)]
    fall = [FLOOR + (PEAK - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / 5)) for step in range(5)]
    assert rates == pytest.approx(rise + fall)
    assert tokens_seen == [16, 64, 112]


def test_it_prints_as_appendix_d_does(tiny_tokenizer, capsys):
    (train_losses, val_losses, _, _), _ = train(tiny_tokenizer)
    lines = capsys.readouterr().out.splitlines()
    first = f"Ep 1 (Iter 000000): Train loss {train_losses[0]:.3f}, Val loss {val_losses[0]:.3f}"
    assert lines[0] == first
    assert [bool(re.match(r"Ep \d \(Iter", line)) for line in lines] == [True, True, False, True, False]


@pytest.mark.parametrize(("is_printed_book", "first_clipped"), [(False, 3), (True, 4)])
def test_gradients_are_clipped_once_warm(tiny_tokenizer, capsys, is_printed_book, first_clipped):
    _, unclipped = train(tiny_tokenizer, warmup_steps=8)
    _, norms = train(tiny_tokenizer, orig_book_version=is_printed_book)
    assert min(unclipped[:4]) > 1.001  # so that clipping shows
    assert min(norms[:first_clipped]) > 1.001
    assert max(norms[first_clipped:]) <= 1.001


def test_no_warm_up_starts_at_the_peak(tiny_tokenizer, capsys):
    (_, _, _, rates), _ = train(tiny_tokenizer, warmup_steps=0)
    assert rates[0] == pytest.approx(PEAK)
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        train(tiny_tokenizer, warmup_steps=-1)


def test_the_highest_gradient_is_the_largest_entry(tiny_model):
    assert appendix_d.find_highest_gradient(tiny_model) is None
    inputs = torch.randint(0, 61, (2, 8))
    ch05.calc_loss_batch(inputs, inputs, tiny_model, "cpu").backward()
    tiny_model.out_head.weight.grad = None  # a parameter without a gradient is passed over
    entries = torch.cat([p.grad.flatten() for p in tiny_model.parameters() if p.grad is not None])
    assert appendix_d.find_highest_gradient(tiny_model) == entries.max()
