import hashlib
import re
from collections import Counter

import pytest

from scratchlm.data.near_duplicates import fold_text
from scratchlm.data.samples.message_texts import labelled_messages
from scratchlm.data.samples.messages import sample_messages


@pytest.fixture(scope="module")
def messages():
    return sample_messages(seed=0)


def test_seed_zero_gives_the_same_bytes_on_every_python():
    text = "\0".join(f"{label}\t{message}" for message, label in labelled_messages(0))
    # Made by this generator and compared by hand on Python 3.10 to 3.13; any edit of a sheet changes it.
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "836b246258a74533e172733412cb3f4ea4bc0ba87f9ad0883b63619e52524249"
    )


def test_there_are_a_thousand_ham_and_six_hundred_spam(messages):
    assert Counter(message.label for message in messages) == {"ham": 1000, "spam": 600}


def test_the_order_mixes_the_classes(messages):
    halves = [sum(m.label == "spam" for m in half) for half in (messages[:800], messages[800:])]
    assert min(halves) > 250


def test_no_message_comes_twice_and_few_differ_only_in_digits(messages):
    texts = [message.text for message in messages]
    assert len(set(texts)) == len(texts)
    assert len({fold_text(text) for text in texts}) > 0.98 * len(texts)


def test_messages_are_short_single_lines(messages):
    for message in messages:
        assert "\n" not in message.text
        assert "\t" not in message.text
        assert 1 <= len(message.text) <= 180
        assert not re.search(r"  |[{}]", message.text)


def test_no_single_word_sorts_out_the_spam(messages):
    is_spam = [message.label == "spam" for message in messages]
    words = [set(re.findall(r"[^\s]+|\w+", message.text.lower())) for message in messages]
    best = max(
        sum((word in found) == spam for found, spam in zip(words, is_spam, strict=True))
        for word in set().union(*words)
    )
    assert best / len(messages) < 0.8  # always saying ham scores 0.625


@pytest.mark.parametrize(
    "word", ["free", "win", "won", "prize", "urgent", "bank", "parcel", "call", "claim", "text"]
)
def test_words_that_smell_of_spam_occur_in_ham_too(messages, word):
    labels = {m.label for m in messages if re.search(rf"\b{word}\b", m.text, re.IGNORECASE)}
    assert "ham" in labels


@pytest.mark.parametrize("feature", [r"\d", r"\.example", r"!", r"£", r"555", r"\b[A-Z]{4,}\b"])
def test_both_classes_have_digits_links_prices_and_shouting(messages, feature):
    counts = Counter(message.label for message in messages if re.search(feature, message.text))
    assert counts["ham"] > 5
    assert counts["spam"] > 5


def test_links_and_telephone_numbers_are_the_ones_kept_free_for_examples(messages):
    for message in messages:
        for link in re.findall(r"\b[\w-]+(?:\.[\w-]+)+\b", message.text.lower()):
            is_number = re.fullmatch(r"[\d.]+(p|am|pm|kg)?", link)
            # A sentence end whose space was lost never occurs: every dot inside a word belongs to a link.
            assert is_number or "example" in link.split("."), (link, message.text)
        for number in re.findall(r"\d{7,}|\d{3}[ -]\d{4}|\d{3} \d{3} \d+", message.text):
            assert "555" in number, message.text


def test_other_seeds_give_other_messages(messages):
    assert {m.text for m in sample_messages(seed=1)} != {m.text for m in messages}
