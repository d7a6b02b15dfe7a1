"""Folders of runs as they are found; nothing that lies there makes listing fail."""

import shutil

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.core.run_lock import run_lock
from scratchlm.reports.found_runs import find_runs, look_at_run, the_run


@pytest.fixture
def run_copy(finished, tmp_path):
    """A complete run that may be damaged."""
    return shutil.copytree(finished[1].out, tmp_path / "runs" / "whole")


def test_a_complete_run_is_told_with_its_figures(finished):
    _, result = finished
    run = look_at_run(result.out)
    assert (run.state, run.problem) == ("complete", "")
    assert run.stages == ("pretrain", "classify", "instruct")
    assert run.figures["classify"]["test_accuracy"] == result.figures["classify"]["test_accuracy"]
    assert run.step == 6
    assert run.size_bytes == sum(p.lstat().st_size for p in result.out.rglob("*") if not p.is_dir())
    assert run.what == "run (pretrain, classify, instruct)"
    assert {p.parent.parent.name for p in run.checkpoints()} == {"finished", "classify", "instruct"}


def test_a_run_without_the_figures_of_its_last_stage_is_interrupted(run_copy):
    (run_copy / "figures" / "instruct.json").unlink()
    run = look_at_run(run_copy)
    assert run.state == "interrupted"
    assert set(run.figures) == {"pretrain", "classify"}


def test_a_run_that_a_process_works_on_is_running(run_copy):
    with run_lock(run_copy):
        assert look_at_run(run_copy).state == "running"
    assert look_at_run(run_copy).state == "complete"


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("recipe.toml", "stages = [", "is not valid TOML"),
        ("recipe.toml", 'stages = ["dance"]', "stages must be a list"),
        ("recipe.toml", "stages = 3", "stages must be a list"),
        ("recipe.toml", 'stages = [["pretrain"]]', "stages must be a list"),
        ("recipe.toml", "data = 3", "must be a table of settings, got 3"),
        ("figures/pretrain.json", '{"val_loss": ', "is not valid JSON"),
        ("figures/pretrain.json", "[1, 2]", "must be a JSON object"),
    ],
)
def test_a_damaged_run_is_named_with_what_is_wrong(run_copy, file, content, told):
    (run_copy / file).write_text(content)
    run = look_at_run(run_copy)
    assert run.state == "damaged"
    assert told in run.problem
    assert not run.is_run


def test_a_history_of_garbage_has_no_last_step(run_copy):
    for folder in ("", "classify", "instruct"):
        (run_copy / folder / "metrics.jsonl").write_bytes(b"\xff\x00 garbage\n")
    assert look_at_run(run_copy).step is None


@pytest.mark.parametrize("torn", [b'{"kind": "step", "step": 99', b"\0" * 50, b'{"step": 9\xc3\n', b"{}\n"])
def test_what_a_kill_left_at_the_end_is_not_the_last_step(run_copy, torn):
    with (run_copy / "instruct" / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert look_at_run(run_copy).step == 6


def test_every_folder_is_listed_whatever_it_holds(run_copy):
    runs_dir = run_copy.parent
    (runs_dir / "notes").mkdir()
    (runs_dir / ".hidden").mkdir()
    (runs_dir / "file.txt").write_text("x")
    assert [(run.name, run.state) for run in find_runs(runs_dir)] == [
        ("notes", "foreign"),
        ("whole", "complete"),
    ]


def test_links_inside_a_run_are_not_followed_when_it_is_measured(run_copy, tmp_path):
    before = look_at_run(run_copy).size_bytes
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    (run_copy / "link").symlink_to(tmp_path / "big")
    (run_copy / "up").symlink_to(tmp_path)
    assert look_at_run(run_copy).size_bytes < before + 1000


def test_a_run_is_found_by_path_and_by_name(run_copy):
    assert the_run(str(run_copy)).path == run_copy
    assert the_run("whole", run_copy.parent).path == run_copy


def test_what_is_no_run_is_refused_with_its_reason(run_copy, tmp_path):
    with pytest.raises(ConfigError, match=r"does not exist"):
        the_run("missing", run_copy.parent)
    with pytest.raises(ConfigError, match=r"is not a run: recipe\.toml is missing"):
        the_run(str(tmp_path))
    with pytest.raises(ConfigError, match=r"the runs folder .* does not exist"):
        find_runs(tmp_path / "missing")


def test_a_damaged_run_is_told_in_one_sentence(run_copy):
    (run_copy / "recipe.toml").write_text("stages = [")
    with pytest.raises(ConfigError, match="is damaged: ") as caught:
        the_run(str(run_copy))
    assert ".;" not in str(caught.value)
