"""A folder at work is marked; a mark whose process is gone does not count."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.core.process_mark import MARK, running_process, working_in


def other_process(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


HOLD = "from pathlib import Path; from scratchlm.core.process_mark import working_in; import sys, time\n"


@pytest.fixture
def busy(tmp_path):
    code = f"{HOLD}with working_in(Path({str(tmp_path)!r})):\n    print('in', flush=True); time.sleep(60)"
    process = other_process(code)
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_mark_is_there_while_the_work_is(tmp_path):
    with working_in(tmp_path):
        assert running_process(tmp_path) == os.getpid()
    assert running_process(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_mark_goes_when_the_work_fails(tmp_path):
    with pytest.raises(RuntimeError), working_in(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_same_process_may_work_there_within_its_own_work(tmp_path):
    with working_in(tmp_path):
        with working_in(tmp_path):
            pass
        assert running_process(tmp_path) == os.getpid(), "the outer work goes on"


def test_a_second_process_is_refused(tmp_path, busy):
    assert running_process(tmp_path) == busy.pid
    with pytest.raises(ConfigError, match=f"found process {busy.pid} at work in it"), working_in(tmp_path):
        pass


def test_a_killed_process_leaves_a_mark_that_does_not_count(tmp_path, busy):
    busy.kill()
    busy.wait()
    assert (tmp_path / MARK).exists()
    assert running_process(tmp_path) is None
    with working_in(tmp_path):
        assert running_process(tmp_path) == os.getpid()


def test_another_process_with_the_same_id_is_not_taken_for_it(tmp_path):
    mark = {
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "started_at": psutil.Process().create_time() - 3600,
    }
    (tmp_path / MARK).write_text(json.dumps(mark))
    assert running_process(tmp_path) is None


ELSEWHERE = json.dumps({"pid": 1, "host": "elsewhere", "started_at": 0})


@pytest.mark.parametrize("mark", ["", "{}", "[1]", '{"pid": "x", "host": "h", "started_at": 1}', ELSEWHERE])
def test_a_damaged_or_foreign_mark_does_not_count(tmp_path, mark):
    (tmp_path / MARK).write_text(mark)
    assert running_process(tmp_path) is None
