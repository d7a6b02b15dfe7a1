"""The figures that the book prints in chapter 5, and its functions on small models."""

import math
import re
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from scratchlm.book import ch02, ch05
from scratchlm.core.errors import CheckpointError, ConfigError, DownloadError
from scratchlm.model import GPTConfig, GPTModel

# the chapter's toy vocabulary, and the next-token scores after "every effort moves you"
WORDS = ("closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you")
TOY_LOGITS = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])


class Scores(torch.nn.Module):
    """A model whose scores do not depend on what it reads: one row of scores for each row of ids."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits if logits.dim() == 2 else logits[None]
        self.n_read: list[int] = []

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.n_read.append(ids.shape[1])
        return self.logits[:, None].expand(-1, ids.shape[1], -1)


def draw(n: int, **settings: object) -> Counter[str]:
    model, start = Scores(TOY_LOGITS), torch.tensor([[0]])
    torch.manual_seed(123)
    return Counter(WORDS[int(ch05.generate(model, start, 1, 4, **settings)[0, -1])] for _ in range(n))


@pytest.mark.parametrize(
    ("temperature", "counts"),
    [
        (1.0, {"forward": 582, "toward": 343, "closer": 73, "inches": 2}),
        (0.1, {"forward": 985, "toward": 15}),
    ],
)
def test_toy_sampling_gives_the_books_counts(temperature, counts):
    assert draw(1000, temperature=temperature) == counts


def test_a_high_temperature_gives_the_books_counts():
    assert sorted(draw(1000, temperature=5.0).values(), reverse=True) == [
        239,
        227,
        165,
        103,
        75,
        71,
        46,
        42,
        32,
    ]


def test_top_k_leaves_the_books_three_words():
    assert set(draw(1000, temperature=1.0, top_k=3)) == {"closer", "forward", "toward"}
    assert draw(5, temperature=0.0) == draw(5, temperature=3.0, top_k=1) == {"forward": 5}


def test_generate_reads_no_more_than_the_context_size():
    model = Scores(TOY_LOGITS)
    assert ch05.generate(model, torch.tensor([[1, 2, 3]]), 4, context_size=5).shape == (1, 7)
    assert model.n_read == [3, 4, 5, 5]


def test_generate_stops_before_the_end_id():
    start = torch.tensor([[1, 2]])
    assert torch.equal(ch05.generate(Scores(TOY_LOGITS), start, 5, 8, eos_id=3), start)


def test_a_batch_of_rows_samples_each_row_from_its_own_scores():
    logits = torch.stack([TOY_LOGITS, TOY_LOGITS.flip(0)])
    start = torch.tensor([[0], [0]])
    torch.manual_seed(0)
    ids = ch05.generate(Scores(logits), start, 200, 4, temperature=1.0, top_k=2)
    assert set(ids[0, 1:].tolist()) == {3, 7}
    assert set(ids[1, 1:].tolist()) == {5, 1}


def test_a_row_that_ended_is_filled_up_until_all_have():
    logits = torch.stack([TOY_LOGITS, torch.zeros(9)])
    torch.manual_seed(0)
    ids = ch05.generate(Scores(logits), torch.tensor([[0], [0]]), 500, 4, temperature=0.5, eos_id=6)
    for row in ids[:, 1:].tolist():
        ended = row.index(6) if 6 in row else len(row)
        assert set(row[ended:]) <= {6}
    assert ids.shape[1] < 501 or not (ids[:, 1:] == 6).any(dim=1).all()


def test_more_than_the_vocabulary_is_all_of_it():
    assert draw(300, temperature=1.0, top_k=99) == draw(300, temperature=1.0)
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        draw(1, temperature=-1.0)


def test_text_becomes_one_row_and_back(tiny_tokenizer):
    ids = ch05.text_to_token_ids("The cat<|endoftext|>", tiny_tokenizer)
    assert ids.shape[0] == 1
    assert ids[0, -1] == tiny_tokenizer.end_of_text_id
    assert ch05.token_ids_to_text(ids, tiny_tokenizer) == "The cat<|endoftext|>"


def test_the_batch_loss_is_torchs_mean_with_its_gradient(tiny_model):
    ids = torch.randint(0, 61, (3, 9))
    ids[0, 5:] = -100
    inputs, targets = torch.randint(0, 61, (3, 9)), ids
    loss = ch05.calc_loss_batch(inputs, targets, tiny_model, "cpu")
    expected = F.cross_entropy(tiny_model(inputs).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, expected)
    parameters = list(tiny_model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    )


def loader(n: int, *, shuffle: bool = False, batch_size: int = 2) -> DataLoader:
    generator = torch.Generator().manual_seed(n)
    rows = torch.randint(0, 61, (n, 9), generator=generator)
    return DataLoader([(row[:-1], row[1:]) for row in rows], batch_size=batch_size, shuffle=shuffle)


def test_the_loader_loss_is_the_mean_of_batch_means(tiny_model):
    data = loader(5)  # the last batch has one row
    means = [ch05.calc_loss_batch(i, t, tiny_model, "cpu").item() for i, t in data]
    assert ch05.calc_loss_loader(data, tiny_model, "cpu") == sum(means) / 3
    assert ch05.calc_loss_loader(data, tiny_model, "cpu", num_batches=2) == sum(means[:2]) / 2
    assert ch05.calc_loss_loader(data, tiny_model, "cpu", num_batches=99) == sum(means) / 3
    assert math.isnan(ch05.calc_loss_loader(DataLoader([]), tiny_model, "cpu"))
    assert math.isnan(ch05.calc_loss_loader(data, tiny_model, "cpu", num_batches=0))


def test_evaluation_draws_from_the_global_generator_and_ends_in_training_mode(tiny_model):
    data = loader(8, shuffle=True)
    torch.manual_seed(0)
    ch05.evaluate_model(tiny_model, data, loader(4), "cpu", eval_iter=1)
    after = torch.random.get_rng_state()
    assert tiny_model.training
    torch.manual_seed(0)
    next(iter(data)), next(iter(loader(4)))  # what the book's draws: each loader's start
    assert torch.equal(after, torch.random.get_rng_state())


def train(tokenizer, **changes):
    torch.manual_seed(123)
    data, val = loader(8, shuffle=True), loader(2)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": 12, "emb_dim": 16, "n_heads": 4}
    model = GPTModel(GPTConfig(**sizes, n_layers=2, drop_rate=0.1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    settings = {"num_epochs": 2, "eval_freq": 3, "eval_iter": 2, "start_context": "The cat"} | changes
    return ch05.train_model_simple(model, data, val, optimizer, "cpu", tokenizer=tokenizer, **settings), model


def test_training_prints_and_returns_as_the_book_does(tiny_tokenizer, capsys):
    (train_losses, val_losses, tokens_seen), _ = train(tiny_tokenizer)
    lines = capsys.readouterr().out.splitlines()
    assert tokens_seen == [16, 64, 112]  # steps 0, 3 and 6, counted after the update; 16 tokens a batch
    head = r"Ep {} \(Step {}\): Train loss {:.3f}, Val loss {:.3f}"
    for line, epoch, step, row in ((0, 1, "000000", 0), (1, 1, "000003", 1), (3, 2, "000006", 2)):
        assert re.fullmatch(head.format(epoch, step, train_losses[row], val_losses[row]), lines[line])
    assert lines[2].startswith("The cat")
    assert lines[4].startswith("The cat")
    assert len(lines) == 5
    assert train_losses[-1] < train_losses[0]


def test_the_loop_is_the_books_step_by_step(tiny_tokenizer, capsys):
    (losses, _, _), model = train(tiny_tokenizer, num_epochs=1, eval_freq=100)
    torch.manual_seed(123)
    data, val = loader(8, shuffle=True), loader(2)
    twin = GPTModel(model.config).train()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.1)
    for step, (inputs, targets) in enumerate(data):
        optimizer.zero_grad()
        F.cross_entropy(twin(inputs).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
        if step == 0:
            assert ch05.evaluate_model(twin, data, val, "cpu", 2)[0] == pytest.approx(losses[0], rel=1e-6)
    for found, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_how_often_one_evaluates_changes_the_training(tiny_tokenizer, capsys):
    _, model = train(tiny_tokenizer, eval_freq=1)
    _, other = train(tiny_tokenizer, eval_freq=3)
    assert not torch.equal(model.out_head.weight, other.out_head.weight)


def test_a_sample_is_one_line_of_50_tokens(tiny_tokenizer, capsys):
    line_end = tiny_tokenizer.encode("\n")[0]
    scores = torch.zeros(tiny_tokenizer.vocab_size).index_fill(0, torch.tensor(line_end), 1.0)
    model = Scores(scores)
    model.pos_emb = torch.nn.Embedding(4, 1)  # a reader's own model: no config
    ch05.generate_and_print_sample(model, tiny_tokenizer, "cpu", "The cat")
    assert capsys.readouterr().out == "The cat" + " " * 50 + "\n"
    assert max(model.n_read) == 4
    assert model.training


def test_a_sample_needs_no_learnt_positions(tiny_tokenizer, capsys):
    model = Scores(torch.zeros(tiny_tokenizer.vocab_size))
    model.config = GPTConfig(context_length=3)
    ch05.generate_and_print_sample(model, tiny_tokenizer, "cpu", "The cat")
    assert max(model.n_read) == 3


def test_assign_makes_a_new_parameter_of_the_same_shape():
    import numpy as np

    left, array = torch.zeros(2, 3), np.ones((2, 3), dtype=np.float32)
    made = ch05.assign(left, array)
    array[:] = 7
    assert isinstance(made, torch.nn.Parameter)
    assert torch.equal(made, torch.ones(2, 3))
    assert torch.equal(ch05.assign(left, torch.ones(2, 3)), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\(3, 2\) do not fit .* \(2, 3\)"):
        ch05.assign(left, torch.ones(3, 2))
    assert issubclass(CheckpointError, ValueError)


def test_a_download_that_fails_is_an_error(tmp_path):
    with pytest.raises(DownloadError, match=r"one: .*; nowhere:two: "):
        ch05.download_file("nowhere:one", tmp_path / "file", backup_url="nowhere:two")
    assert list(tmp_path.iterdir()) == []


def test_a_known_file_that_is_right_is_not_asked_for_again(real_data, tmp_path):
    from scratchlm.assets.registry import find_assets

    target = tmp_path / "vocab.bpe"
    target.write_bytes((real_data / "gpt2_bpe" / "vocab.bpe").read_bytes())
    (asset,) = find_assets("gpt2_bpe/vocab.bpe")
    ch05.download_file(asset.urls[0], target)  # tests have no network: a request would fail
    assert target.stat().st_size == asset.size_bytes


@pytest.mark.slow  # a model of GPT-2's size reads 5,120 tokens
def test_the_losses_before_training_are_the_books(real_data, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(real_data))
    text = (real_data / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    config = GPTConfig(context_length=256)
    split = int(0.90 * len(text))
    torch.manual_seed(123)
    size = {"batch_size": 2, "max_length": 256, "stride": 256}
    train_loader = ch02.create_dataloader_v1(text[:split], **size)
    val_loader = ch02.create_dataloader_v1(text[split:], **size, drop_last=False, shuffle=False)
    assert (len(train_loader), len(val_loader)) == (9, 1)
    assert sum(inputs.numel() for inputs, _ in train_loader) == 4608
    assert sum(inputs.numel() for inputs, _ in val_loader) == 512
    torch.manual_seed(123)
    model = GPTModel(config).eval()
    torch.manual_seed(123)
    with torch.no_grad():
        losses = [ch05.calc_loss_loader(data, model, "cpu") for data in (train_loader, val_loader)]
    assert losses == pytest.approx([10.987583, 10.981106], abs=5e-6)


def test_a_text_without_tokens_is_a_row_of_whole_numbers(tiny_tokenizer):
    ids = ch05.text_to_token_ids("", tiny_tokenizer)
    assert (ids.dtype, tuple(ids.shape)) == (torch.long, (1, 0))
