"""The figures that the book prints in chapter 2. "The book" below is its notebook ch02 unless said otherwise."""

import pytest
import torch

from scratchlm.book import ch02
from scratchlm.core.errors import ConfigError, DataError, TokenizerError
from scratchlm.tokenizers import load_gpt2_tokenizer, split_words

SPECIAL = {"<|endoftext|>"}


@pytest.fixture
def verdict(real_data, monkeypatch) -> str:
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(real_data))
    return (real_data / "text" / "the-verdict.txt").read_text(encoding="utf-8")


def book_vocab(text: str, special: tuple[str, ...] = ()) -> dict[str, int]:
    """As the book makes it by hand."""
    return {token: i for i, token in enumerate([*sorted(set(split_words(text))), *special])}


def test_the_verdict_has_the_books_words(verdict):
    assert len(verdict) == 20_479
    assert len(split_words(verdict)) == 4_690
    assert len(book_vocab(verdict)) == 1_130
    assert len(book_vocab(verdict, ("<|endoftext|>", "<|unk|>"))) == 1_132


def test_v1_gives_the_books_ids_and_text(verdict):
    tokenizer = ch02.SimpleTokenizerV1(book_vocab(verdict))
    text = '"It\'s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
    ids = [1, 56, 2, 850, 988, 602, 533, 746, 5, 1126, 596, 5, 1, 67, 7, 38, 851, 1108, 754, 793, 7]
    assert tokenizer.encode(text) == ids
    assert (
        tokenizer.decode(ids)
        == '" It\' s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
    )


def test_v1_meets_an_unknown_word_with_a_key_error(verdict):
    with pytest.raises(KeyError, match="'Hello'"):
        ch02.SimpleTokenizerV1(book_vocab(verdict)).encode("Hello, do you like tea. Is this-- a test?")


def test_v2_gives_the_books_ids_and_text(verdict):
    tokenizer = ch02.SimpleTokenizerV2(book_vocab(verdict, ("<|endoftext|>", "<|unk|>")))
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."
    ids = [1131, 5, 355, 1126, 628, 975, 10, 1130, 55, 988, 956, 984, 722, 988, 1131, 7]
    assert tokenizer.encode(text) == ids
    assert (
        tokenizer.decode(ids)
        == "<|unk|>, do you like tea? <|endoftext|> In the sunlit terraces of the <|unk|>."
    )


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (
            "Hello, do you like tea? <|endoftext|> In the sunlit terracesof someunknownPlace.",
            [
                *(15496, 11, 466, 345, 588, 8887, 30, 220, 50256, 554),
                *(262, 4252, 18250, 8812, 2114, 1659, 617, 34680, 27271, 13),
            ],
        ),
        ("Akwirw ier", [33901, 86, 343, 86, 220, 959]),  # exercise 2.1
    ],
)
def test_bpe_gives_the_books_ids(real_data, text, ids):
    folder = real_data / "gpt2_bpe"
    simple = ch02.BPETokenizerSimple()
    simple.load_vocab_and_merges_from_openai(folder / "encoder.json", folder / "vocab.bpe")
    assert simple.encode(text, allowed_special=SPECIAL) == ids
    assert simple.decode(ids) == text


