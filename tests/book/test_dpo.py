"""The bonus chapter's functions on small models: what it pads, masks, prints and returns."""

import copy
import functools
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from scratchlm.book import ch07, dpo
from scratchlm.core.errors import DataError
from scratchlm.model import GPTConfig, GPTModel

BATCH = [
    {"prompt": [1, 2], "chosen": [1, 2, 8, 8, 5, 6], "rejected": [1, 2, 8, 8, 7]},
    {"prompt": [3], "chosen": [3, 8, 8, 9], "rejected": [3, 8, 8, 4, 4]},
]


@pytest.fixture
def pair(tiny_model):
    """A policy and its reference, a little apart."""
    reference = copy.deepcopy(tiny_model).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return tiny_model.eval(), reference


def test_an_entry_is_encoded_with_either_answer(tiny_tokenizer):
    entry = {"instruction": "Say it.", "input": "", "output": "The", "chosen": "The cat", "rejected": "A dog"}
    data = dpo.PreferenceDataset([entry], tiny_tokenizer)
    request = ch07.format_input(entry)
    lead = request + "\n\n### Response:\n"
    texts = {"prompt": request, "chosen": lead + "The cat", "rejected": lead + "A dog"}
    assert (len(data), data[0]) == (1, {key: tiny_tokenizer.encode(text) for key, text in texts.items()})


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"rejected": None}, "rejected must be text"), ({}, "got the keys .*; add rejected")],
)
def test_an_entry_without_both_answers_is_an_error(changed, words, tiny_tokenizer):
    entry = {"instruction": "Say it.", "input": "", "output": "The", "chosen": "The cat"} | changed
    with pytest.raises(DataError, match=words):
        dpo.PreferenceDataset([entry], tiny_tokenizer)


def test_both_answers_are_padded_to_one_width_and_masked():
    found = dpo.custom_collate_fn(BATCH, pad_token_id=0)
    assert found["chosen"].tolist() == [[1, 2, 8, 8, 5, 6, 0], [3, 8, 8, 9, 0, 0, 0]]
    assert found["rejected"].tolist() == [[1, 2, 8, 8, 7, 0, 0], [3, 8, 8, 4, 4, 0, 0]]
    assert found["chosen_mask"].int().tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0, 0]]
    assert found["rejected_mask"].int().tolist() == [[0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0, 0]]
    assert [row.tolist() for row in found["prompt"]] == [[1, 2], [3]]


def test_the_prompt_may_count_and_rows_may_be_cut():
    found = dpo.custom_collate_fn(BATCH, mask_prompt_tokens=False, allowed_max_length=5)
    assert found["chosen"].shape == found["rejected_mask"].shape == (2, 5)
    assert found["chosen_mask"].int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert found["chosen"][1, 4] == 50256


def test_log_probabilities_are_means_over_the_selected_labels():
    logits, labels = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    mask = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    nats = -F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none").view(
        2, 4
    )
    torch.testing.assert_close(dpo.compute_logprobs(logits, labels), nats.mean(1))
    expected = torch.stack([nats[0, 1:3].mean(), nats[1].mean()])
    torch.testing.assert_close(dpo.compute_logprobs(logits, labels, mask), expected)
    with pytest.raises(DataError, match="a row has no token of its answer"):
        dpo.compute_logprobs(logits, labels, mask & False)


def test_the_loss_and_the_rewards_are_the_batches_means():
    four = [torch.randn(3) for _ in range(4)]
    loss, chosen, rejected = dpo.compute_dpo_loss(*four, beta=0.4)
    margins = [(a - b).item() for a, b in zip(four[0] - four[1], four[2] - four[3], strict=True)]
    by_hand = sum(math.log(1 + math.exp(-0.4 * margin)) for margin in margins) / 3
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    torch.testing.assert_close(chosen, (four[0] - four[2]).mean())
    torch.testing.assert_close(rejected, (four[1] - four[3]).mean())
    assert dpo.compute_dpo_loss(*four)[0] == dpo.compute_dpo_loss(*four, beta=0.1)[0]


def test_a_batch_compares_policy_and_reference(pair):
    policy, reference = pair
    batch = dpo.custom_collate_fn(BATCH, pad_token_id=0)
    loss, chosen, rejected = dpo.compute_dpo_loss_batch(batch, policy, reference, beta=0.1)
    scores = [
        dpo.compute_logprobs(model(batch[key]), batch[key], batch[f"{key}_mask"])
        for model in pair
        for key in ("chosen", "rejected")
    ]
    for found, expected in zip((loss, chosen, rejected), dpo.compute_dpo_loss(*scores), strict=True):
        torch.testing.assert_close(found, expected)
    loss.backward()
    assert policy.tok_emb.weight.grad.abs().sum() > 0
    assert reference.tok_emb.weight.grad is None


