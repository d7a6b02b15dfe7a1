"""`scratchlm serve` as a process: what it serves, how it ends, and what it refuses to do."""

import builtins
import json
import os
import re
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from tests.processes import one_thread

MUTED = {"NO_PROXY": "127.0.0.1"}


@pytest.fixture
def serve(tmp_path):
    """Start the command on a free port; returns the process, its address and the lines it has printed."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str, here, env=None):
        process = subprocess.Popen(
            [sys.executable, "-m", "scratchlm", "serve", "--port", "0", *args],
            cwd=here,
            env=one_thread(tmp_path) | MUTED | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.stderr.read()
        return process, found[0], line

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_runs_folder_is_served_until_sigterm(serve, life):
    process, address, line = serve("--runs-dir", ".", here=life.folder)
    for name in ("base", "classifier", "assistant"):
        assert name in line
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert sorted(ids) == ["assistant", "base", "classifier"]
        runs = client.get("/api/runs").json()["runs"]
        assert {run["name"]: run["state"] for run in runs if run["state"] == "complete"}.keys() == set(ids)
        assert "path" not in runs[0]
        assert str(life.folder) not in client.get("/api/runs").text
        run = client.get("/api/runs/base").json()
        assert run["history"]["pretrain"][-1]["step"] == 4
        assert str(life.folder) not in json.dumps(run)
        assert client.get("/api/runs/..").status_code == 404
        assert (
            client.post(
                "/v1/completions", json={"model": "base", "prompt": "The cat", "max_tokens": 2}
            ).status_code
            == 200
        )
        answer = client.post("/api/classify", json={"model": "classifier", "texts": ["win a free prize now"]})
        assert answer.json()["results"][0]["label"] in ("ham", "spam")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_a_running_request_ends_before_the_process(serve, life):
    process, address, _ = serve("model=base", here=life.folder)
    received: list[str] = []
    has_begun = threading.Event()

    def read() -> None:
        body = {"model": "model", "prompt": "The", "max_tokens": 31, "min_new_tokens": 30, "stream": True}
        with httpx.stream(
            "POST", f"{address}/v1/completions", json=body, trust_env=False, timeout=60
        ) as answer:
            has_begun.set()
            received.extend(answer.iter_lines())

    reader = threading.Thread(target=read)
    reader.start()
    assert has_begun.wait(60)
    process.send_signal(signal.SIGTERM)
    reader.join(60)
    assert process.wait(60) == 143
    assert received[-2] == "data: [DONE]"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health", trust_env=False, timeout=60)


@pytest.mark.slow
def test_ctrl_c_ends_it_with_130(serve, life):
    process, _, _ = serve("base", here=life.folder)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


@pytest.mark.slow
def test_a_token_comes_from_a_file_or_the_environment_and_is_never_printed(serve, life, tmp_path):
    token = "correct-horse-battery-staple"
    (tmp_path / "token").write_text(f"{token}\n")
    for args, env in ((["--token-file", str(tmp_path / "token")], {}), ([], {"SCRATCHLM_TOKEN": token})):
        process, address, line = serve("base", *args, here=life.folder, env=env)
        assert token not in line
        assert httpx.get(f"{address}/v1/models", trust_env=False, timeout=60).status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        assert (
            httpx.get(f"{address}/v1/models", headers=headers, trust_env=False, timeout=60).status_code == 200
        )
        process.terminate()
        assert process.wait(60) == 143
        assert token not in process.stderr.read()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("serve x --host 0.0.0.0", 2, "the server needs a token"),
        ("serve a/b b=c a/b", 2, "two models have the id 'a/b'"),
        ("serve --runs-dir nowhere", 2, "there is no model in nowhere"),
        ("serve nowhere --port 0", 3, "nowhere"),
        ("serve base --cache-mb 0", 2, "cache_bytes must be at least 1024"),
        ("serve x --port 99999", 2, "port must be at most 65535"),
        ("serve x --token-file nowhere", 2, "the token file nowhere cannot be read"),
    ],
)
def test_what_cannot_be_served_is_refused(run, monkeypatch, command, code, message):
    monkeypatch.delenv("SCRATCHLM_TOKEN", raising=False)
    found, _, err = run(command)
    assert found == code, err
    assert message in err


def test_a_port_in_use_is_reported_before_a_model_is_loaded(run):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = run(f"serve nowhere --port {taken.getsockname()[1]}")
    assert code == 4
    assert "cannot listen on 127.0.0.1" in err


def test_without_the_packages_the_command_names_the_extra(run, monkeypatch):
    real = builtins.__import__

    def without_fastapi(name, *args, **kwargs):
        if name.split(".")[0] == "fastapi":
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
        return real(name, *args, **kwargs)

    for name in [
        name
        for name in sys.modules
        if name.startswith(("scratchlm.serving.app", "scratchlm.serving.json_body"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_fastapi)
    code, _, err = run("serve x")
    assert code == 5
    assert "pip install 'scratchlm[serve]'" in err


def test_the_python_interface_needs_none_of_them():
    code = (
        "import sys, scratchlm.serving.language_model\n"
        "assert not {'fastapi', 'starlette', 'uvicorn', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
