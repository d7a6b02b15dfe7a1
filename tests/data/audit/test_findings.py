import pytest

from scratchlm.data.audit.findings import findings

BARE = {"kind": "classification", "unit": "rows", "rows": 10, "length_unit": "tokens", "splits": []}
BYTES = {"invalid_utf8": 0, "first_invalid": None, "zero": 0, "byte_order_mark": False, "lf": 1, "crlf": 0}
NEAR = {"compared": 10, "repeats_exact": 0, "repeats_not_exact": 0, "conflicts": 0}


def split(**faults):
    return {"splits": [{"path": "a.tsv", "refused": None, "bytes": BYTES | faults}]}


@pytest.mark.parametrize(
    ("more", "level", "words"),
    [
        (
            {"splits": [{"path": "a.tsv", "refused": "it is odd."}]},
            "bad",
            "would stop with an error: it is odd.",
        ),
        (
            split(invalid_utf8=3, first_invalid=1200),
            "bad",
            "3 bytes that are not UTF-8, the first at offset 1,200",
        ),
        (split(zero=2), "bad", "2 zero bytes"),
        (split(byte_order_mark=True), "look", "byte-order mark"),
        (split(crlf=5) | {"kind": "text"}, "look", "1 LF, 5 CRLF"),
        ({"unusable": {"n": 2, "complaints": ["line 3 is odd"]}}, "bad", "2 rows cannot be used"),
        ({"classes": [{"label": "ham"}], "majority": 1.0}, "bad", "All rows have the label 'ham'"),
        (
            {"classes": [{"label": "ham"}, {"label": "spam"}], "majority": 0.866},
            "look",
            "right 86.6% of the time",
        ),
        ({"exact_duplicates": 4, "distinct_texts": 6}, "look", "4 of 10 rows repeat"),
        ({"near_duplicates": NEAR | {"repeats_not_exact": 2}}, "look", "2 more are near-duplicates"),
        ({"near_duplicates": NEAR | {"repeats_not_exact": 2, "compared": 5}}, "look", "among the first 5"),
        ({"near_duplicates": NEAR | {"conflicts": 1}}, "bad", "1 groups of near-duplicates have different"),
        (
            {"kind": "instruction", "near_duplicates": NEAR | {"repeats_exact": 3}},
            "look",
            "3 rows have exactly the same question",
        ),
        (
            {"overlaps": [{"first": "a", "second": "b", "rows": 9, "exact": 1, "near": 2, "compared": 8}]},
            "bad",
            "of the 9 rows in b, 1 are exactly in a, 2 of the 8 compared at least nearly",
        ),
        (
            {
                "truncation": {
                    "longer": 2,
                    "share_longer": 0.2,
                    "context_length": 8,
                    "cut": 5,
                    "share_cut": 0.1,
                }
            },
            "look",
            "2 rows (20.0%) are longer than 8 tokens: 5 of them (10.0%) would be cut off",
        ),
        ({"loss": {"left_out": 3}}, "bad", "3 of 10 entries are left out of training"),
        ({"pairs": {"equal": 1, "chosen_longer": 0}}, "bad", "1 pairs have equal"),
        ({"pairs": {"equal": 0, "chosen_longer": 8}}, "look", "the longer one in 80% of pairs"),
        ({"faults": [{"meaning": "odd signs", "n": 7, "rows": 2}]}, "look", "Odd signs: 7 places in 2 rows"),
        ({"faults": [{"meaning": "odd signs", "n": 1, "rows": 1}]}, "look", "Odd signs: 1 place in 1 row."),
        ({"special_tokens": [{"token": "<s>", "n": 2}]}, "look", "<s> 2 times"),
    ],
)
def test_each_figure_that_matters_becomes_a_sentence(more, level, words):
    (found,) = findings(BARE | more)
    assert found["level"] == level
    assert words in found["text"]


def test_text_that_is_longer_than_a_context_is_no_loss_to_pretraining():
    cut = {"longer": 2, "share_longer": 0.2, "context_length": 8, "cut": 5, "share_cut": 0.1}
    (found,) = findings(BARE | {"kind": "text", "truncation": cut})
    assert "uses all of it" in found["text"]


def test_the_worst_comes_first_and_no_news_is_good_news():
    told = findings(BARE | {"exact_duplicates": 1, "distinct_texts": 9, "loss": {"left_out": 1}})
    assert [finding["level"] for finding in told] == ["bad", "look"]
    assert findings(BARE) == [{"level": "good", "text": "No problems found."}]


def test_line_ends_between_rows_are_nothing_that_a_model_learns():
    assert findings(BARE | split(crlf=5)) == [{"level": "good", "text": "No problems found."}]
