"""`scratchlm data inspect`: what it prints, writes and returns."""

import json

import pytest

from scratchlm.cli.main import main


@pytest.fixture
def run(capsys):
    def run_one(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["data", "inspect", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_one


@pytest.fixture
def messages(tmp_path):
    path = tmp_path / "messages.tsv"
    path.write_text("ham\tsee you at six\nspam\tWIN a prize\nspam\twin a prize!\nham\tdon\x92t &amp; won't\n")
    return path


@pytest.fixture
def entries(tmp_path):
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([{"instruction": "Say cat", "input": "", "output": "the cat sat"}]))
    return path


def test_json_is_one_object_with_the_promised_keys(run, messages):
    code, out, _ = run(str(messages), "--json")
    figures = json.loads(out)
    assert code == 0
    assert (figures["kind"], figures["rows"]) == ("classification", 4)
    assert figures["near_duplicates"]["repeats_not_exact"] == 1


def test_the_terminal_shows_lengths_classes_copies_and_oddities(run, messages):
    code, out, err = run(str(messages), "--context-length", "2")
    assert code == 0
    for words in (
        "classification: 4 rows",
        "Length in words",
        "ham",
        "50.0%",
        "4 distinct texts",
        "html entity",
    ):
        assert words in out, words
    assert "! 1 more are near-duplicates" in out
    assert "\x92" not in out, "a file cannot steer the terminal"
    assert "lengths are in words" in err
    assert "scratchlm data fetch gpt2_bpe" in err


def test_tokens_with_loss_stand_between_marks(run, entries, life):
    code, out, _ = run(str(entries), "--tokenizer", life["base"], "--template", "plain")
    assert code == 0
    flat = out.replace("|", "").replace("\n", " ")
    assert "Q: Say cat A:« the cat sat<endoftext>»" in flat


def test_leaks_between_two_files_are_shown(run, messages, tmp_path):
    test = tmp_path / "test.tsv"
    test.write_text("ham\tSee you at six.\n")
    code, out, _ = run(str(messages), str(test))
    assert code == 0
    assert "Leakage between splits" in out
    assert "Leak: of the 1 rows in" in out


def test_the_page_is_written_whole_and_named(run, messages, tmp_path):
    page = tmp_path / "data-report.html"
    code, out, err = run(str(messages), "--html", str(page), "--json")
    assert code == 0
    assert json.loads(out)["html"] == str(page)
    assert f"page: {page}" in err
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_known_names_and_gpt2s_tokenizer_come_from_the_assets(run, real_data, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(real_data))
    code, out, _ = run("the-verdict", "--json")
    figures = json.loads(out)
    assert code == 0
    assert figures["splits"][0]["stream"]["tokens"] == 5145  # the book, chapter 2
    assert figures["tokenizer"]["vocab_size"] == 50257


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "inspect needs a file, got none"),
        (("none.txt",), 3, "none.txt does not exist"),
        (("messages.tsv", "--context-length", "0"), 2, "context_length must be at least 1"),
        (("messages.tsv", "--template", "alpca"), 2, "template must be one of"),
        (
            ("messages.tsv", "--kind", "preference"),
            3,
            "must hold rows of preference, got none that can be used; name another --kind, or repair",
        ),
        (("messages.tsv", "--html", "missing/page.html"), 3, "could not be written"),
        (("messages.tsv", "--html", "./messages.tsv"), 2, "--html must name a file to write, got the data"),
        (("messages.tsv", "--html", "."), 2, "--html must name a file to write, got a folder"),
    ],
)
def test_mistakes_are_one_line(run, messages, monkeypatch, args, code, words):
    monkeypatch.chdir(messages.parent)
    found, _, err = run(*args)
    assert found == code
    assert words in err.splitlines()[-1]


def test_a_page_never_takes_the_place_of_the_data(run, messages):
    before = messages.read_bytes()
    assert run(str(messages), "--html", str(messages))[0] == 2
    assert messages.read_bytes() == before


def test_an_empty_table_is_said_to_hold_nothing(run, tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("")
    code, _, err = run(str(path))
    assert code == 3
    assert "got the fields (none)" in err
