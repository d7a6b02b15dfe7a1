"""Every `curl` line and every client block of the guide's page on serving, with a real server."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scratchlm.serving.models import ModelSource, served
from tests.serving.conftest import running

PAGE = (Path(__file__).parents[2] / "guide" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
IDS = {"base": "runs/quickstart", "chat": "quickstart/instruct", "spam": "quickstart/classify"}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def quickstart(language_models):
    models = [served(ModelSource(IDS[name], IDS[name]), lm) for name, lm in language_models.items()]
    with running(models) as server:
        yield server


def test_the_python_clients_of_the_page_run(quickstart, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = blocks("py")
    assert len(found) == 3
    names: dict[str, object] = {}
    with contextlib.ExitStack() as clients:
        for block in found:
            exec(compile(block.replace(ADDRESS, quickstart.url), "serving.md", "exec"), names)
            clients.callback(names["client"].close)
    assert "quickstart/instruct" in capsys.readouterr().out


COMMANDS = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_curl_line_of_the_page_succeeds(quickstart, command):
    assert len(COMMANDS) == 9
    line = command.replace(ADDRESS, quickstart.url)
    done = subprocess.run(
        ["bash", "-c", f"{line} --fail-with-body --silent --show-error --noproxy '*'"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def test_every_address_of_the_page_is_documented_by_the_server(quickstart):
    paths = set(quickstart.get("/openapi.json").json()["paths"])
    named = set(re.findall(r"`(/(?:v1|api)/[a-z_/]+)`", PAGE))
    assert len(named) > 15
    assert named <= paths
