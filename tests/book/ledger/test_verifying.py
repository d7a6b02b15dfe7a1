"""Every entry of the ledger can be recomputed, and what agrees here agrees for a reason."""

import json

import pytest
import torch

from scratchlm.assets.file_structure import TABLE_MAGIC
from scratchlm.book.ledger import verifying
from scratchlm.book.ledger.table import Entry, read_table
from scratchlm.book.ledger.verifying import FIGURES, verify_entries
from scratchlm.core.errors import CheckpointError

ENTRIES = {e.id: e for e in read_table()}
NOTHING_NEEDED = [e for e in ENTRIES.values() if not e.needs and e.effort == "seconds"]


@pytest.fixture
def no_assets(monkeypatch, tmp_path):
    monkeypatch.delenv("SCRATCHLM_ASSETS", raising=False)
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path))


@pytest.fixture
def real_assets(monkeypatch, tmp_path, real_data):
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(real_data))
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path))


def test_every_entry_has_a_function_and_every_function_an_entry():
    assert FIGURES.keys() == ENTRIES.keys()


def test_what_is_absent_is_not_run_and_says_how_to_fetch_it(no_assets):
    [finding] = verify_entries([ENTRIES["ch02.word-tokens"]])
    assert finding.verdict == "not run"
    assert "`scratchlm data fetch text/the-verdict.txt`" in finding.reason


def test_a_damaged_file_is_called_damaged_not_absent(no_assets, monkeypatch, tmp_path):
    """Fetching would not mend it: a folder of the reader's own is not written to."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "the-verdict.txt").write_text("half of it", encoding="utf-8")
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(tmp_path))
    [finding] = verify_entries([ENTRIES["ch02.word-tokens"]])
    assert (finding.verdict, "missing or incomplete" in finding.reason) == ("not run", False)
    assert str(tmp_path / "text" / "the-verdict.txt") in finding.reason


def test_absent_weights_name_the_command_that_fetches_them(real_assets):
    [finding] = verify_entries([ENTRIES["ch05.gpt2-losses"]])
    assert finding.verdict == "not run"
    assert "`scratchlm weights fetch gpt2-small`" in finding.reason


@pytest.mark.parametrize(
    ("name", "data"),
    [("model.ckpt.index", bytes(40) + TABLE_MAGIC), ("config.json", json.dumps({"n_layer": 24}).encode())],
)
def test_a_half_fetched_form_of_the_weights_is_absent(real_assets, tmp_path, name, data):
    """The small files of a size come first: none of them proves that the large one is there."""
    path = tmp_path / "gpt2" / "774M" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    entry = Entry(id="ch05.gpt2-losses", what="x", provenance="x", expected=1, needs=("gpt2/774M",))
    [finding] = verify_entries([entry])
    assert finding.verdict == "not run"
    assert "`scratchlm weights fetch gpt2-large`" in finding.reason


def _raise(error: Exception):
    raise error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CheckpointError("the file should be whole, found half; fetch it again."), "fetch it again"),
        (MemoryError(), "memory ran out"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory ran out"),
    ],
)
def test_a_figure_that_fails_is_not_run_and_the_next_one_is(monkeypatch, error, reason):
    monkeypatch.setitem(FIGURES, "ch03.causal-attention", lambda: _raise(error))
    monkeypatch.setitem(FIGURES, "ch04.parameters-small", lambda: [163_009_536, 124_412_160])
    failed, next_one = verify_entries([ENTRIES["ch03.causal-attention"], ENTRIES["ch04.parameters-small"]])
    assert (failed.verdict, reason in failed.reason) == ("not run", True)
    assert next_one.verdict == "agrees"


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setitem(FIGURES, "ch03.causal-attention", lambda: _raise(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(verify_entries([ENTRIES["ch03.causal-attention"]]))


def test_a_wrong_value_differs_and_gives_the_known_reasons(monkeypatch):
    monkeypatch.setitem(FIGURES, "ch03.causal-attention", lambda: [0.0, 0.0])
    [finding] = verify_entries([ENTRIES["ch03.causal-attention"]])
    assert finding.verdict == "differs"
    assert "PyTorch version" in finding.reason


def test_a_wrong_value_without_a_known_reason_is_called_a_fault(monkeypatch):
    monkeypatch.setitem(FIGURES, "ch04.parameters-small", lambda: [0, 0])
    [finding] = verify_entries([ENTRIES["ch04.parameters-small"]])
    assert (finding.verdict, "fault" in finding.reason) == ("differs", True)


def test_what_takes_hours_waits_to_be_asked(monkeypatch):
    slow = Entry(id="ch04.parameters-small", what="x", provenance="x", expected=1, effort="hours")
    monkeypatch.setitem(verifying.FIGURES, "ch04.parameters-small", lambda: 1)
    assert [f.verdict for f in verify_entries([slow])] == ["not run"]
    assert [f.verdict for f in verify_entries([slow], with_hours=True)] == ["agrees"]


@pytest.mark.parametrize("chapter", ["3", "E"])
def test_figures_that_need_nothing_agree(chapter):
    for finding in verify_entries(e for e in NOTHING_NEEDED if e.chapter == chapter):
        assert finding.verdict == "agrees", f"{finding.entry.id}: {finding.value}"


@pytest.mark.parametrize("chapter", ["2", "6", "7"])
def test_figures_of_the_data_agree(real_assets, chapter):
    chosen = [e for e in ENTRIES.values() if e.chapter == chapter and e.effort == "seconds"]
    for finding in verify_entries(e for e in chosen if not any(n.startswith("gpt2/") for n in e.needs)):
        assert finding.verdict == "agrees", f"{finding.entry.id}: {finding.value} {finding.reason}"


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["4", "5"])
def test_figures_of_the_untrained_model_agree(real_assets, chapter):
    chosen = [e for e in ENTRIES.values() if e.chapter == chapter and e.effort == "seconds"]
    for finding in verify_entries(e for e in chosen if not any(n.startswith("gpt2/") for n in e.needs)):
        assert finding.verdict == "agrees", f"{finding.entry.id}: {finding.value} {finding.reason}"
