"""Our tokenizers beside tiktoken and Hugging Face `tokenizers`."""

import json
import random
import sys
import unicodedata

import pytest
import tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from scratchlm.tokenizers import (
    END_OF_TEXT,
    UNKNOWN,
    BPETokenizer,
    LosslessWordTokenizer,
    StrictWordTokenizer,
    WordTokenizer,
    build_vocab,
    load_gpt2_tokenizer,
    load_tokenizer,
    train_bpe,
)
from scratchlm.tokenizers.byte_symbols import to_symbols

# tiktoken's own spelling of the pattern, written down here so that ours is not compared with itself.
TIKTOKEN_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
TEXT_FILES = [
    "text/*.txt",
    "text/gutenberg/*.txt",
    "instruction/*.json",
    "sms_spam_collection/SMSSpamCollection",
]


@pytest.fixture(scope="module")
def gpt2(real_data) -> BPETokenizer:
    return load_gpt2_tokenizer(real_data / "gpt2_bpe" / "encoder.json", real_data / "gpt2_bpe" / "vocab.bpe")


@pytest.fixture(scope="module")
def gpt2_fast(real_data) -> BPETokenizer:
    folder = real_data / "gpt2_bpe"
    return load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe", engine="tiktoken")


@pytest.fixture(scope="module")
def reference(real_data) -> tiktoken.Encoding:
    """tiktoken's gpt2, its ranks read here from encoder.json without our code."""
    vocab = json.loads((real_data / "gpt2_bpe" / "encoder.json").read_text(encoding="utf-8"))
    special_tokens = {END_OF_TEXT: vocab.pop(END_OF_TEXT)}
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    byte_of_symbol = {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(hidden)
    }
    ranks = {bytes(map(byte_of_symbol.__getitem__, token)): id_ for token, id_ in vocab.items()}
    return tiktoken.Encoding(
        "gpt2",
        pat_str=TIKTOKEN_PATTERN,
        mergeable_ranks=ranks,
        special_tokens=special_tokens,
        explicit_n_vocab=50257,
    )


def read_texts(real_data) -> dict[str, str]:
    """Every text file of the shared data by its name."""
    paths = [path for pattern in TEXT_FILES for path in sorted(real_data.glob(pattern))]
    assert len(paths) >= 9
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


# --- encoding ---


def test_every_shared_text_gets_the_ids_of_tiktoken(real_data, gpt2, gpt2_fast, reference):
    for name, text in read_texts(real_data).items():
        expected = reference.encode_ordinary(text)
        assert gpt2.encode(text) == expected, name
        assert gpt2_fast.encode(text) == expected, name
        assert gpt2.decode(expected) == text, name


def generate_text(generator: random.Random) -> str:
    """A text of a few fragments, each of a kind that tokenizers have got wrong before."""
    return "".join(generator.choice(FRAGMENTS)(generator) for _ in range(generator.randint(1, 8)))


def _random_unicode(generator: random.Random) -> str:
    # Characters that this Python's Unicode has not assigned are left out: whether they are letters depends on
    # how new the tables of `regex` and of tiktoken are. Surrogates are no text; test_bpe.py has them.
    characters = []
    while len(characters) < 6:
        highest = generator.choice((0x7F, 0xFF, 0x7FF, 0xFFFF, sys.maxunicode))
        character = chr(generator.randint(0, highest))
        if unicodedata.category(character) not in ("Cn", "Cs"):
            characters.append(character)
    return "".join(characters[: generator.randint(1, 6)])


def _one_of(*strings: str):
    return lambda generator: generator.choice(strings)


def _some_of(characters: str, longest: int):
    return lambda generator: "".join(generator.choices(characters, k=generator.randint(1, longest)))


