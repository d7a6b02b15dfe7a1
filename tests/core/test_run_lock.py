"""One process at a time in a run folder: the lock is the system's, and ends with its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scratchlm.core.atomic_replace import remove_folder
from scratchlm.core.errors import ConfigError
from scratchlm.core.run_lock import LOCK_FILE, ask_to_stop, run_lock, running_process

HOLD = """
import sys, time
from pathlib import Path
from scratchlm.core.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def busy(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_is_locked_as_long_as_the_block_takes_and_nothing_stays(tmp_path):
    with run_lock(tmp_path / "run"):
        assert running_process(tmp_path / "run") == os.getpid()
    assert running_process(tmp_path / "run") is None
    assert list((tmp_path / "run").iterdir()) == []


def test_the_lock_ends_when_the_work_fails(tmp_path):
    with pytest.raises(RuntimeError), run_lock(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_work_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), run_lock(tmp_path), run_lock(tmp_path):
        raise FileNotFoundError


def test_the_same_process_may_lock_its_folder_again(tmp_path):
    with run_lock(tmp_path):
        with run_lock(tmp_path):
            pass
        assert running_process(tmp_path) == os.getpid(), "the outer block goes on"


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path, busy):
    assert running_process(tmp_path) == busy.pid
    message = f"{tmp_path} is in use by process {busy.pid}; stop it or choose another folder"
    with pytest.raises(ConfigError, match=message), run_lock(tmp_path):
        pass


def test_a_killed_process_locks_nothing(tmp_path, busy):
    busy.kill()
    busy.wait()
    assert (tmp_path / LOCK_FILE).exists()
    assert running_process(tmp_path) is None
    with run_lock(tmp_path):
        assert running_process(tmp_path) == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_that_outlives_its_killed_parent_locks_nothing(tmp_path):
    code = HOLD.replace("    print", "    import os\n    if os.fork(): print")
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert parent.stdout.readline() == "in\n"
        parent.kill()
        parent.wait()
        with run_lock(tmp_path):
            assert running_process(tmp_path) == os.getpid()
    finally:
        os.killpg(parent.pid, 9)
        parent.stdout.close()


def test_a_folder_that_is_deleted_and_made_anew_in_the_block_can_be_locked_again(tmp_path):
    run = tmp_path / "run"
    with run_lock(run):
        remove_folder(run)
        with run_lock(run):
            assert running_process(run) == os.getpid()
            (run / "new").write_text("x")
    assert [path.name for path in run.iterdir()] == ["new"]


def test_a_lock_file_without_a_process_or_with_any_text_locks_nothing(tmp_path):
    for text in ("", "{}", "[1]", '{"pid": "x"}', f'{{"pid": {os.getpid()}}}'):
        (tmp_path / LOCK_FILE).write_text(text)
        assert running_process(tmp_path) is None
        with run_lock(tmp_path):
            pass


def test_a_place_that_can_be_no_folder_is_our_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a writable folder"), run_lock(tmp_path / "file"):
        pass


STARTS = """
import sys, time
from pathlib import Path
from scratchlm.core.errors import ConfigError
from scratchlm.core.run_lock import run_lock
folder = Path(sys.argv[1])
sys.stdin.readline()
try:
    with run_lock(folder):
        with (folder / "log").open("a") as log:
            log.write("in\\n"); log.flush(); time.sleep(2); log.write("out\\n")
except ConfigError:
    sys.exit(2)
"""


def test_of_several_processes_that_start_at_once_exactly_one_gets_the_folder(tmp_path):
    command = [sys.executable, "-c", STARTS, str(tmp_path / "run")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        process.stdin.close()  # go
    assert sorted(process.wait() for process in processes) == [0, 2, 2, 2]
    assert (Path(tmp_path) / "run" / "log").read_text() == "in\nout\n"


def test_only_the_process_that_holds_a_folder_is_asked_to_stop(tmp_path, busy):
    assert ask_to_stop(tmp_path)
    assert busy.wait(20) != 0
    assert not ask_to_stop(tmp_path), "nothing holds it any more"
    with run_lock(tmp_path):
        assert not ask_to_stop(tmp_path), "this process does not stop itself"


def test_a_process_of_another_machine_is_not_signalled(tmp_path, busy):
    (tmp_path / LOCK_FILE).write_text(f'{{"pid": {busy.pid}, "host": "elsewhere"}}')
    with pytest.raises(ConfigError, match=f"process {busy.pid} of elsewhere; stop it on that machine"):
        ask_to_stop(tmp_path)
    assert busy.poll() is None