def test_before_training_the_loss_is_the_books_and_there_is_no_margin(tiny_model):
    batch = dpo.custom_collate_fn(BATCH, pad_token_id=0)
    twin = copy.deepcopy(tiny_model)
    loss, chosen, rejected = dpo.compute_dpo_loss_batch(batch, tiny_model, twin, beta=0.1)
    assert round(loss.item(), 4) == 0.6931
    assert (chosen.item(), rejected.item()) == (0.0, 0.0)


def loader(n: int, vocab_size: int = 61, *, shuffle: bool = False) -> DataLoader:
    """Entries whose chosen answer is the id 5 and whose rejected one is 6."""
    data = [
        {
            "prompt": [i % vocab_size],
            "chosen": [i % vocab_size, 8, 8, 5],
            "rejected": [i % vocab_size, 8, 8, 6],
        }
        for i in range(10, 10 + n)
    ]
    collate = functools.partial(dpo.custom_collate_fn, pad_token_id=0)
    return DataLoader(data, batch_size=2, shuffle=shuffle, collate_fn=collate)


def test_the_loader_gives_means_of_batch_means(pair):
    batches = [dpo.compute_dpo_loss_batch(batch, *pair, 0.1) for batch in loader(5)]
    for n_batches, taken in ((None, 3), (2, 2), (9, 3)):
        found = dpo.compute_dpo_loss_loader(loader(5), *pair, 0.1, num_batches=n_batches)
        expected = [
            sum(value.item() for value in column[:taken]) / taken for column in zip(*batches, strict=True)
        ]
        assert found == pytest.approx(expected, rel=1e-6)
    assert all(math.isnan(value) for value in dpo.compute_dpo_loss_loader(DataLoader([]), *pair, 0.1))


def test_evaluation_switches_dropout_off_and_back_on(pair):
    policy, reference = pair
    policy.train()
    found = dpo.evaluate_dpo_loss_loader(policy, reference, loader(6), loader(2), 0.1, eval_iter=2)
    assert policy.training
    policy.eval()
    again = dpo.compute_dpo_loss_loader(loader(6), policy, reference, 0.1, num_batches=2)
    assert tuple(found.values())[:3] == again
    assert list(found) == [
        f"{part}_{name}" for part in ("train", "val") for name in ("loss", "chosen_reward", "rejected_reward")
    ]


def test_training_learns_prints_and_returns_as_the_book_does(tiny_tokenizer, capsys):
    torch.manual_seed(123)
    sizes = {"vocab_size": tiny_tokenizer.vocab_size, "context_length": 12, "emb_dim": 16, "n_heads": 4}
    policy = GPTModel(GPTConfig(**sizes, n_layers=2, drop_rate=0.0))
    reference = copy.deepcopy(policy).eval()
    frozen = copy.deepcopy(reference.state_dict())
    tracking = dpo.train_model_dpo_simple(
        policy, reference, loader(8, shuffle=True), loader(2),
        torch.optim.AdamW(policy.parameters(), lr=1e-2),
        num_epochs=2, beta=0.1, eval_freq=3, eval_iter=2, start_context="The cat", tokenizer=tiny_tokenizer,
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert list(tracking) == [
        "train_losses", "train_chosen_rewards", "train_rejected_rewards",
        "val_losses", "val_chosen_rewards", "val_rejected_rewards", "tokens_seen",
    ]  # fmt: skip
    assert tracking["tokens_seen"] == [10, 40, 70]  # steps 0, 3 and 6; two rows of five ids a batch
    margins = [
        chosen - rejected
        for chosen, rejected in zip(
            tracking["val_chosen_rewards"], tracking["val_rejected_rewards"], strict=True
        )
    ]
    assert margins[0] < margins[1] < margins[2]
    assert math.log(2) > tracking["val_losses"][0] > tracking["val_losses"][2]
    head = r"Ep {} \(Step {}\): Train loss {:.3f}, Val loss {:.3f}, "
    head += r"Train reward margins -?\d+\.\d{{3}}, Val reward margins {:.3f}"
    for line, epoch, step, row in ((0, 1, "000000", 0), (1, 1, "000003", 1), (3, 2, "000006", 2)):
        losses = tracking["train_losses"][row], tracking["val_losses"][row]
        assert re.fullmatch(head.format(epoch, step, *losses, margins[row]), lines[line])
    assert lines[2].startswith("The cat")
    assert lines[4].startswith("The cat")
    assert len(lines) == 5
    assert all(torch.equal(value, frozen[name]) for name, value in reference.state_dict().items())
