"""What a user says about text, tokenizer and model becomes the real thing."""

import gzip
import json

import pytest

from scratchlm.core.config import from_dict
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.sources import read_documents
from scratchlm.model.config import CONFIGS
from scratchlm.tokenizers.word import WordTokenizer
from scratchlm.training import settings
from scratchlm.training.settings import (
    ModelSettings,
    TextSettings,
    TokenizerSettings,
    learn_tokenizer,
    resolve_data,
    train_tokenizer,
    training_texts,
)
from tests.data.text_split import split_texts


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SCRATCHLM_ASSETS", raising=False)


@pytest.fixture
def tail_file(tmp_path):
    """A file whose last tenth is written in letters that stand nowhere else."""
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat. " * 90 + "zzyx qqwv " * 20, encoding="utf-8")
    return path


# --- model size


def test_a_named_size_follows_the_tokenizer():
    config = ModelSettings(size="small").resolve(vocab_size=777)
    assert config.vocab_size == 777
    assert config.emb_dim == CONFIGS["small"].emb_dim
    assert config.tie_embeddings is CONFIGS["small"].tie_embeddings


def test_only_what_is_said_changes():
    config = ModelSettings(size="tiny", n_layers=2, drop_rate=0.0, tie_embeddings=False).resolve(
        vocab_size=10
    )
    assert (config.n_layers, config.drop_rate, config.tie_embeddings) == (2, 0.0, False)
    assert config.n_heads == CONFIGS["tiny"].n_heads


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="emb_dim must split evenly into heads"):
        ModelSettings(size="tiny", emb_dim=10).resolve(vocab_size=10)


# --- known texts


def test_paths_stay_as_they_are(tmp_path, tail_file):
    assert resolve_data([str(tail_file), str(tmp_path / "*.txt")]) == [
        str(tail_file),
        str(tmp_path / "*.txt"),
    ]


@pytest.mark.parametrize("name", ["the-verdict", "text/the-verdict.txt"])
def test_known_names_become_the_copy_on_this_machine(name, real_data, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(real_data))
    assert resolve_data([name]) == [real_data / "text" / "the-verdict.txt"]


def test_a_known_text_that_is_not_here_names_the_command_that_fetches_it():
    with pytest.raises(DataError, match="scratchlm data fetch"):
        resolve_data(["tinyshakespeare"])


def test_other_assets_are_no_text():
    assert resolve_data(["instruction-data"]) == ["instruction-data"]  # the reader of paths will object


def test_no_names_are_an_error():
    with pytest.raises(DataError, match="--data"):
        resolve_data([])


# --- tokenizers


def test_a_learnt_tokenizer_sees_the_training_side_only(tail_file):
    tokenizer = train_tokenizer(TokenizerSettings(vocab_size=300), [tail_file], TextSettings())
    assert len(tokenizer.encode("the cat")) < len("the cat") / 2
    assert len(tokenizer.encode("zzyx qqwv")) == len("zzyx qqwv")  # not one merge was learnt from it


def test_of_several_documents_those_that_validate_are_not_seen(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"document number{i} here\n", encoding="utf-8")
    text = TextSettings(val_fraction=0.3)
    seen = list(training_texts([tmp_path], text))
    assert 0 < len(seen) < 30
    assert list(training_texts([tmp_path], TextSettings(val_fraction=0.0))) != seen


def test_a_long_text_is_read_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "TOKENIZER_TEXT_BYTES", 1000)
    path = tmp_path / "long.txt"
    path.write_text("abc def " * 2000, encoding="utf-8")
    (tmp_path / "later.txt").write_text("never seen", encoding="utf-8")
    seen = "".join(training_texts([path, tmp_path / "later.txt"], TextSettings()))
    assert "never" not in seen


