"""The seed's script and its notebook: one text, and it runs from top to bottom."""

import ast
import importlib
import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scratchlm.tokenizers import train_bpe

ROOT = Path(__file__).resolve().parents[2]


def test_the_notebook_is_the_script():
    maker = runpy.run_path(str(ROOT / "dev" / "make_notebook.py"))
    notebook = (ROOT / "llm_from_scratch.ipynb").read_text(encoding="utf-8")
    assert notebook == maker["as_notebook"](), "run `python dev/make_notebook.py`"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_runs_from_top_to_bottom_without_assets(tmp_path):
    # One thread, as all tests have: two of them beside another busy process only wait for each other.
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {
        "PATH": "", "SCRATCHLM_HOME": str(tmp_path / "home"), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1",
        "TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "torch"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "llm_from_scratch.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=880, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Ep 1 (Step 000000): Train loss" in done.stdout
    assert "test accuracy:" in done.stdout
    assert "learning rate: 0.00001, at most 0.00200" in done.stdout
    assert "word for word" in done.stdout
    assert list(temporary.iterdir()) == []


def test_the_cell_that_writes_files_leaves_none_behind(tmp_path, monkeypatch):
    """Of the whole script only the cell of the spam data: the rest takes minutes and writes nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cells = (ROOT / "llm_from_scratch.py").read_text(encoding="utf-8").split("\n# %%\n")
    names = {"FULL": False, "tokenizer": train_bpe(["a b c"], 257)}
    exec(next(cell for cell in cells if cell.startswith("import csv")).partition("FULL =")[0], names)
    exec(next(cell for cell in cells if "spam_sets = []" in cell), names)
    assert [len(part) for part in names["spam_sets"]] == [560, 80, 160]
    assert list(tmp_path.iterdir()) == []


def test_what_full_downloads_is_not_offered_to_git():
    """The script puts OpenAI's weights and the book's data into the current folder, which may be this one."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/gpt2/", "/instruction-data.json"} <= set(ignored)
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    kept = subprocess.run(["git", "ls-files", "gpt2"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert kept.stdout == ""


def test_every_name_that_the_script_takes_from_a_chapter_is_there():
    """Also those that only --full reaches, which no test can run."""
    tree = ast.parse((ROOT / "llm_from_scratch.py").read_text(encoding="utf-8"))
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id.startswith(("ch0", "appendix_"))
    }
    assert len(used) > 20
    missing = [
        f"{chapter}.{name}"
        for chapter, name in sorted(used)
        if not hasattr(importlib.import_module(f"scratchlm.book.{chapter}"), name)
    ]
    assert missing == []


def test_the_notebook_installs_the_package_before_it_is_used():
    """Colab's machine is fresh: the first cell of code must not need us."""
    cells = json.loads((ROOT / "llm_from_scratch.ipynb").read_text(encoding="utf-8"))["cells"]
    first, second = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][:2]
    assert "scratchlm[all]" in first
    assert "google.colab" in first
    assert "import scratchlm" not in first
    assert "from scratchlm" not in first
    assert "from scratchlm" in second
