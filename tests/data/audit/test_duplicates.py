from scratchlm.data.audit import duplicates
from scratchlm.data.audit.duplicates import Duplicates


def collected(splits: dict[str, list[str]], *, labels=None, most_compared=1000) -> dict:
    found = Duplicates(list(splits), most_compared=most_compared)
    for number, texts in enumerate(splits.values()):
        for i, text in enumerate(texts):
            found.add(number, text, key=text, label=labels[i] if labels else "")
    return found.figures()


def test_exact_and_near_repeats_are_told_apart():
    figures = collected({"a": ["Call 123 now", "Call 123 now", "call 45 NOW!", "See you at six"]})
    assert (figures["distinct_texts"], figures["exact_duplicates"]) == (3, 1)
    near = figures["near_duplicates"]
    assert (near["groups"], near["repeats"]) == (2, 2)
    assert (near["repeats_exact"], near["repeats_not_exact"]) == (1, 1)
    assert near["largest"] == [{"n": 3, "spellings": 2, "text": "Call 123 now"}]


def test_copies_with_different_labels_are_conflicts():
    figures = collected({"a": ["Win!", "win", "hello there"]}, labels=["ham", "spam", "ham"])
    near = figures["near_duplicates"]
    assert near["conflicts"] == 1
    assert near["conflict_examples"] == [{"text": "Win!", "labels": ["ham", "spam"]}]


def test_a_leak_is_counted_in_rows_of_the_later_split():
    splits = {"train": ["one fish", "two fish", "red"], "test": ["ONE fish!", "two fish", "two fish", "blue"]}
    (pair,) = collected(splits)["overlaps"]
    assert (pair["first"], pair["second"], pair["rows"]) == ("train", "test", 4)
    assert (pair["exact"], pair["near"], pair["compared"]) == (2, 3, 4)
    assert pair["examples"] == ["ONE fish!", "two fish"]


def test_every_pair_of_splits_is_compared():
    pairs = collected({"a": ["x y z"], "b": ["p q r"], "c": ["x y z"]})["overlaps"]
    assert [(pair["first"], pair["second"], pair["exact"]) for pair in pairs] == [
        ("a", "b", 0),
        ("a", "c", 1),
        ("b", "c", 0),
    ]


def test_beyond_the_limit_only_exact_copies_are_found_and_this_is_told():
    figures = collected({"a": ["one", "two", "three", "one"]}, most_compared=2)
    assert figures["exact_duplicates"] == 1
    assert figures["near_duplicates"]["compared"] == 2
    figures = collected({"a": ["one", "one"]}, most_compared=0)
    assert (figures["exact_duplicates"], figures["near_duplicates"]) == (1, None)


def test_the_texts_compared_are_bounded_in_letters_too(monkeypatch):
    monkeypatch.setattr(duplicates, "MAX_CHARS", 10)
    assert collected({"a": ["123456", "abcdef", "xyz"]})["near_duplicates"]["compared"] == 2


def test_what_must_not_stand_on_two_sides_is_the_key():
    found = Duplicates(["train", "test"], most_compared=10)
    found.add(0, "question answer one", key="question")
    found.add(1, "question answer two", key="question")
    figures = found.figures()
    assert (figures["exact_duplicates"], figures["overlaps"][0]["exact"]) == (0, 1)


def test_nothing_collected_is_nothing_found():
    assert Duplicates(["a"], most_compared=5).figures()["distinct_texts"] == 0
