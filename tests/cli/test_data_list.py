"""`scratchlm data list`: every known data set with its licence, size and place."""

import json

from scratchlm.cli.main import main


def test_each_data_set_is_listed_with_licence_size_and_hash(capsys):
    assert main(["data", "list", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["assets"]}
    assert {
        "text/the-verdict.txt",
        "imdb/aclImdb_v1.tar.gz",
        "fineweb/sample-10BT-014.parquet",
    } <= rows.keys()
    assert all(row["licence"] and row["purpose"] for row in rows.values())
    assert rows["imdb/aclImdb_v1.tar.gz"]["size_bytes"] == 84_125_825
    assert rows["fineweb/sample-10BT-014.parquet"]["sha256"] is None


def test_names_are_shown_whole_and_unknowns_said(capsys, monkeypatch, tmp_path):
    folder = tmp_path / "class"
    (folder / "dolly").mkdir(parents=True)
    (folder / "dolly" / "databricks-dolly-15k.jsonl").write_text("{}\n")
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(folder))
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert "dolly/databricks-dolly-15k.jsonl  (available, 13,085,339 bytes, sha256 known)" in out
    assert "fineweb/sample-10BT-014.parquet  (not downloaded, size unknown, sha256 unknown)" in out
