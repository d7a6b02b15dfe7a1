"""`tokenizer compare`: the same text beside itself, with the figures of each tokenizer."""


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


def test_a_text_without_tokens_has_no_bytes_per_token(run, run_json):
    words = ("tokenizer compare", "  ", "--tokenizers", "word")
    (row,) = run_json(*words)["tokenizers"]
    assert (row["n_tokens"], row["n_used"], row["bytes_per_token"]) == (0, 0, None)
    assert (
        "word: 0 tokens, lossy (decoding does not restore the text)\n  0 of 2 entries used" in run(*words)[1]
    )


def test_tokens_stay_in_one_line_and_long_texts_are_cut(run, run_json):
    words = ("tokenizer compare", "a\n\x1b[31m b" + " c" * 300, "--tokenizers", "lossless-word")
    code, out, _ = run(*words)
    assert code == 0
    assert "\x1b" not in out
    tokens = out.splitlines()[-1]
    assert tokens.startswith("  a|\\n|")
    n_tokens = len(run_json(*words)["tokenizers"][0]["tokens"])
    assert n_tokens > 600
    assert tokens.endswith(f"... and {n_tokens - 200} more")
