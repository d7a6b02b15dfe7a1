from __future__ import annotations

import pytest

from scratchlm.core.errors import DataError
from scratchlm.data.ag_news import news_item
from scratchlm.data.classification import read_labelled
from scratchlm.data.tables import table_form

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
