"""The nineteen settings on a tiny model: each trains what it says, and reads where it says."""

import pytest
import torch
from torch.utils.data import TensorDataset

from scratchlm.book.ledger.bonus_table import (
    PAD_ID,
    Setting,
    accuracy,
    list_batches,
    logits_of,
    prepared,
    settings,
    train_classifier,
)
from scratchlm.finetuning.lora import LoRALayer
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel


def tiny() -> GPTModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": PAD_ID + 1, "context_length": 12, "emb_dim": 8, "n_heads": 2, "n_layers": 3}
    return GPTModel(GPTConfig(**sizes, drop_rate=0.0))


@pytest.fixture
def messages():
    """Twenty rows of five tokens, three padded; spam begins with the token 7."""
    dice = torch.Generator().manual_seed(1)
    inputs = torch.randint(10, 60, (20, 8), generator=dice)
    labels = torch.arange(20) % 2
    inputs[:, :5] = torch.where(labels[:, None] == 1, 7, inputs[:, :5])
    inputs[:, 5:] = PAD_ID
    return TensorDataset(inputs, labels)


@pytest.mark.parametrize("number", settings())
def test_a_row_changes_what_it_trains_and_nothing_else(number, messages):
    setting = settings()[number]
    model = prepared(setting, tiny())
    before = {name: p.clone() for name, p in model.named_parameters()}
    train_classifier(model, messages, setting, n_epochs=1)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert changed <= learning
    assert any("out_head" in name for name in changed)
    blocks = {name.split(".")[1] for name in changed if name.startswith("trf_blocks")}
    wanted = {
        "head": set(),
        "last-block": {"2"},
        "last-two-blocks": {"1", "2"},
        "all": {"0", "1", "2"},
        "lora": {"0", "1", "2"},
    }
    assert blocks == wanted[setting.train]
    assert any(isinstance(module, LoRALayer) for module in model.modules()) == (setting.train == "lora")
    assert 0 <= accuracy(model, messages, setting) <= 1


def test_positions_read_different_tokens(messages):
    model = prepared(Setting(), tiny())
    inputs, _ = next(list_batches(messages, Setting(), shuffle=False))
    with torch.no_grad():
        scores = model(inputs)
        read = {
            p: logits_of(model, inputs, Setting(position=p)) for p in ("last", "last-real", "first", "mean")
        }
        model.trf_blocks.apply(lambda module: setattr(module, "is_causal", False))
        seeing_all = logits_of(model, inputs, Setting(is_causal=False))
    torch.testing.assert_close(read["last"], scores[:, -1])
    torch.testing.assert_close(read["last-real"], scores[:, 4])
    torch.testing.assert_close(read["first"], scores[:, 0])
    torch.testing.assert_close(read["mean"], scores.mean(dim=1))
    assert not torch.allclose(seeing_all, read["last"])


def test_without_padding_messages_come_one_by_one_and_as_long_as_they_are(messages):
    batches = list(list_batches(messages, Setting(pad="none"), shuffle=False))
    assert {tuple(inputs.shape) for inputs, _ in batches} == {(1, 5)}
    assert len(batches) == 20