@pytest.mark.parametrize("limit", [1000, 1 << 20])
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_no_length_lets_the_validation_side_in(tmp_path, monkeypatch, limit, suffix):
    monkeypatch.setattr(settings, "TOKENIZER_TEXT_BYTES", limit)
    for i in range(40):
        content = f"document number{i} here\n".encode() * 4
        (tmp_path / f"{i}{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    texts = [document.text for document in read_documents([tmp_path])]
    allowed, _ = split_texts(texts, val_fraction=0.3)
    seen = list(training_texts([tmp_path], TextSettings(val_fraction=0.3)))
    assert seen == allowed[: len(seen)]
    assert len(seen) == len(allowed) or sum(map(len, seen)) >= limit


def test_a_compressed_text_counts_as_long_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "TOKENIZER_TEXT_BYTES", 5000)
    lines = "".join(json.dumps({"text": f"the same words {i}"}) + "\n" for i in range(2000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert (tmp_path / "a.jsonl.gz").stat().st_size > 5000
    assert 5000 <= sum(map(len, training_texts([tmp_path / "a.jsonl.gz"], TextSettings()))) < 5100


def test_extra_texts_are_seen_too(tail_file):
    plain = train_tokenizer(TokenizerSettings(vocab_size=320), [tail_file], TextSettings())
    more = train_tokenizer(
        TokenizerSettings(vocab_size=320),
        [tail_file],
        TextSettings(),
        extra_texts=["Question: Answer: "] * 50,
    )
    assert len(more.encode("Question: ")) < len(plain.encode("Question: "))


def test_a_word_tokenizer_learns_the_words_of_the_training_side(tail_file):
    tokenizer = train_tokenizer(TokenizerSettings(kind="word"), [tail_file], TextSettings())
    assert isinstance(tokenizer, WordTokenizer)
    assert set(tokenizer.str_to_int) == {"the", "cat", "sat", "on", "mat", ".", "<|endoftext|>", "<|unk|>"}


def test_gpt2s_tokenizer_comes_from_the_assets(real_data, monkeypatch, tail_file):
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(real_data))
    tokenizer = train_tokenizer(TokenizerSettings(kind="gpt2"), [tail_file], TextSettings())
    assert tokenizer.vocab_size == 50257
    assert tokenizer.encode("Hello, I am") == [15496, 11, 314, 716]  # the book's ids


def test_a_finished_tokenizer_is_taken_as_it_is(tail_file, tmp_path):
    first = train_tokenizer(TokenizerSettings(vocab_size=290), [tail_file], TextSettings())
    first.save(tmp_path / "tokenizer.json")
    given = TokenizerSettings(path=str(tmp_path / "tokenizer.json"), vocab_size=9999)
    assert train_tokenizer(given, [tail_file], TextSettings()).fingerprint == first.fingerprint


def test_role_marks_become_special_tokens_of_a_learnt_vocabulary_only(tail_file):
    chosen = TokenizerSettings(vocab_size=300, special_tokens=("<|user|>",))
    tokenizer = train_tokenizer(chosen, [tail_file], TextSettings())
    assert list(tokenizer.special_tokens) == ["<|endoftext|>", "<|user|>"]
    assert tokenizer.vocab_size <= 300
    with pytest.raises(ConfigError, match="special_tokens are for a bpe tokenizer that is trained here"):
        TokenizerSettings(kind="gpt2", special_tokens=("<|user|>",))


def test_a_lossless_word_tokenizer_learns_words_spaces_and_letters(tail_file):
    tokenizer = train_tokenizer(TokenizerSettings(kind="lossless-word"), [tail_file], TextSettings())
    text = "the  cat\tsat on Tom's mat".replace("T", "t").replace("\t", " ").replace("'", ".")
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end_of_text_id is not None


@pytest.mark.parametrize("kind", ["bpe", "word", "lossless-word"])
def test_no_text_is_no_vocabulary(kind):
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        learn_tokenizer(kind, [], vocab_size=300)


def test_a_data_set_on_kaggle_is_fetched_by_its_user():
    with pytest.raises(DataError, match=r"dataset_download\('owner/books'\).*check its licence"):
        resolve_data(["kaggle:owner/books"])


def test_a_kind_that_there_is_not_is_told_with_those_there_are():
    with pytest.raises(
        ConfigError, match=r"kind must be one of 'bpe', 'word', 'lossless-word', 'gpt2', got 'bppe'"
    ):
        from_dict(TokenizerSettings, {"kind": "bppe"}, where="tokenizer")
