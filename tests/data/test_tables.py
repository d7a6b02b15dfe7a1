import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.tables import news_item, table_form, table_rows


def rows_of(content: str, **how) -> list[dict[str, str]]:
    found = [row for row, _ in table_rows(content, path="a", **how)]
    assert not any(isinstance(row, DataError) for row in found), found
    return found


def written(rows, *, delimiter: str, quoting: int = csv.QUOTE_MINIMAL, end: str = "\r\n") -> str:
    held = io.StringIO(newline="")
    csv.writer(held, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    return held.getvalue()


cells = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\",;|\t\n\r 'a"), max_size=12
)
texts = st.builds(lambda word, rest: word + rest, st.sampled_from(["win", "see", '"go', "a,b", "x;y"]), cells)


@given(
    st.lists(st.tuples(st.sampled_from(["ham", "spam"]), texts, cells), min_size=1, max_size=8),
    st.sampled_from(",;|\t"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_pythons_csv_writes_is_read_back(rows, delimiter, quoting, end, has_third):
    if (
        end == "\n"
    ):  # before Python 3.13 the writer leaves \r bare then, and no reader knows it from a line end
        rows = [tuple(cell.replace("\r", "") for cell in row) for row in rows]
    names = ("label", "text", "note")[: 2 + has_third]
    content = written(
        [names, *(row[: 2 + has_third] for row in rows)], delimiter=delimiter, quoting=quoting, end=end
    )
    inner = [text.split("\n")[1:] for row in rows for text in row[1 : 2 + has_third] if '"' not in text]
    if delimiter == "\t" and any(
        lines and all(line.count("\t") == 1 + has_third for line in lines) for lines in inner
    ):
        return  # the lines inside of a cell look like rows of a table without quoting
    assert rows_of(content) == [dict(zip(names, row)) for row in rows]


one_line = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\t"), min_size=1, max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["ham", "spam"]), one_line), min_size=2, max_size=9))
@example([("ham", '"quoted" at the start'), ("spam", 'and "inside" it')])
@example([("ham", '"all of it"'), ("spam", "none of it")])
@example([("ham", '"'), ("spam", '"')])
def test_quote_marks_of_a_plain_tab_table_are_text(rows):
    content = "".join(f"{label}\t{text}\n" for label, text in [*rows, ("ham", "a plain one")])
    if '""' in content:
        return  # doubled ones may be those of a CSV writer
    assert [row["text"] for row in rows_of(content)] == [text for _, text in rows] + ["a plain one"]


BODIES = ("see you, at six", "WIN a prize; now", "ok then", "call me | please", "a fifth one", "and the last")
LABELS = ("ham", "spam", "ham", "ham", "spam", "ham")


@pytest.mark.parametrize("delimiter", "\t,;|", ids=["tab", "comma", "semicolon", "bar"])
@pytest.mark.parametrize(
    ("header", "order"),
    [
        (("label", "text"), "lt"), (("text", "label"), "tl"), (("v1", "v2"), "lt"), (("Category", "Message"), "lt"),
        (("sentence", "label"), "tl"), (("id", "LABEL", " Text "), "ilt"), (("label", "text", "source"), "lti"),
        (("", "class", "content"), "ilt"), ((), "lt"), ((), "tl"), ((), "ilt"), ((), "itl"),
    ],
)  # fmt: skip
def test_delimiter_and_header_are_recognised(delimiter, header, order):
    columns = {"l": LABELS, "t": BODIES, "i": [f"{n}" for n in range(6)]}
    rows = list(zip(*(columns[name] for name in order)))
    content = written([header, *rows] if header else rows, delimiter=delimiter)
    form = table_form(content)
    assert (form.delimiter, form.has_header) == (delimiter, bool(header))
    names = [name.strip() or str(i) for i, name in enumerate(header, start=1)] or [
        {"l": "label", "t": "text", "i": str(i)}[name] for i, name in enumerate(order, start=1)
    ]
    assert rows_of(content) == [dict(zip(names, row)) for row in rows]


@pytest.mark.parametrize("delimiter", ["^", ";", "\t"])
def test_excels_line_with_the_delimiter_is_no_row(delimiter):
    content = f"sep={delimiter}\r\nlabel{delimiter}text\r\nham{delimiter}a, b\r\n"
    [(row, where)] = table_rows(content, path="a.csv")
    assert (row, where) == ({"label": "ham", "text": "a, b"}, "a.csv line 3")


def test_cola_as_published_is_known():
    rows = [("gj04", "1", "", "Our friends won't buy this."), ("gj04", "0", "*", "They drank the pub.")] * 3
    content = "".join("\t".join(row) + "\n" for row in rows)
    assert [(row["label"], row["text"]) for row in rows_of(content)] == [(row[1], row[3]) for row in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_lines_may_end_as_on_old_macintoshes(delimiter, quoting):
    rows = [("label", "text"), *zip(LABELS, BODIES)]
    content = written(rows, delimiter=delimiter, quoting=quoting, end="\r")
    assert [(row["label"], row["text"]) for row in rows_of(content)] == rows[1:]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fasttext_lines_are_known(end):
    rows = [("spam", 'say "win", now'), ("ham", "see you\tat six")] * 3
    content = "".join(f"__label__{label} {text}{end}" for label, text in rows)
    assert [(row["label"], row["text"]) for row in rows_of(content)] == rows


def test_a_fasttext_line_with_two_labels_is_refused_with_its_number():
    with pytest.raises(DataError, match="a line 2 has several labels"):
        rows_of("__label__a one text\n__label__a __label__b another\n")


def test_a_first_row_of_unknown_names_is_a_header_when_the_rows_below_say_so():
    rows = [("mood", "utterance"), *zip(LABELS, BODIES)]
    form = table_form(written(rows, delimiter=","))
    assert (form.names, form.has_header) == (("mood", "utterance"), True)
    assert not table_form(written(rows[1:], delimiter=",")).has_header


def test_a_label_that_occurs_once_is_no_header():
    form = table_form("unsure\tis this one or not\n" + "".join(f"{a}\t{b}\n" for a, b in zip(LABELS, BODIES)))
    assert not form.has_header


def test_named_fields_make_the_first_row_a_header_and_a_delimiter_may_be_named():
    content = "a b;c d\nham;hi you, there\n"
    assert rows_of(content, fields=["a b"]) == [{"a b": "ham", "c d": "hi you, there"}]
    assert rows_of("x^y\nham^hi, you\n", fields=["x"], delimiter="^") == [{"x": "ham", "y": "hi, you"}]
    assert rows_of("label,text\tnot\nham,a\tb\n", delimiter=",") == [{"label": "ham", "text\tnot": "a\tb"}]
    assert table_form("ham\thi\n", delimiter="tab").delimiter == "\t"
    with pytest.raises(ConfigError, match="one character, or the word tab, got '::'"):
        table_form("a::b", delimiter="::")


def test_a_field_may_be_longer_than_pythons_own_limit():
    long = "word " * 100_000
    assert rows_of(written([("label", "text"), ("ham", long)], delimiter=",")) == [
        {"label": "ham", "text": long}
    ]


def test_a_table_of_one_column_is_one():
    assert rows_of('text\n"one, two"\nthree\n') == [{"text": "one, two"}, {"text": "three"}]


def test_bad_rows_keep_their_line_and_the_others_still_come():
    found = list(table_rows('label,text\nham,"two\nlines"\nspam\nham,ok\n', path="a.csv"))
    assert [where for _, where in found] == ["a.csv line 3", "a.csv line 4", "a.csv line 5"]
    assert "must be label,text, but 'spam' has no ','" in str(found[1][0])


# The published form: every cell quoted, no header, a quote doubled, a backslash for a lost line end.
NEWS = (
    '"3","Wall St. Bears Claw Back Into the Black (Reuters)","Reuters - Short-sellers are ""seeing green"" again."\n'
    '"4","Comets, Asteroids and Planets","A dusty disc\\near a star, astronomers say."\n'
    '"1","Venezuelans Vote","CARACAS &lt;AP&gt;"\n"2","Phelps","Gold"\n'
)


def test_rows_are_title_and_description_with_their_topics_name(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(NEWS)
    rows = read_labelled(path)
    assert [row.label for row in rows] == ["Business", "Sci/Tech", "World", "Sports"]
    assert rows[0].text.endswith('(Reuters) Reuters - Short-sellers are "seeing green" again.')
    assert rows[1].text == "Comets, Asteroids and Planets A dusty disc\\near a star, astronomers say."


def test_a_csv_with_a_header_is_none(tmp_path):
    assert table_form(NEWS).is_news
    assert not any(table_form(other).is_news for other in ("label,title,text\n1,a,b\n", '"7","a","b"', ""))
    assert news_item(["5", "a", "b"]) is None


@pytest.mark.parametrize("bad", ['"5","no such topic","x"', '"1","two cells"', '"1","open quote,x'])
def test_a_bad_row_is_an_error_with_its_line(tmp_path, bad):
    path = tmp_path / "train.csv"
    path.write_text(f"{NEWS}{bad}\n")
    with pytest.raises(DataError, match=r"train\.csv line [56] must be"):
        read_labelled(path)
