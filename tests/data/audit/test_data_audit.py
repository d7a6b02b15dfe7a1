import json

import pytest

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.audit import inspect_data
from scratchlm.data.shards import prepare_tokens
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer


@pytest.fixture(scope="module")
def gpt2(real_data):
    return load_gpt2_tokenizer(real_data / "gpt2_bpe" / "encoder.json", real_data / "gpt2_bpe" / "vocab.bpe")


def test_the_sms_collection_is_as_its_provenance_says(real_data, gpt2):
    path = real_data / "sms_spam_collection" / "SMSSpamCollection"
    figures = inspect_data([path], tokenizer=gpt2, context_length=120)
    assert (figures["kind"], figures["rows"]) == ("classification", 5574)
    assert {row["label"]: row["n"] for row in figures["classes"]} == {"ham": 4827, "spam": 747}
    assert (figures["distinct_texts"], figures["exact_duplicates"]) == (5171, 403)
    assert figures["truncation"]["longer"] == sum(
        len(gpt2.encode(line.split("\t", 1)[1])) > 120
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]
    )
    assert {row["name"] for row in figures["faults"]} == {"html_entity", "c1_control"}
    assert figures["splits"][0]["refused"] is None


def test_the_books_instructions_lose_nothing_and_carry_loss_on_answers(real_data, gpt2):
    figures = inspect_data([real_data / "instruction" / "instruction-data.json"], tokenizer=gpt2)
    assert (figures["kind"], figures["rows"]) == ("instruction", 1100)
    assert figures["part_lengths"]["input"]["histogram"]["counts"][0] == 775  # empty inputs: its provenance
    assert 0 < figures["loss"]["tokens_with_loss"] < figures["loss"]["tokens"]
    assert figures["lengths"]["total"] == figures["loss"]["tokens"] - 1100
    assert figures["exact_duplicates"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_tokens"), [("the-verdict.txt", 5145), ("tinyshakespeare.txt", 338025)])
def test_texts_have_their_known_number_of_gpt2_tokens(real_data, gpt2, name, n_tokens):
    # 5,145: the book, chapter 2. 338,025 = 301,966 + 36,059: nanoGPT, data/shakespeare/readme.md
    figures = inspect_data([real_data / "text" / name], tokenizer=gpt2, context_length=256)
    assert (figures["kind"], figures["unit"]) == ("text", "paragraphs")
    if name == "tinyshakespeare.txt":
        assert (
            abs(figures["splits"][0]["stream"]["tokens"] - n_tokens) <= 1
        )  # cut in two there, at 90% of letters
    else:
        assert figures["splits"][0]["stream"]["tokens"] == n_tokens
    assert figures["windows"] == figures["splits"][0]["stream"]["tokens"] // 256


def test_figures_can_be_written_as_json(tmp_path, tiny_tokenizer):
    path = tmp_path / "a.tsv"
    path.write_text("ham\tone\nspam\ttwo\n")
    for tokenizer in (None, tiny_tokenizer):
        figures = inspect_data([path], tokenizer=tokenizer, context_length=1)
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_without_a_tokenizer_lengths_are_words(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "say it", "output": "yes I do"}\n')
    figures = inspect_data([path])
    assert (figures["length_unit"], figures["tokenizer"], figures["loss"]) == ("words", None, None)
    assert figures["lengths"]["total"] == 5


def test_several_paths_are_splits_that_are_compared(tmp_path):
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    train.write_text("ham\tsee you at six\nspam\twin a prize\n")
    test.write_text("spam\tWIN a prize!\nham\tbye\nham\tsee you at six\n")
    figures = inspect_data([train, test])
    assert (figures["rows"], [split["rows"] for split in figures["splits"]]) == (5, [2, 3])
    assert figures["splits"][1]["classes"] == {"ham": 2, "spam": 1}
    (pair,) = figures["overlaps"]
    assert (pair["exact"], pair["near"]) == (1, 2)
    assert figures["findings"][0]["text"].startswith("Leak")


def test_preference_pairs_are_measured(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"prompt": "Hi", "chosen": "Hello there friend", "rejected": "No"},
        {"prompt": "Bye", "chosen": "same", "rejected": "same"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = inspect_data([path])
    assert figures["kind"] == "preference"
    assert figures["pairs"] == {"chosen_longer": 1, "equal": 1}
    assert figures["lengths"]["max"] == 4
    assert figures["part_lengths"]["rejected"]["total"] == 2


def test_a_file_that_is_not_utf8_is_looked_through_all_the_same(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes("ham\tcafé\nspam\tnow\n".encode("latin-1"))
    figures = inspect_data([path])
    assert figures["rows"] == 2
    assert figures["splits"][0]["bytes"]["first_invalid"] == 7
    assert "is not UTF-8 text" in figures["splits"][0]["refused"]


def test_a_token_folder_is_looked_into(tmp_path, tiny_tokenizer):
    (tmp_path / "a.txt").write_text("The cat sat on the mat. " * 50)
    folder = prepare_tokens(tmp_path / "a.txt", tiny_tokenizer, cache_folder=tmp_path).folder
    figures = inspect_data([folder], context_length=16)
    assert (figures["kind"], figures["rows"]) == ("shards", 1)
    assert json.loads(json.dumps(figures)) == figures
    with pytest.raises(DataError, match="one folder at a time"):
        inspect_data([folder, tmp_path / "a.txt"], kind="shards")


def test_a_kind_that_is_named_is_not_guessed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("ham\tone\nspam\ttwo\n")
    assert inspect_data([path])["kind"] == "classification"
    assert inspect_data([path], kind="text")["kind"] == "text"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"paths": []}, "needs at least one file"),
        ({"context_length": 0}, "context_length must be at least 1"),
        ({"most_compared": -1}, "most_compared must be at least 0"),
        ({"template_name": "alpca"}, "template must be one of"),
        ({"kind": "poem"}, "kind must be auto or one of"),
    ],
)
def test_settings_that_mean_nothing_are_errors(tmp_path, settings, complaint):
    path = tmp_path / "a.txt"
    path.write_text("one")
    with pytest.raises(ConfigError, match=complaint):
        inspect_data(**{"paths": [path]} | settings)


def test_splits_of_two_kinds_missing_files_and_empty_ones_are_errors(tmp_path):
    (tmp_path / "a.txt").write_text("a story")
    (tmp_path / "b.tsv").write_text("no tab\n")
    with pytest.raises(DataError, match="all splits must be of one kind, got text in"):
        inspect_data([tmp_path / "a.txt", tmp_path / "b.tsv"])
    with pytest.raises(DataError, match=r"line 1 must be label<TAB>text, but .* has no tab"):
        inspect_data([tmp_path / "b.tsv"])
    with pytest.raises(DataError, match="does not exist"):
        inspect_data([tmp_path / "none.txt"])
