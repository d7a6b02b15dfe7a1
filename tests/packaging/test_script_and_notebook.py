"""The seed's script and its notebook: one text, and it runs from top to bottom."""

from __future__ import annotations

import ast
import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_notebook_is_the_script():
    maker = runpy.run_path(str(ROOT / "dev" / "make_notebook.py"))
    notebook = (ROOT / "llm_from_scratch.ipynb").read_text(encoding="utf-8")
    assert notebook == maker["as_notebook"](), "run `python dev/make_notebook.py`"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_runs_from_top_to_bottom_without_assets(tmp_path):
    # One thread, as all tests have: two of them beside another busy process only wait for each other.
    environment = {
        "PATH": "", "SCRATCHLM_HOME": str(tmp_path / "home"), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1",
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
