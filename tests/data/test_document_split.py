import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, DataError
from tests.data.text_split import split_texts

fractions = st.floats(min_value=0.01, max_value=0.99)


@given(st.text(min_size=2), fractions)
def test_one_document_is_cut_at_a_character_into_two_sides_that_join_to_it(text, fraction):
    cut = int(len(text) * (1 - fraction))
    if cut == 0:
        with pytest.raises(DataError, match="characters on both sides"):
            split_texts([text], val_fraction=fraction)
        return
    train, val = split_texts([text], val_fraction=fraction)
    assert train == [text[:cut]]
    assert val == [text[cut:]]


@given(st.lists(st.text(min_size=1), min_size=2, unique=True), fractions)
def test_whole_documents_land_on_exactly_one_side_in_their_order(texts, fraction):
    train, val = split_texts(texts, val_fraction=fraction)
    assert train
    assert val
    assert sorted(train + val) == sorted(texts)
    for side in (train, val):
        places = [texts.index(text) for text in side]
        assert places == sorted(places)


@given(st.lists(st.text(min_size=1), min_size=3), fractions)
def test_a_tail_over_several_documents_joins_to_the_whole(texts, fraction):
    whole = "".join(texts)
    cut = int(len(whole) * (1 - fraction))
    if cut == 0:
        return
    train, val = split_texts(texts, val_fraction=fraction, split_by="tail")
    assert "".join(train) == whole[:cut]
    assert "".join(val) == whole[cut:]


def test_adding_documents_moves_none_of_the_others():
    texts = [f"story number {i}" for i in range(200)]
    _, val = split_texts(texts)
    assert 10 <= len(val) <= 30
    _, val_of_more = split_texts(["a new one", *texts, "another"])
    assert set(val) == set(val_of_more) & set(texts)


def test_equal_documents_share_a_side():
    texts = [f"story {i % 50}" for i in range(200)]
    train, val = split_texts(texts)
    assert not set(train) & set(val)


def test_a_few_documents_never_leave_most_of_the_text_to_validation():
    for number in range(50):
        train, val = split_texts([f"{number} large" * 100, f"{number} small"])
        assert val == [f"{number} small"]
        assert train


def test_equal_documents_only_are_an_error():
    with pytest.raises(DataError, match="2 different documents, got 3 equal ones"):
        split_texts(["same", "same", "same"])


@pytest.mark.parametrize("fraction", [1.0, -0.1, 2.0])
def test_a_fraction_that_leaves_a_side_empty_is_refused(fraction):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_texts(["ab"], val_fraction=fraction)


def test_unknown_ways_and_single_documents_are_refused():
    with pytest.raises(ConfigError, match="auto, document or tail, got 'random'"):
        split_texts(["a", "b"], split_by="random")
    with pytest.raises(DataError, match="at least 2 documents, got 1"):
        split_texts(["a"], split_by="document")
