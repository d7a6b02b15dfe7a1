"""The figures that the book prints in chapter 6, and its functions on small models."""

import csv
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from scratchlm.book import ch06
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="session")
def table(real_data):
    """Read as the book reads it, quoting on."""
    path = real_data / "sms_spam_collection" / "SMSSpamCollection"
    return pd.read_csv(path, sep="\t", header=None, names=["Label", "Text"])


@pytest.fixture
def classifier(tiny_config):
    torch.manual_seed(0)
    model = GPTModel(tiny_config)
    model.out_head = torch.nn.Linear(tiny_config.emb_dim, 2)
    return model


def loader(n: int, *, shuffle: bool = False, batch_size: int = 2) -> DataLoader:
    generator = torch.Generator().manual_seed(n)
    rows = torch.randint(0, 61, (n, 9), generator=generator)
    return DataLoader([(row, row[-1] % 2) for row in rows], batch_size=batch_size, shuffle=shuffle)


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("Label", "Text"), *rows])
    return path


def test_the_balanced_table_has_the_books_rows(table):
    assert len(table) == 5572
    balanced = ch06.create_balanced_dataset(table)
    assert balanced["Label"].value_counts().to_dict() == {"ham": 747, "spam": 747}
    assert list(balanced["Label"][:747]) == ["ham"] * 747
    parts = ch06.random_split(balanced, 0.7, 0.1)
    assert [len(part) for part in parts] == [1045, 149, 300]
    assert set(pd.concat(parts)["Text"]) == set(balanced["Text"])


@pytest.mark.slow  # encodes 1,494 messages with GPT-2's tokenizer
def test_the_loaders_have_the_books_sizes(table, real_data, tmp_path):
    balanced = ch06.create_balanced_dataset(table)
    balanced["Label"] = balanced["Label"].map({"ham": 0, "spam": 1})
    paths = [tmp_path / f"{name}.csv" for name in ("train", "validation", "test")]
    for path, part in zip(paths, ch06.random_split(balanced, 0.7, 0.1), strict=True):
        part.to_csv(path, index=None)
    folder = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe", engine="tiktoken")
    train = ch06.SpamDataset(paths[0], tokenizer)
    val, test = (ch06.SpamDataset(path, tokenizer, max_length=train.max_length) for path in paths[1:])
    assert train.max_length == 120
    torch.manual_seed(123)
    loaders = [
        DataLoader(train, batch_size=8, shuffle=True, drop_last=True),
        DataLoader(val, batch_size=8),
        DataLoader(test, batch_size=8),
    ]
    assert [len(data) for data in loaders] == [130, 19, 38]
    inputs, labels = next(iter(loaders[0]))
    assert (inputs.shape, labels.shape) == ((8, 120), (8,))
    assert list(train.data.columns) == ["Label", "Text"]


def test_less_ham_than_spam_cannot_be_balanced():
    few = pd.DataFrame({"Label": ["ham", "spam", "spam"], "Text": ["a", "b", "c"]})
    with pytest.raises(DataError, match="1 ham and 2 spam"):
        ch06.create_balanced_dataset(few)
    with pytest.raises(ConfigError, match="at most 1"):
        ch06.random_split(few, 0.8, 0.4)


def test_a_table_without_labels_is_an_error_that_names_its_columns():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match="a column Label, got label, Text"):
        ch06.create_balanced_dataset(pandas.DataFrame({"label": ["spam"], "Text": ["a"]}))


def test_a_data_set_has_its_table_when_the_file_is_gone(tmp_path, tiny_tokenizer):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "train.csv"
    path.write_text("Label,Text\n1,hello\n0,NA\n", encoding="utf-8")
    found = ch06.SpamDataset(path, tiny_tokenizer)
    path.unlink()
    pandas.testing.assert_frame_equal(
        found.data, pandas.DataFrame({"Label": [1, 0], "Text": ["hello", "NA"]})
    )


