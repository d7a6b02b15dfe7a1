"""The page's own files: checked by TypeScript where it is installed, and nothing from elsewhere in them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scratchlm.serving.pages import WEB

HERE = Path(__file__).parent
SCRIPTS = sorted(WEB.rglob("*.js"))
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\(\"style\""
)


@pytest.mark.slow
def test_typescript_finds_no_error():
    """`npm install --global typescript` provides tsc; a user never needs it."""
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("TypeScript is not installed")
    found = subprocess.run([tsc, "-p", HERE / "tsconfig.json"], capture_output=True, text=True, check=False)
    assert found.stdout == ""
    assert found.returncode == 0


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
