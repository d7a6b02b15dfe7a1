"""The runs folder over the API, and who may start and stop runs: only the page on the server's own machine."""

from __future__ import annotations

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.serving.settings import ServeSettings
from tests.browser.web_server import GrowingRuns
from tests.serving.conftest import running, served_models

TOKEN = "correct-horse-battery"


class NotedControl:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def start(self, *, seed):
        if seed == 13:
            raise ConfigError("night is being trained; wait, or stop it.")
        self.done.append(seed)
        return "quickstart"

    def stop(self, name):
        self.done.append(name)
        return name == "night"

    def pending(self):
        return [{"name": "quickstart", "state": "starting"}]


@pytest.fixture(scope="module")
def control():
    return NotedControl()


@pytest.fixture(scope="module")
def server(language_models, control):
    settings = ServeSettings(allow_hosts=("example.org",), allow_origins=("http://example.org",))
    with running(served_models(language_models), settings, runs=GrowingRuns(), control=control) as one:
        yield one


def test_the_folder_is_that_of_the_reader_with_what_was_started(server):
    names = [run["name"] for run in server.get("/api/runs").json()["runs"]]
    assert names == ["night", "day", "quickstart"]
    assert "pretrain" in server.get("/api/runs/day").json()["history"]
    unknown = server.get("/api/runs/other")
    assert (unknown.status_code, "there is no run 'other'" in unknown.text) == (404, True)
    assert len(server.get("/api/runs/day/answers").json()["items"]) == 2
    assert server.get("/api/runs/x/answers").status_code == 404


def test_a_report_is_sandboxed(server):
    report = server.get("/api/runs/day/report")
    assert "the report" in report.text
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert server.get("/api/runs/night/report").status_code == 404


def test_without_a_runs_folder_there_are_none(language_models):
    with running(served_models(language_models)) as server:
        assert server.get("/api/runs").json() == {"runs": []}
        answer = server.post("/api/runs", {}, headers={"origin": server.url})
        assert (answer.status_code, "use `scratchlm run`" in answer.json()["error"]) == (403, True)


def test_the_servers_own_page_starts_and_stops_runs(server, control):
    own = {"origin": server.url}
    control.done.clear()
    assert server.get("/api/page").json()["can_control_runs"]
    assert server.post("/api/runs", {"seed": 7}, headers=own).json() == {"name": "quickstart"}
    assert server.post("/api/runs", {}, headers=own).json() == {"name": "quickstart"}
    assert server.post("/api/runs/night/stop", {}, headers=own).json() == {"name": "night"}
    assert control.done == [7, None, "night"]
    busy = server.post("/api/runs", {"seed": 13}, headers=own)
    assert (busy.status_code, busy.json()["error"]) == (400, "night is being trained; wait, or stop it.")
    assert server.post("/api/runs/day/stop", {}, headers=own).status_code == 404
    for body in ({"seed": -1}, {"seed": 1 << 31}, {"recipe": "x"}, {"seed": "1"}):
        assert server.post("/api/runs", body, headers=own).status_code == 400
    assert server.post("/api/runs", {}, headers=own | {"content-type": "text/plain"}).status_code == 415


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://example.org"},  # may use the API, but not start anything
        {"origin": "http://example.org", "host": "example.org"},  # the page itself, through a proxy
        {"origin": "OWN", "x-forwarded-for": "10.0.0.7"},
        {"origin": "OWN", "forwarded": "for=10.0.0.7"},
        {"origin": "OWN", "via": "1.1 proxy"},
        {"origin": "http://localhost:1", "host": "127.0.0.1"},
    ],
    ids=str,
)
def test_nobody_else_does(server, control, headers):
    control.done.clear()
    headers = {name: server.url if value == "OWN" else value for name, value in headers.items()}
    for path in ("/api/runs", "/api/runs/night/stop"):
        assert server.post(path, {}, headers=headers).status_code == 403, path
    assert control.done == []


def test_a_server_for_other_machines_starts_nothing(language_models, control):
    control.done.clear()
    settings = ServeSettings(host="0.0.0.0", token=TOKEN)
    with running(served_models(language_models), settings, control=control) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        headers = {"origin": url, "authorization": f"Bearer {TOKEN}"}
        server.url = url
        assert not server.get("/api/page", headers=headers).json()["can_control_runs"]
        assert server.post("/api/runs", {}, headers=headers).status_code == 403
    assert control.done == []
