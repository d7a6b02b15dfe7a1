"""The page's own files: checked by TypeScript and a linter, and nothing from elsewhere in them."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from scratchlm.serving.pages import WEB

HERE = Path(__file__).parent
SCRIPTS = sorted(WEB.rglob("*.js"))
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\(\"style\""
)


@pytest.fixture
def deno(tmp_path):
    """Run a command of deno, which holds TypeScript and a linter; a user never needs it."""
    program = pytest.importorskip("deno", reason="deno is not installed").find_deno_bin()
    env = os.environ | {"DENO_DIR": str(tmp_path / "cache"), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}

    def run(command: str, *args: Path | str) -> subprocess.CompletedProcess[str]:
        given = [program, command, "--quiet", "--config", HERE / "deno.json", *args]
        return subprocess.run(given, env=env, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_typescript_finds_no_error(deno, tmp_path):
    found = deno("check", "--no-remote", WEB)
    assert (found.returncode, found.stderr) == (0, "")
    wrong = tmp_path / "wrong.js"
    wrong.write_text("// It counts.\n/** @type {number} */\nexport const n = document.title;\n")
    assert "'string' is not assignable to type 'number'" in deno("check", "--no-remote", wrong).stderr


def test_the_linter_finds_no_fault(deno, tmp_path):
    found = deno("lint", WEB)
    assert (found.returncode, found.stderr) == (0, "")
    wrong = tmp_path / "wrong.js"
    wrong.write_text("// It compares.\nexport const is = (a, b) => a == b;\n")
    assert "eqeqeq" in deno("lint", wrong).stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.relative_to(WEB).as_posix())
def test_a_script_writes_no_markup_and_begins_with_its_purpose(script):
    text = script.read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert not MARKUP.search(text)
    assert len(text.splitlines()) <= 400
    for address in re.findall(r"https?://[^\s\"'`]+", text):
        assert address == "http://www.w3.org/2000/svg"


def test_every_import_names_a_file_of_the_page():
    for script in SCRIPTS:
        for name in re.findall(r"(?:from|import\()\s*\"(\.[^\"]+)\"", script.read_text(encoding="utf-8")):
            assert (script.parent / name).is_file(), f"{script.name} imports {name}"


def test_the_page_preloads_the_scripts_of_its_first_view():
    """Otherwise each level of imports waits for the one before it."""
    needed, to_read = set(), [WEB / "app.js", WEB / "views" / "write.js"]
    while to_read:
        script = to_read.pop()
        if script not in needed:
            needed.add(script)
            names = re.findall(r"from \"(\.[^\"]+)\"", script.read_text(encoding="utf-8"))
            to_read += [(script.parent / name).resolve() for name in names]
    named = re.findall(r"modulepreload\" href=\"([^\"]+)\"", (WEB / "index.html").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(f"/{one.relative_to(WEB)}" for one in needed if one.name != "app.js")
