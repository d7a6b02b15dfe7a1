"""Finding added tokens in text: which count, and what they take in; test_huggingface_json.py compares the ids."""

from scratchlm.tokenizers.added_tokens import AddedToken, AddedTokenFinder
from scratchlm.tokenizers.normalizers import Lowercase

THINK = AddedToken(content="<think>", id=1)
END = AddedToken(content="<end>", id=2, special=True)


def parts(text, *tokens, allowed=(), normalizers=()):
    return list(AddedTokenFinder(tokens, normalizers).parts(text, allowed))


def test_a_word_is_found_and_a_special_token_only_when_it_is_allowed():
    assert parts("a<think>b<end>", THINK, END) == [("a", None), ("<think>", 1), ("b<end>", None)]
    assert parts("b<end>", THINK, END, allowed={"<end>"}) == [("b", None), ("<end>", 2)]


def test_the_longest_of_several_counts():
    longer = AddedToken(content="<think>er", id=3)
    assert parts("<think>er<think>", THINK, longer) == [("<think>er", 3), ("<think>", 1)]


def test_a_special_token_that_is_not_allowed_hides_what_is_in_it():
    inner = AddedToken(content="end", id=3)
    assert parts("<end> end", END, inner) == [("<end> ", None), ("end", 3)]


def test_a_single_word_stands_alone():
    word = AddedToken(content="cat", id=3, single_word=True)
    assert parts("cat, cats, 1cat cat_", word) == [("cat", 3), (", cats, 1cat cat_", None)]


def test_white_space_beside_it_is_taken_in_once():
    left, right = AddedToken(content="<l>", id=3, lstrip=True), AddedToken(content="<r>", id=4, rstrip=True)
    assert parts("a \t<l> <r>\n b", left, right) == [
        ("a", None),
        (" \t<l>", 3),
        (" ", None),
        ("<r>\n ", 4),
        ("b", None),
    ]
    assert parts("<r> <l>", left, right) == [("<r> ", 4), ("<l>", 3)]


def test_a_normalized_one_is_looked_for_in_the_normalized_text():
    raw, later = AddedToken(content="Cat", id=3), AddedToken(content="Dog", id=4, normalized=True)
    found = parts("Cat cat DOG", raw, later, normalizers=[Lowercase()])
    assert found == [("Cat", 3), (" cat ", None), ("dog", 4)]


def test_a_thousand_tokens_in_a_long_text_take_no_long_time():
    tokens = [AddedToken(content=f"<|reserved_{i}|>", id=i) for i in range(1000)]
    text = "some words and <|no token|> " * 20_000
    assert parts(text + "<|reserved_7|>", *tokens)[-1] == ("<|reserved_7|>", 7)