@pytest.mark.parametrize("length", [0, -1])
def test_a_length_below_1_is_refused(tmp_path, tiny_tokenizer, classifier, length):
    """Python would take -1 for "all but the last token"."""
    path = tmp_path / "train.csv"
    path.write_text("Label,Text\n1,hello\n0,by\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"at least 1, got {length}"):
        ch06.SpamDataset(path, tiny_tokenizer, max_length=length)
    with pytest.raises(ConfigError, match=f"at least 1, got {length}"):
        ch06.classify_review("hello", classifier, tiny_tokenizer, "cpu", max_length=length)


def test_messages_are_padded_to_the_longest_or_cut(tmp_path, tiny_tokenizer):
    path = write_csv(tmp_path / "a.csv", [(0, "The cat"), (1, 'sat on, "the" mat\nand the log')])
    data = ch06.SpamDataset(path, tiny_tokenizer, pad_token_id=7)
    texts = ["The cat", 'sat on, "the" mat\nand the log']
    ids = [tiny_tokenizer.encode(text) for text in texts]
    assert data.max_length == len(ids[1])
    assert data.encoded_texts == [ids[0] + [7] * (len(ids[1]) - len(ids[0])), ids[1]]
    assert (len(data), data[1][1].item(), data[0][0].dtype) == (2, 1, torch.long)
    assert list(data.data["Text"]) == texts
    cut = ch06.SpamDataset(path, tiny_tokenizer, max_length=3, pad_token_id=7)
    assert [len(row) for row in cut.encoded_texts] == [3, 3]


def test_labels_that_were_not_mapped_are_refused(tmp_path, tiny_tokenizer):
    path = write_csv(tmp_path / "a.csv", [("ham", "The cat")])
    with pytest.raises(DataError, match="0 and 1, got 'ham'"):
        ch06.SpamDataset(path, tiny_tokenizer)


def test_the_loss_is_read_at_the_last_position(classifier):
    inputs, labels = torch.randint(0, 61, (3, 9)), torch.tensor([0, 1, 1])
    classifier.eval()
    found = ch06.calc_loss_batch(inputs, labels, classifier, "cpu")
    torch.testing.assert_close(found, F.cross_entropy(classifier(inputs)[:, -1], labels))
    assert found.requires_grad


def test_the_loader_loss_is_the_mean_of_batch_means(classifier):
    data = loader(5)  # the last batch has one row
    classifier.eval()
    means = [ch06.calc_loss_batch(i, t, classifier, "cpu").item() for i, t in data]
    assert ch06.calc_loss_loader(data, classifier, "cpu") == sum(means) / 3
    assert ch06.calc_loss_loader(data, classifier, "cpu", num_batches=2) == sum(means[:2]) / 2
    assert math.isnan(ch06.calc_loss_loader(DataLoader([]), classifier, "cpu"))


def test_accuracy_counts_messages_not_batches(classifier):
    data = loader(5)
    classifier.eval()
    right = [int(classifier(i)[:, -1].argmax(-1).eq(t).sum()) for i, t in data]
    classifier.train()
    assert ch06.calc_accuracy_loader(data, classifier, "cpu") == sum(right) / 5
    assert not classifier.training
    assert ch06.calc_accuracy_loader(data, classifier, "cpu", num_batches=1) == right[0] / 2
    assert math.isnan(ch06.calc_accuracy_loader(DataLoader([]), classifier, "cpu"))


def train(model, **changes):
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    settings = {"num_epochs": 2, "eval_freq": 3, "eval_iter": 2} | changes
    return ch06.train_classifier_simple(
        model, loader(8, shuffle=True), loader(3), optimizer, "cpu", **settings
    )


def test_training_prints_and_returns_as_the_book_does(classifier, capsys):
    train_losses, val_losses, train_accs, val_accs, n_seen = train(classifier)
    lines = capsys.readouterr().out.splitlines()
    assert n_seen == 16
    assert (len(train_losses), len(val_losses), len(train_accs), len(val_accs)) == (3, 3, 2, 2)
    head = r"Ep {} \(Step {}\): Train loss {:.3f}, Val loss {:.3f}"
    for line, epoch, step, row in ((0, 1, "000000", 0), (1, 1, "000003", 1), (3, 2, "000006", 2)):
        assert re.fullmatch(head.format(epoch, step, train_losses[row], val_losses[row]), lines[line])
    for line, row in ((2, 0), (4, 1)):
        accuracies = f"{train_accs[row] * 100:.2f}% | Validation accuracy: {val_accs[row] * 100:.2f}%"
        assert lines[line] == f"Training accuracy: {accuracies}"
    assert len(lines) == 5


def test_the_loop_is_the_books_step_by_step(classifier, tiny_config, capsys):
    twin = GPTModel(tiny_config)
    twin.out_head = torch.nn.Linear(tiny_config.emb_dim, 2)
    twin.load_state_dict(classifier.state_dict())
    train(classifier)
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.1)
    data, val, step = loader(8, shuffle=True), loader(3), 0
    for _ in range(2):
        twin.train()
        for inputs, targets in data:
            optimizer.zero_grad()
            F.cross_entropy(twin(inputs)[:, -1], targets).backward()
            optimizer.step()
            if step % 3 == 0:
                ch06.evaluate_model(twin, data, val, "cpu", 2)
                assert twin.training
            step += 1
        ch06.calc_accuracy_loader(data, twin, "cpu", num_batches=2)  # draws an order too
        ch06.calc_accuracy_loader(val, twin, "cpu", num_batches=2)
    for found, expected in zip(classifier.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


class Remembers(torch.nn.Module):
    """Calls everything spam whose first id is odd, and remembers what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_emb = torch.nn.Embedding(6, 1)  # a reader's own model: no config
        self.read: list[list[int]] = []

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.read += ids.tolist()
        return F.one_hot(ids[:, :1] % 2, 2).float().expand(-1, ids.shape[1], -1)


def test_a_message_is_padded_cut_and_named(tiny_tokenizer):
    model = Remembers().train()
    ids = tiny_tokenizer.encode("The cat sat on the mat and the dog sat on the log.")
    label = "spam" if ids[0] % 2 else "not spam"
    assert len(ids) > 6
    text = tiny_tokenizer.decode(ids)
    for max_length in (None, 6, 99):  # the context holds six
        assert ch06.classify_review(text, model, tiny_tokenizer, "cpu", max_length=max_length) == label
    assert model.read == [ids[:6]] * 3
    assert not model.training
    short = tiny_tokenizer.encode(" cat")
    model.read.clear()
    for max_length in (None, 5, 99):
        ch06.classify_review(" cat", model, tiny_tokenizer, "cpu", max_length=max_length, pad_token_id=3)
    assert model.read == [short, short + [3] * (5 - len(short)), short + [3] * (6 - len(short))]
    names = {ch06.classify_review(chr(i), model, tiny_tokenizer, "cpu", max_length=1) for i in range(65, 75)}
    assert names == {"spam", "not spam"}
    with pytest.raises(DataError, match="has no tokens"):
        ch06.classify_review("", model, tiny_tokenizer, "cpu")


def test_a_text_is_cut_to_the_configs_context(tiny_tokenizer):
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=tiny_tokenizer.vocab_size, context_length=4, emb_dim=8, n_heads=2, n_layers=1
    )
    text = "The cat sat on the mat and the dog"
    assert ch06.classify_review(text, GPTModel(config), tiny_tokenizer, "cpu") in ("spam", "not spam")
