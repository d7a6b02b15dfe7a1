"""`tokenizer compare`: the same text beside itself, with the figures of each tokenizer."""

from __future__ import annotations


def test_each_row_has_the_tokenizers_measures(life, run, run_json):
    text = "The cat sat on the mat, été"
    words = ("tokenizer compare", text, "--tokenizers", "word", life["base"])
    rows = run_json(*words)["tokenizers"]
    assert [row["words_kept"] == 1 for row in rows] == [True, True]
    for row in rows:
        assert row["fertility"] == row["n_tokens"] / 7
        assert row["bytes_per_token"] == 29 / row["n_tokens"]
        assert 0 < row["vocabulary_used"] <= 1
    code, out, _ = run(*words)
    assert code == 0
    assert "tokens per word" in out


def test_a_vocabulary_of_words_loses_white_space(life, run_json):
    (row,) = run_json("tokenizer compare", "a  b\n\nc", "--tokenizers", "word")["tokenizers"]
    assert (row["words_kept"], row["round_trip"]) == (1, False)
    assert row["characters_kept"] < 1


def test_an_empty_text_is_an_error(life, run):
    code, _, err = run("tokenizer compare", "", "--tokenizers", life["base"])
    assert (code, "empty" in err) == (3, True)
