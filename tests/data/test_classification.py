import numpy as np
import pytest

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.classification_batches import ClassificationExamples
from scratchlm.data.classification_rows import LabelledText, read_labelled
from scratchlm.data.label_split import class_counts
from scratchlm.data.loaders import BatchLoader

EXPECTED = [LabelledText(text='He said "go, now', label="ham"), LabelledText(text="WIN £1,000", label="spam")]
CONTENTS = {
    "a.tsv": 'ham\tHe said "go, now\nspam\tWIN £1,000\n',
    "crlf.tsv": 'ham\tHe said "go, now\r\nspam\tWIN £1,000\r\n',
    "header.tsv": 'Label\tText\nham\tHe said "go, now\nspam\tWIN £1,000',
    "swapped.tsv": 'text\tlabel\nHe said "go, now\tham\nWIN £1,000\tspam\n',
    "SMSSpamCollection": 'ham\tHe said "go, now\nspam\tWIN £1,000\n',
    "a.csv": '\ufeffLABEL,id,Text\nham,1,"He said ""go, now"\nspam,2,"WIN £1,000"\n\n',
    "a.jsonl": '{"text": "He said \\"go, now", "label": "ham"}\n\n{"label": "spam", "text": "WIN £1,000"}\n',
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_form_gives_the_same_rows(tmp_path, name):
    (tmp_path / name).write_bytes(CONTENTS[name].encode())
    assert read_labelled(tmp_path / name) == EXPECTED


def test_several_files_are_read_one_after_the_other(tmp_path):
    for name in ("a.tsv", "a.csv"):
        (tmp_path / name).write_bytes(CONTENTS[name].encode())
    assert read_labelled([tmp_path / "a.csv", tmp_path / "a.tsv"]) == EXPECTED * 2


def test_a_csv_text_may_hold_line_ends_and_numbered_classes_become_names(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",0\n')
    assert read_labelled(tmp_path / "a.csv") == [LabelledText(text="two\nlines", label="0")]
    (tmp_path / "a.jsonl").write_text('{"text": "one", "label": 1}')
    assert read_labelled(tmp_path / "a.jsonl") == [LabelledText(text="one", label="1")]


def test_a_further_tab_and_odd_line_separators_belong_to_the_text(tmp_path):
    (tmp_path / "a.tsv").write_text("ham\ta\tb\u2028c\x85d\n", encoding="utf-8")
    assert read_labelled(tmp_path / "a.tsv") == [LabelledText(text="a\tb\u2028c\x85d", label="ham")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "ham\tok\nno tab here\n", "line 2 must be label<TAB>text, but 'no tab here' has no tab"),
        ("a.tsv", "ham\tok\n\nspam\tno\n", "line 2 must be label<TAB>text"),
        ("a.tsv", "ham\tok\nspam\t \n", "line 2 has an empty text"),
        ("a.tsv", "ham\tok\n\twin\n", "line 2 has an empty label"),
        ("a.tsv", "", "has no labelled texts"),
        ("a.tsv", "label\ttext\n", "has no labelled texts"),
        ("book.txt", "Once upon a time\nthere was\n", "line 1 must be label<TAB>text"),
        (
            "a.csv",
            "words,label\nok,b\n",
            "line 2 must have one column for the text, got 'words', 'label'; name",
        ),
        (
            "a.csv",
            "text,kind\nok,b\n",
            "line 2 must have one column for the label, got 'text', 'kind'; name it",
        ),
        (
            "a.csv",
            "review,sms,label\nok,c,b\n",
            "must have one column for the text, got 'sms', 'review'; name it",
        ),
        ("a.csv", "text,label,label\nok,b,c\n", "must have differently named columns, got 'label' twice"),
        ("a.csv", "", "has no labelled texts"),
        ("a.csv", "text,label\na,b\na,b,c\n", "line 3 must have 2 cells as the header has, got 3"),
        ("a.csv", 'text,label\n"a"b,c\n', "line 2 must be well-formed CSV"),
        ("a.csv", 'text,label\n"a,b\n', "must be well-formed CSV"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text"', "line 2 is not valid JSON"),
        (
            "a.jsonl",
            '{"text": "a", "kind": "b"}\n',
            "line 1 must have one column for the label, got 'text', 'kind'",
        ),
        ("a.jsonl", '{"text": "a", "label": null}\n', "line 1 has None as its label"),
        ("a.jsonl", '{"text": "a", "label": NaN}\n', "line 1 has None as its label"),
        ("a.jsonl", '{"text": "a", "label": ["b"]}\n', "line 1 has \\['b'\\] as its label"),
        ("a.jsonl", '{"text": "a", "label": "b", "label": "c"}\n', "has the key 'label' twice"),
        ("a.jsonl", '{"text": "a\\u0000", "label": "b"}\n', "line 1, text, holds a NUL character"),
        ("a.jsonl", "7\n", "line 1 must be a JSON object, got int"),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_labelled(tmp_path / name)
    assert name in str(caught.value)


def test_bytes_that_are_not_utf8_and_missing_files_are_named(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"ham\tf\xfcr dich\n")
    with pytest.raises(DataError, match="byte offset 5"):
        read_labelled(tmp_path / "a.tsv")
    with pytest.raises(DataError, match="No such file"):
        read_labelled(tmp_path / "b.tsv")
    with pytest.raises(DataError, match="at least one file, got none"):
        read_labelled([])


def test_the_sms_collection_has_5574_rows(real_data):
    rows = read_labelled(real_data / "sms_spam_collection" / "SMSSpamCollection")
    assert len(rows) == 5574  # UCI data set 228, quoting off; a CSV reader finds 5,572
    assert class_counts([row.label for row in rows]) == {"ham": 4827, "spam": 747}
    assert len(set(rows)) == 5171


TEXTS = ["abc", "hello", "x"]
LABELS = ["spam", "ham", "spam"]


def test_a_batch_is_padded_on_the_right_and_masked(byte_tokenizer):
    examples = ClassificationExamples.from_texts(TEXTS, LABELS, byte_tokenizer)
    assert examples.classes == ("ham", "spam")
    assert examples.lengths.tolist() == [3, 5, 1]
    batch = examples.batch(np.array([2, 0]))
    assert batch.inputs.tolist() == [[120, 256, 256], [97, 98, 99]]
    assert batch.targets.tolist() == [1, 1]
    assert batch.attention_mask.tolist() == [[True, False, False], [True, True, True]]
    assert (batch.n_targets, batch.n_tokens) == (2, 4)


def test_long_texts_lose_their_end_and_are_counted(byte_tokenizer):
    first = ClassificationExamples.from_texts(TEXTS, LABELS, byte_tokenizer, max_length=2)
    assert first.n_truncated == 2
    assert first.batch([0, 1]).inputs.tolist() == [list(b"ab"), list(b"he")]


def test_every_batch_may_have_the_same_width(byte_tokenizer):
    examples = ClassificationExamples.from_texts(TEXTS, LABELS, byte_tokenizer, pad_to=7)
    assert examples.batch([2]).inputs.shape == examples.batch([1]).attention_mask.shape == (1, 7)
    with pytest.raises(ConfigError, match="got 4 for 5 tokens"):
        ClassificationExamples.from_texts(TEXTS, LABELS, byte_tokenizer, pad_to=4)


def test_the_classes_order_may_be_given_as_for_validation_data(byte_tokenizer):
    examples = ClassificationExamples.from_texts(
        ["a"], ["spam"], byte_tokenizer, classes=("spam", "ham", "unsure")
    )
    assert examples.batch([0]).targets.tolist() == [0]


def test_user_text_never_becomes_a_special_token(byte_tokenizer):
    examples = ClassificationExamples.from_texts(["<|endoftext|>", "b"], ["x", "y"], byte_tokenizer)
    assert 256 not in examples.batch([0]).inputs


def test_examples_go_through_a_loader_by_length(byte_tokenizer):
    texts = ["a" * (1 + i * 7 % 10) for i in range(20)]
    examples = ClassificationExamples.from_texts(texts, ["x", "y"] * 10, byte_tokenizer)
    loader = BatchLoader(examples, batch_size=4, bucket_by_length=True)
    assert sum(batch.n_tokens for batch in loader) == sum(map(len, texts))


@pytest.mark.parametrize(
    ("texts", "labels", "settings", "message"),
    [
        ([], [], {}, "no texts for the classifier"),
        (["a", "b"], ["x", "x"], {}, "at least 2 classes, got 'x'"),
        (["a", "  "], ["x", "y"], {}, "text 1 is empty"),
        (
            ["a", "b"],
            ["x", "z"],
            {"classes": ("x", "y")},
            "text 1 has the label 'z', which is not among 'x', 'y'",
        ),
        (["a", "b"], ["x"], {"classes": ("x", "y")}, "got 2 texts and 1 labels"),
    ],
)
def test_texts_that_no_classifier_can_learn_from_are_refused(
    byte_tokenizer, texts, labels, settings, message
):
    with pytest.raises(DataError, match=message):
        ClassificationExamples.from_texts(texts, labels, byte_tokenizer, **settings)


def test_ids_and_numbers_are_checked_too():
    with pytest.raises(DataError, match=r"text 1 has class 2, but classes are numbered 0 to 1"):
        ClassificationExamples([[1], [3]], [1, 2], pad_id=0, classes=("a", "b"))
    with pytest.raises(DataError, match="text 0 has no tokens"):
        ClassificationExamples([[], [3]], [1, 0], pad_id=0, classes=("a", "b"))
    with pytest.raises(ConfigError, match="max_length must be at least 1"):
        ClassificationExamples([[1], [3]], [1, 0], pad_id=0, classes=("a", "b"), max_length=0)


@pytest.mark.parametrize(
    "row", ['{"text": "a \\ud800 b", "label": "ham"}', '{"text": "a", "label": "\\udfff"}']
)
def test_half_a_surrogate_pair_is_named_by_file_and_line(tmp_path, row):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine", "label": "ham"}\n' + row)
    with pytest.raises(DataError, match=r"rows.jsonl line 2, (text|label), is not valid Unicode: a lone"):
        read_labelled(path)


def test_folders_and_globs_stand_for_their_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.tsv").write_text("ham\tone\n")
    (tmp_path / "deep" / "b.csv").write_text("label,text\nspam,two\n")
    (tmp_path / "readme.md").write_text("no rows here")
    assert [row.text for row in read_labelled(tmp_path)] == ["one", "two"]
    assert [row.text for row in read_labelled(tmp_path / "*.tsv")] == ["one"]
    assert [row.text for row in read_labelled(str(tmp_path / "**" / "*"))] == ["one", "two"]
    with pytest.raises(DataError, match=r"has no file that ends in .tsv, .csv, .jsonl"):
        read_labelled(tmp_path / "*.md")
