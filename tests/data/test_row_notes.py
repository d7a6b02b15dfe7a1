from __future__ import annotations

import logging

from scratchlm.data.row_notes import RowNotes


def test_rows_are_counted_once_for_each_reason_and_the_first_is_named():
    notes = RowNotes()
    for where in ("line 2", "line 2", "line 5"):
        notes.add("an answer is empty", where=where)
    notes.add("a request is empty", where="line 5")
    assert notes.sentences() == [
        "In 2 rows an answer is empty (the first: line 2).",
        "In 1 row a request is empty (line 5).",
    ]


def test_unused_fields_are_named_once(caplog):
    notes = RowNotes()
    notes.leave_unused(["id", "source"])
    notes.leave_unused(["source", "url"])
    with caplog.at_level(logging.WARNING):
        notes.log()
    assert caplog.messages == ["Fields not used: id, source, url."]