def test_the_verdict_has_5145_bpe_tokens(real_data, verdict):
    folder = real_data / "gpt2_bpe"
    assert len(load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe").encode(verdict)) == 5_145


def test_the_loader_gives_the_books_first_batches(verdict):
    loader = ch02.create_dataloader_v1(verdict, batch_size=1, max_length=4, stride=1, shuffle=False)
    batches = iter(loader)
    assert [part.tolist() for part in next(batches)] == [[[40, 367, 2885, 1464]], [[367, 2885, 1464, 1807]]]
    assert next(batches)[0].tolist() == [[367, 2885, 1464, 1807]]


def test_a_seed_decides_the_order_as_torchs_sampler_does(verdict):
    torch.manual_seed(123)
    loader = ch02.create_dataloader_v1(verdict, batch_size=2, max_length=64, stride=64)
    first = next(iter(loader))[0]
    torch.manual_seed(123)
    sampler = torch.utils.data.RandomSampler(loader.dataset)
    torch.empty((), dtype=torch.int64).random_()  # what the DataLoader draws for its workers
    order = list(sampler)
    assert torch.equal(first, torch.stack([loader.dataset[i][0] for i in order[:2]]))


def test_the_dataset_drops_the_tail_and_keeps_the_books_attributes(tiny_tokenizer):
    text = "The cat sat on the log and the dog sat on the mat"
    ids = tiny_tokenizer.encode(text)
    dataset = ch02.GPTDatasetV1(text, tiny_tokenizer, max_length=4, stride=3)
    starts = range(0, len(ids) - 4, 3)
    assert [row.tolist() for row in dataset.input_ids] == [ids[i : i + 4] for i in starts]
    assert [row.tolist() for row in dataset.target_ids] == [ids[i + 1 : i + 5] for i in starts]
    assert len(dataset) == len(starts)
    assert dataset.tokenizer is tiny_tokenizer


def test_end_of_text_in_a_text_is_the_special_token(tiny_tokenizer):
    dataset = ch02.GPTDatasetV1("cat<|endoftext|>dog", tiny_tokenizer, max_length=1, stride=1)
    assert tiny_tokenizer.end_of_text_id in [int(row) for row in dataset.target_ids]


def test_a_text_shorter_than_a_window_is_refused(tiny_tokenizer):
    with pytest.raises(DataError, match="at least 257 tokens"):
        ch02.GPTDatasetV1("cat", tiny_tokenizer, max_length=256, stride=256)


def test_without_gpt2s_files_the_loader_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path))
    monkeypatch.delenv("SCRATCHLM_ASSETS", raising=False)
    with pytest.raises(DataError, match=r"data fetch gpt2_bpe/encoder\.json"):
        ch02.create_dataloader_v1("The cat")


def test_bpe_learns_742_merges_from_the_verdict(verdict):
    tokenizer = ch02.BPETokenizerSimple()
    tokenizer.train(verdict, vocab_size=1000, allowed_special=SPECIAL)
    assert (len(tokenizer.vocab), len(tokenizer.bpe_merges), len(tokenizer.bpe_ranks)) == (1000, 742, 742)
    # the ids that do not depend on which merges were learnt (bonus notebook bpe-from-scratch)
    assert tokenizer.encode(". a<|endoftext|>", allowed_special=SPECIAL)[-1] == 257
    assert (tokenizer.vocab[46], tokenizer.vocab[97], tokenizer.vocab[256]) == (".", "a", "Ġ")
    assert tokenizer.get_special_token_id("<|endoftext|>") == 257
    assert tokenizer.decode(tokenizer.encode(verdict)) == verdict


