"""Folders exchange places at one instant, and what killed writers leave is found, healed and removed."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scratchlm.core import atomic_replace
from scratchlm.core.atomic_replace import (
    ASIDE_MARK,
    PARTIAL_MARK,
    partial_beside,
    remove_folder,
    remove_partials,
    standing,
    standing_in,
)
from scratchlm.core.errors import DataError
from scratchlm.core.files import new_folder, write_text
from tests.faults.failing_calls import count_calls, killed_before_call, with_failing_call

ways = pytest.mark.parametrize("can_exchange", [True, False], ids=["exchange", "two renames"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(target: Path, content: str) -> None:
    with new_folder(target) as partial:
        for name in ("a", "b"):
            (partial / name).write_text(content)


def content_of(target: Path) -> str:
    found = standing(target)
    [content] = {(found / name).read_text() for name in ("a", "b")}
    return content


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def living_pid():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


@ways
@pytest.mark.parametrize("n_failures", [1, 2, 1000])
def test_whichever_call_fails_the_folder_is_the_older_or_the_newer_one(tmp_path, can_exchange, n_failures):
    target = tmp_path / "model"
    write_folder(target, "older")
    n_calls = len(count_calls(lambda: write_folder(target, "older"), can_exchange=can_exchange))
    for k in range(1, n_calls + 1):
        write_folder(target, "older")
        try:
            with_failing_call(
                lambda: write_folder(target, "newer"), k, can_exchange=can_exchange, n_failures=n_failures
            )
            expected = {"newer"}
        except DataError:
            expected = {"older"} if n_failures == 1 else {"older", "newer"}  # undoing may fail as well
        assert content_of(target) in expected, k
        write_folder(target, "newest")
        assert content_of(target) == "newest"
        assert names(tmp_path) == ["model"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@ways
def test_killed_before_any_call_the_folder_is_the_older_or_the_newer_one(tmp_path, can_exchange):
    target = tmp_path / "model"
    n_calls = len(count_calls(lambda: write_folder(target, "older"), can_exchange=can_exchange))
    seen = set()
    for k in range(1, n_calls + 8):
        write_folder(target, "older")
        if not killed_before_call(lambda: write_folder(target, "newer"), k, can_exchange=can_exchange):
            break
        seen.add(content_of(target))
        write_folder(target, "newest")
        assert content_of(target) == "newest"
        assert names(tmp_path) == ["model"]
    assert seen == {"older", "newer"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux's")
def test_a_reader_never_finds_the_folder_missing_while_it_is_replaced(tmp_path):
    write_folder(tmp_path / "model", "0")
    code = (
        "import sys; from pathlib import Path; from scratchlm.core.files import new_folder\n"
        "while True:\n"
        "  with new_folder(Path(sys.argv[1])) as f: (f / 'a').write_text('1'); (f / 'b').write_text('1')"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "model")]) as writer:
        while content_of(tmp_path / "model") == "0":
            time.sleep(0.001)
        n_missing = sum(not (tmp_path / "model").exists() for _ in range(20_000))
        writer.kill()
    assert n_missing == 0


def test_a_partial_names_host_and_process_and_is_removed_by_the_next_writer_of_its_target(tmp_path, dead_pid):
    with partial_beside(tmp_path / "model") as partial:
        assert partial.name.endswith(f"{PARTIAL_MARK}{atomic_replace._host()}-{os.getpid()}")
    assert atomic_replace._host() in platform.node().replace(".", "_")
    (tmp_path / f".model{PARTIAL_MARK}{atomic_replace._host()}-{dead_pid}").mkdir()
    (tmp_path / f"..model{PARTIAL_MARK}x-1{PARTIAL_MARK}{atomic_replace._host()}-{dead_pid}").mkdir()
    (tmp_path / f".other{PARTIAL_MARK}{atomic_replace._host()}-{dead_pid}").mkdir()
    write_folder(tmp_path / "model", "x")
    assert names(tmp_path) == [f".other{PARTIAL_MARK}{atomic_replace._host()}-{dead_pid}", "model"]


@pytest.mark.parametrize(
    ("owner", "age_s", "stays"),
    [
        ("{here}-{dead}", 0, False),
        ("{here}-{living}", 0, True),
        ("{here}-{living}", 86_400, False),  # that process began later: it only has the same number
        ("{dead}", 0, False),  # the names of earlier versions
        ("old-{dead}", 0, False),
        ("elsewhere-{dead}", 3600, True),
        ("elsewhere-{dead}", 3 * 86_400, False),
    ],
)
def test_only_partials_that_nobody_can_be_writing_are_removed(
    tmp_path, dead_pid, living_pid, owner, age_s, stays
):
    mark = owner.format(here=atomic_replace._host(), dead=dead_pid, living=living_pid)
    folder = tmp_path / f".a{PARTIAL_MARK}{mark}"
    folder.mkdir()
    (folder / "in").write_text("x")
    for path in (folder / "in", folder):
        os.utime(path, (time.time() - age_s,) * 2)
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / f"no{PARTIAL_MARK}1").write_text("x")
    remove_partials(tmp_path)
    assert folder.exists() is stays
    assert (tmp_path / ".hidden").exists()
    assert (tmp_path / f"no{PARTIAL_MARK}1").exists()


def test_a_folder_that_was_set_aside_is_read_under_its_name_and_comes_back(tmp_path, dead_pid):
    write_folder(tmp_path / "model", "older")
    aside = tmp_path / f".model{ASIDE_MARK}{atomic_replace._host()}-{dead_pid}"
    (tmp_path / "model").rename(aside)
    assert content_of(tmp_path / "model") == "older"
    assert standing_in(tmp_path) == {"model": aside}
    remove_partials(tmp_path)
    assert names(tmp_path) == ["model"]
    assert content_of(tmp_path / "model") == "older"


def test_a_folder_is_not_brought_back_while_its_replacement_is_at_work(tmp_path, living_pid):
    write_folder(tmp_path / "model", "older")
    aside = tmp_path / f".model{ASIDE_MARK}{atomic_replace._host()}-{living_pid}"
    (tmp_path / "model").rename(aside)
    remove_partials(tmp_path)
    assert names(tmp_path) == [aside.name]
    assert content_of(tmp_path / "model") == "older"


def test_the_working_folder_stands_where_it_is():
    for name in (".", "..", "/"):
        assert standing(Path(name)) == Path(name)


def test_a_link_to_a_folder_keeps_pointing_to_what_is_written(tmp_path):
    write_folder(tmp_path / "disk" / "model", "older")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    write_folder(tmp_path / "link", "newer")
    assert (tmp_path / "link").is_symlink()
    assert content_of(tmp_path / "disk" / "model") == "newer"
    assert names(tmp_path) == ["disk", "link"]
    assert names(tmp_path / "disk") == ["model"]


@pytest.mark.parametrize("name", ["m" * 200, "ü" * 120])
def test_a_name_as_long_as_the_file_system_allows_is_written_and_replaced(tmp_path, name):
    for content in ("older", "newer"):
        write_folder(tmp_path / name, content)
    write_text(tmp_path / f"{name}.txt", "x")
    assert names(tmp_path) == sorted([name, f"{name}.txt"])


def test_two_writers_of_one_target_in_one_process_do_not_meet(tmp_path):
    with new_folder(tmp_path / "model") as one, new_folder(tmp_path / "model") as other:
        assert one != other
        for folder, content in ((one, "1"), (other, "2")):
            (folder / "a").write_text(content)
            (folder / "b").write_text(content)
    assert content_of(tmp_path / "model") == "1"  # the outer block ends last
    assert names(tmp_path) == ["model"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_deletion_that_is_killed_leaves_the_folder_or_nothing_that_looks_like_it(tmp_path):
    target = tmp_path / "model"
    for k in range(1, 20):
        write_folder(target, "x")
        if not killed_before_call(lambda: remove_folder(target), k, can_exchange=True):
            break
        assert not target.exists() or content_of(target) == "x"
        remove_partials(tmp_path)
        assert names(tmp_path) in ([], ["model"])
    assert k > 3
