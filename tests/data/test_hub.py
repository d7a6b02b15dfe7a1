"""Data sets of the Hugging Face hub. The library's part is tested with the library, on a folder, without network."""

import json
import sys
from types import SimpleNamespace

import pytest

from scratchlm.cli.main import main
from scratchlm.core.errors import ConfigError, DataError, DownloadError, MissingDependencyError
from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.hub import export_hub_dataset
from scratchlm.data.row_files import parse_columns


class Rows(list):
    """Rows with features, as `datasets` streams them."""

    features = {"label": SimpleNamespace(names=["neg", "pos"]), "sentence": SimpleNamespace(dtype="string")}


@pytest.fixture
def library(monkeypatch):
    """Stands for `datasets`: gives the rows that a test wants, and remembers how it was asked."""
    asked = {}

    def load_dataset(name, config, **settings):
        asked.update(name=name, config=config, **settings)
        if name == "nobody/nothing":
            raise FileNotFoundError("Dataset 'nobody/nothing' doesn't exist on the Hub")
        return Rows([{"sentence": "good", "label": 1}, {"sentence": "dull", "label": 0, "x": 3}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_named_columns_become_ours_and_numbers_their_class(library, tmp_path):
    out = tmp_path / "deep" / "a.jsonl"
    n_rows = export_hub_dataset(
        "some/reviews", out, columns={"text": "sentence", "label": "label"}, split="test", config="small"
    )
    assert n_rows == 2
    assert [(row.text, row.label) for row in read_labelled(out)] == [("good", "pos"), ("dull", "neg")]
    assert library["streaming"] is True
    assert (library["name"], library["config"], library["split"]) == ("some/reviews", "small", "test")


def test_rows_are_cut_where_asked_and_counted(library, tmp_path):
    seen = []
    export_hub_dataset(
        "a/b", tmp_path / "a.jsonl", columns={"text": "sentence"}, most_rows=1, progress=seen.append
    )
    assert seen == [1]
    assert (tmp_path / "a.jsonl").read_text() == '{"text": "good"}\n'


@pytest.mark.parametrize(
    ("name", "column", "error", "words"),
    [
        ("nobody/nothing", "sentence", DownloadError, "doesn't exist on the Hub"),
        ("a/b", "story", DataError, "row 1 has no column 'story', only 'sentence', 'label'"),
        ("a/b", "x", DataError, "row 1 has no column 'x'"),
    ],
)
def test_what_is_not_there_is_an_error_and_leaves_no_file(library, tmp_path, name, column, error, words):
    with pytest.raises(error, match=words):
        export_hub_dataset(name, tmp_path / "a.jsonl", columns={"text": column})
    assert list(tmp_path.iterdir()) == []


def test_columns_are_pairs_of_known_names():
    assert parse_columns(("instruction=question", "output")) == {
        "instruction": "question",
        "output": "output",
    }
    for wrong in (("answers",), ("story=text",), ("text=a", "text=b")):
        with pytest.raises(ConfigError, match="column"):
            parse_columns(wrong)


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .datasets>=4"):
        export_hub_dataset("a/b", tmp_path / "a.jsonl", columns={"text": "text"})


def test_the_command_fetches_one_data_set_into_a_file(library, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scratchlm.cli.data_fetch.check_reachable", lambda address: None)
    out = tmp_path / "a.jsonl"
    args = ["data", "fetch", "hf:some/reviews", "--columns", "text=sentence", "label"]
    assert main([*args, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fetched"][0]["rows"] == 2
    assert main(args) == 2
    assert "into a file" in capsys.readouterr().err


def test_the_real_library_reads_a_folder_without_network(tmp_path):
    pytest.importorskip("datasets", reason="Hugging Face's library is not installed")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"story": "one", "kind": 2}\n{"story": "two", "kind": 1}\n')
    n_rows = export_hub_dataset(str(folder), tmp_path / "a.jsonl", columns={"text": "story", "label": "kind"})
    assert n_rows == 2
    assert [(row.text, row.label) for row in read_labelled(tmp_path / "a.jsonl")] == [
        ("one", "2"),
        ("two", "1"),
    ]
