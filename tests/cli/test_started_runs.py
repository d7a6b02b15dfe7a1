"""Runs that the page starts and stops are commands of their own."""

from __future__ import annotations

import time

import pytest

from scratchlm.cli import started_runs
from scratchlm.cli.started_runs import StartedRuns
from scratchlm.core.errors import ConfigError
from scratchlm.reports.found_runs import find_runs, look_at_run
from tests.processes import one_thread


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def test_a_command_that_fails_is_reported_with_its_last_line(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho begun\necho 'no room on the disk'\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr(started_runs.sys, "executable", str(program))
    runs = StartedRuns(tmp_path / "runs")
    assert runs.pending() == []
    assert runs.start(seed=None) == "quickstart"
    until(lambda: runs.pending()[0]["state"] == "failed")
    assert runs.pending()[0]["problem"] == "no room on the disk"
    assert not runs.stop("quickstart")
    monkeypatch.setattr(started_runs.sys, "executable", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="could not be started"):
        runs.start(seed=None)


def test_a_run_has_a_folder_of_its_own_and_starts_alone(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/given\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setattr(started_runs.sys, "executable", str(program))
    folder = tmp_path / "runs"
    (folder / "quickstart").mkdir(parents=True)
    runs = StartedRuns(folder)
    assert runs.start(seed=7) == "quickstart-2"
    try:
        until((tmp_path / "given").exists)
        until((tmp_path / "given").read_text)
        assert (tmp_path / "given").read_text().split() == [
            *("-m", "scratchlm", "run", "quickstart", "--out", str(folder / "quickstart-2"), "--seed", "7")
        ]
        assert [(one["name"], one["state"]) for one in runs.pending()] == [("quickstart-2", "starting")]
        with pytest.raises(ConfigError, match="quickstart-2 is being trained"):
            runs.start(seed=8)
        assert not runs.stop("quickstart")
    finally:
        assert runs.stop("quickstart-2")
    until(lambda: not runs.stop("quickstart-2"))
    assert runs.pending() == [], "it was stopped, so it has not failed"


@pytest.mark.slow
def test_a_real_quickstart_is_started_and_stopped(tmp_path, monkeypatch):
    for name, value in one_thread(tmp_path).items():
        monkeypatch.setenv(name, value)
    runs = StartedRuns(tmp_path / "runs")
    name = runs.start(seed=3)
    path = tmp_path / "runs" / name
    until((path / "metrics.jsonl").exists)
    assert runs.pending() == []
    other = StartedRuns(tmp_path / "runs")  # of a server that was started later
    with pytest.raises(ConfigError, match="quickstart is being trained"):
        other.start(seed=None)
    assert other.stop(name)
    assert other.stop(name), "a second request is no second signal, which would end it unsaved"
    until(lambda: look_at_run(path).state != "running")
    [run] = find_runs(tmp_path / "runs")
    assert (run.state, bool(run.checkpoints())) == ("interrupted", True)
    assert not other.stop(name)
    until(lambda: not runs.stop(name))