FRAGMENTS = [
    _random_unicode,
    _random_unicode,
    _some_of("".join(map(chr, [*range(32), 0x7F, *range(0x80, 0xA0)])), 5),  # control characters
    lambda generator: generator.choice("a^ 0\n语e.-\t😀") * generator.randint(1, 400),  # long runs
    _some_of("语言模型从零开始日本語のテキスト한국어", 12),
    _one_of("👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "❤️‍🔥", "☺️", "1️⃣", "😀"),
    _one_of(
        "I'm", "they'll", "'re", "we'VE", "don't", "it's", "'tis", "o'clock", "''s", "’s", "'", "'d've", " 's"
    ),
    _one_of("3.14159", "1,000,000", "²³", "½", "٣٤٥", "０１２", "Ⅷ", "2024-01-02", "1e-5", "0x1F"),
    _some_of(" \t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u2028\u3000", 8),  # white space of all kinds
    _one_of(
        " the",
        " quick",
        " brown",
        "Fox",
        " jumps.",
        " naïve",
        " e\u0301",
        "ﬁ",
        " STRASSE",
        "ß",
        "\ufeff",
        "\ufffd",
    ),
    _one_of(
        "def f(x):\n    return x\n", "<p>", "http://a.b/c?d=e&f", "\\n", "{}[]()", "--", "...", "!?", "$£€"
    ),
    _one_of(END_OF_TEXT, "<|endoftext", "|>", "<|", UNKNOWN),
]


def check_generated(n: int, seed: int, gpt2: BPETokenizer, gpt2_fast: BPETokenizer, reference) -> None:
    generator = random.Random(seed)
    for _ in range(n):
        text = generate_text(generator)
        expected = reference.encode_ordinary(text)
        assert gpt2.encode(text) == expected, ascii(text)
        assert gpt2_fast.encode(text) == expected, ascii(text)
        assert gpt2.decode(expected) == text, ascii(text)


def test_2_000_generated_texts_get_the_ids_of_tiktoken(gpt2, gpt2_fast, reference):
    check_generated(2_000, 0, gpt2, gpt2_fast, reference)


@pytest.mark.slow
def test_100_000_generated_texts_get_the_ids_of_tiktoken(gpt2, gpt2_fast, reference):
    check_generated(100_000, 1, gpt2, gpt2_fast, reference)


def test_allowed_end_of_text_gets_the_ids_of_tiktoken(gpt2, gpt2_fast, reference):
    generator = random.Random(2)
    for _ in range(300):
        text = END_OF_TEXT.join(generate_text(generator) for _ in range(3))
        expected = reference.encode(text, allowed_special={END_OF_TEXT})
        assert gpt2.encode(text, allowed_special={END_OF_TEXT}) == expected
        assert gpt2_fast.encode(text, allowed_special={END_OF_TEXT}) == expected


@pytest.mark.parametrize("character", ["a", *(pytest.param(c, marks=pytest.mark.slow) for c in "^0语")])
def test_a_million_equal_characters_get_the_ids_of_tiktoken(gpt2, reference, character):
    text = character * 1_000_000
    assert gpt2.encode(text) == reference.encode_ordinary(text)


@pytest.mark.parametrize("character", [" ", "\n"])
def test_a_million_spaces_get_the_ids_of_tiktoken(gpt2, gpt2_fast, reference, character):
    # tiktoken itself panics on a million. White space in front of a letter is one piece without its last
    # character, and every token of it is at least as long in a longer run, so tiktoken answers for 50,000.
    assert gpt2.encode(f"a{character * 50_000}b") == reference.encode_ordinary(f"a{character * 50_000}b")
    text = f"a{character * 1_000_000}b"
    ids = gpt2.encode(text)
    assert ids == gpt2_fast.encode(text)
    assert gpt2.decode(ids) == text


def test_each_of_the_50_257_tokens_goes_there_and_back(gpt2, reference):
    assert gpt2.vocab_size == reference.n_vocab == 50257
    for id_ in range(50257):
        data = gpt2.token_bytes(id_)
        assert data == reference.decode_single_token_bytes(id_)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue  # part of a character: no text has these bytes alone
        assert gpt2.encode(text, allowed_special="all") == [id_]


def test_random_ids_decode_as_in_tiktoken(gpt2, reference):
    generator = random.Random(3)
    for _ in range(500):
        ids = [generator.randrange(50257) for _ in range(generator.randint(0, 20))]
        assert gpt2.decode(ids) == reference.decode(ids)
        decoder = gpt2.stream_decoder()
        assert "".join(map(decoder.push, ids)) + decoder.flush() == reference.decode(ids)


# The ids of the next two tests are those printed in the book, chapter 2.


def test_the_books_ids(gpt2):
    text = f"Hello, do you like tea? {END_OF_TEXT} In the sunlit terracesof someunknownPlace."
    assert gpt2.encode(text, allowed_special={END_OF_TEXT}) == [
        *(15496, 11, 466, 345, 588, 8887, 30, 220, 50256, 554, 262, 4252, 18250, 8812, 2114),
        *(1659, 617, 34680, 27271, 13),
    ]
    assert gpt2.encode("Akwirw ier") == [33901, 86, 343, 86, 220, 959]


def test_the_verdict_has_the_number_of_tokens_that_the_book_counts(real_data, gpt2):
    text = (real_data / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    ids = gpt2.encode(text)
    assert len(ids) == 5145
    assert ids[:5] == [40, 367, 2885, 1464, 1807]


# --- tokenizer.json ---


def open_in_hugging_face(tokenizer, tmp_path) -> Tokenizer:
    tokenizer.save(tmp_path / "tokenizer.json")
    return Tokenizer.from_file(str(tmp_path / "tokenizer.json"))


def test_gpt2_saved_by_us_gives_equal_ids_in_hugging_face(gpt2, tmp_path):
    peer = open_in_hugging_face(gpt2, tmp_path)
    assert peer.get_vocab_size() == 50257
    generator = random.Random(4)
    for _ in range(300):
        text = generate_text(generator)  # Hugging Face always takes special tokens out of text
        ids = gpt2.encode(text, allowed_special="all")
        assert peer.encode(text).ids == ids
        assert peer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("pattern", [None, r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"])
def test_a_tokenizer_trained_by_us_gives_equal_ids_in_hugging_face(tiny_corpus, tmp_path, pattern):
    options = {} if pattern is None else {"pattern": pattern}
    tokenizer = train_bpe([tiny_corpus], 320, special_tokens=[END_OF_TEXT, "<|user|>"], **options)
    peer = open_in_hugging_face(tokenizer, tmp_path)
    generator = random.Random(5)
    for _ in range(200):
        text = f"{tiny_corpus[:50]}<|user|>{generate_text(generator)}{END_OF_TEXT}"
        ids = tokenizer.encode(text, allowed_special="all")
        assert peer.encode(text).ids == ids
        assert peer.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)


@pytest.mark.parametrize("first", ["special tokens first", "special tokens last"])
def test_a_file_of_hugging_face_gives_equal_ids_with_us(tiny_corpus, tmp_path, first):
    peer = train_in_hugging_face([tiny_corpus], 330, special_tokens=[END_OF_TEXT] if "first" in first else [])
    peer.decoder = decoders.ByteLevel()
    peer.add_special_tokens([END_OF_TEXT])
    peer.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert ours.special_tokens == {END_OF_TEXT: peer.token_to_id(END_OF_TEXT)}
    fast = load_tokenizer(tmp_path, engine="tiktoken")
    generator = random.Random(6)
    for _ in range(200):
        text = tiny_corpus[:60] + END_OF_TEXT + generate_text(generator)
        ids = peer.encode(text).ids
        assert ours.encode(text, allowed_special="all") == ids
        assert fast.encode(text, allowed_special="all") == ids
        assert ours.decode(ids) == text


@pytest.mark.parametrize("kind", [StrictWordTokenizer, WordTokenizer, LosslessWordTokenizer])
def test_word_tokenizers_give_equal_ids_in_hugging_face(kind, tiny_corpus, tmp_path):
    if kind is LosslessWordTokenizer:
        tokenizer = kind.from_text(tiny_corpus, special_tokens=[END_OF_TEXT])
    else:
        tokenizer = kind(build_vocab(tiny_corpus, special_tokens=[END_OF_TEXT, UNKNOWN]))
    peer = open_in_hugging_face(tokenizer, tmp_path)
    text = f"{tiny_corpus} {END_OF_TEXT} {tiny_corpus}"
    if kind is WordTokenizer:
        text += "a zebra"
    assert peer.encode(text).ids == tokenizer.encode(text, allowed_special=[END_OF_TEXT])


# --- training ---


def train_in_hugging_face(texts, vocab_size, *, special_tokens=(), min_frequency=0) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def merges_of(tokenizer: Tokenizer | BPETokenizer) -> list[tuple[str, str]]:
    if isinstance(tokenizer, BPETokenizer):
        return [(to_symbols(left), to_symbols(right)) for left, right in tokenizer.merges]
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


@pytest.mark.parametrize("min_frequency", [1, 5])
def test_training_on_text_full_of_ties_learns_the_merges_of_hugging_face(tiny_corpus, min_frequency):
    generator = random.Random(7)
    texts = [tiny_corpus, *(generate_text(generator) for _ in range(300))]
    texts = [text.replace(END_OF_TEXT, "") for text in texts]  # we do not learn from it, Hugging Face does
    ours = train_bpe(texts, 1000, min_frequency=min_frequency)
    # Hugging Face numbers special tokens first, we last; the order of ids, hence the tie rule, is the same.
    peer = train_in_hugging_face(texts, 1000, special_tokens=[END_OF_TEXT], min_frequency=min_frequency)
    assert merges_of(ours) == merges_of(peer)


def test_training_on_shakespeare_learns_the_merges_of_hugging_face(real_data):
    text = (real_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    ours = train_bpe([text], 4_096, special_tokens=())
    assert len(ours.merges) == 4_096 - 256
    assert merges_of(ours) == merges_of(train_in_hugging_face([text], 4_096))


@pytest.mark.slow
def test_training_on_each_shared_text_learns_the_merges_of_hugging_face(real_data):
    for name, text in read_texts(real_data).items():
        for vocab_size in (1_000, 4_096):
            ours = train_bpe([text], vocab_size, special_tokens=())
            assert merges_of(ours) == merges_of(train_in_hugging_face([text], vocab_size)), (name, vocab_size)


@pytest.mark.slow
def test_training_on_all_shared_texts_learns_the_merges_of_hugging_face(real_data):
    texts = list(read_texts(real_data).values())
    ours = train_bpe(texts, 4_096, special_tokens=())
    assert merges_of(ours) == merges_of(train_in_hugging_face(texts, 4_096))