def test_bpe_is_the_same_after_saving_and_loading(tmp_path):
    text = "low lower lowest,\n  new newer – \U0001f600 newest <|endoftext|>"
    tokenizer, again = ch02.BPETokenizerSimple(), ch02.BPETokenizerSimple()
    tokenizer.train(text, vocab_size=275)
    tokenizer.save_vocab_and_merges(tmp_path / "vocab.json", tmp_path / "merges.txt")
    again.load_vocab_and_merges(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert again.vocab == tokenizer.vocab
    assert again.bpe_merges == tokenizer.bpe_merges
    ids = again.encode(text, allowed_special=SPECIAL)
    assert ids == tokenizer.encode(text, allowed_special=SPECIAL)
    assert (ids[-1], again.decode(ids)) == (257, text)


def test_a_special_token_in_a_text_must_be_allowed():
    tokenizer = ch02.BPETokenizerSimple()
    tokenizer.train("low lower", vocab_size=260)
    with pytest.raises(ValueError, match=r"allowed_special=\{'<\|endoftext\|>'\}"):
        tokenizer.encode("low<|endoftext|>")


def test_a_special_token_added_to_the_dictionaries_is_one():
    tokenizer = ch02.BPETokenizerSimple()
    tokenizer.train("low lower", vocab_size=260)
    tokenizer.vocab[260] = "<|pad|>"
    tokenizer.inverse_vocab["<|pad|>"] = 260
    ids = tokenizer.encode("low<|pad|>", allowed_special={"<|pad|>"})
    assert (ids[-1], tokenizer.decode(ids)) == (260, "low<|pad|>")


def test_gpt2s_line_ends_are_found_by_themselves_and_by_their_symbols(real_data):
    tokenizer = ch02.BPETokenizerSimple()
    folder = real_data / "gpt2_bpe"
    tokenizer.load_vocab_and_merges_from_openai(folder / "encoder.json", folder / "vocab.bpe")
    assert (tokenizer.inverse_vocab["\n"], tokenizer.inverse_vocab["Ċ"], tokenizer.vocab[198]) == (
        198,
        198,
        "Ċ",
    )
    assert tokenizer.tokenize_with_bpe("Ġterraces") == tokenizer.encode(" terraces") == [8812, 2114]
    assert tokenizer.encode("a\r\n\nb") == [64, 201, 198, 198, 65]


@pytest.mark.parametrize(
    ("ids", "mode", "pair"),
    [
        ([1, 2, 3, 1, 2], "most", (1, 2)),
        ([1, 2, 1, 2, 3], "least", (2, 1)),
        ([[1, 2], [2, 3], [2, 3]], "most", (2, 3)),
        ([42], "most", None),
        ([], "least", None),
    ],
)
def test_the_frequent_pair_is_the_first_of_equals_and_never_spans_two_rows(ids, mode, pair):
    assert ch02.BPETokenizerSimple.find_freq_pair(ids, mode=mode) == pair


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="got 'best'"):
        ch02.BPETokenizerSimple.find_freq_pair([1, 2], mode="best")


def test_a_pair_is_replaced_from_the_left():
    replace = ch02.BPETokenizerSimple.replace_pair
    assert replace([1, 1, 1, 2, 1, 1], (1, 1), 9) == [9, 1, 2, 9]
    assert replace([[1, 2], [2, 1, 2]], (1, 2), 9) == [[9], [2, 9]]


def test_nothing_and_one_letter_leave_only_the_base_ids():
    for text in ("", "H"):
        tokenizer = ch02.BPETokenizerSimple()
        tokenizer.train(text, vocab_size=270)
        assert (len(tokenizer.vocab), tokenizer.decode(tokenizer.encode("Hi"))) == (258, "Hi")


def test_each_bpe_merge_joins_two_ids_into_the_token_of_both():
    tokenizer = ch02.BPETokenizerSimple()
    tokenizer.train("low lower lowest new newer newest", vocab_size=266)
    for (left, right), joined in tokenizer.bpe_merges.items():
        assert tokenizer.vocab[joined] == tokenizer.vocab[left] + tokenizer.vocab[right]
    assert all(tokenizer.inverse_vocab[token] == id_ for id_, token in tokenizer.vocab.items())


def test_bpe_says_what_it_lacks(tmp_path):
    tokenizer = ch02.BPETokenizerSimple()
    assert (tokenizer.vocab, tokenizer.bpe_merges) == ({}, {})
    with pytest.raises(TokenizerError, match="call train"):
        tokenizer.encode("cat")
    with pytest.raises(ConfigError, match="at least 258"):
        tokenizer.train("cat", vocab_size=257)
    tokenizer.train("cat cat", vocab_size=260)
    with pytest.raises(ValueError, match="endofprompt"):
        tokenizer.encode("cat", allowed_special={"<|endofprompt|>"})


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ('{"0": "a", "1": 2}', "[]", "does not map ids to tokens"),
        ('{"x": "a"}', "[]", "does not map ids to tokens"),
        ('{"0": "\\n"}', "[]", "byte symbols"),
        ('{"0": "a"}', '[{"pair": [0], "new_id": 1}]', "is not a list"),
        ('{"0": "a"}', '[{"pair": [0, 7], "new_id": 1}]', "do not belong together"),
        ('{"0": "a"}', "[]", "no token for the byte"),
        ('{"0": "a"}', "[", "merges"),
    ],
)
def test_bpe_refuses_damaged_files(tmp_path, vocab, merges, message):
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(TokenizerError, match=message):
        ch02.BPETokenizerSimple().load_vocab_and_merges(tmp_path / "vocab.json", tmp_path / "merges.txt")
