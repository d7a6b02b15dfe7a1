"""Every Python block of the guide runs, a page's blocks one after the other; every command in it exists."""

import re
import shlex
from pathlib import Path

import pytest

from scratchlm.cli.commands import COMMANDS

GUIDE = Path(__file__).parents[2] / "guide"
PAGES = sorted(page.name for page in GUIDE.glob("*.md"))
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^    (scratchlm [^#\n]*)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in PYTHON.findall((GUIDE / page).read_text(encoding="utf-8")):
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_commands_exist(page):
    for line in COMMAND.findall((GUIDE / page).read_text(encoding="utf-8")):
        words = shlex.split(line)[1:]
        assert any(tuple(words[: len(name)]) == name for name in COMMANDS), line


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", (GUIDE / page).read_text(encoding="utf-8")):
        assert target.startswith("https://") or (GUIDE / target).exists(), target
