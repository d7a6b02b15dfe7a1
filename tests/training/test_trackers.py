"""Weights & Biases, MLflow and Trackio receive every figure, and their failures never stop a training."""

import importlib.util
import logging
import os
import sqlite3
import sys
import types

import pytest

from scratchlm.core.errors import MissingDependencyError
from scratchlm.training.callbacks import StepRecord
from scratchlm.training.trackers import check_tracker, tracked

NAMES = ("wandb", "mlflow", "trackio")
LOSSES = {1: 5.0, 2: 2.5}


def record(step):
    return StepRecord(
        step=step, n_steps=2, epoch=0, tokens=100 * step, train_loss=LOSSES[step], learning_rate=0.1,
        grad_norm=1.0, tokens_per_s=50.0, elapsed_s=1.0, memory_bytes=10,
    )  # fmt: skip


def train(name, folder, *, fails=False):
    with tracked(
        name, run="run/pretrain", settings={"model.emb_dim": 16, "long": "x" * 9000}, folder=folder
    ) as tracker:
        tracker.on_evaluation(0, {"val_loss": 6.0})
        for step in LOSSES:
            tracker.on_step(record(step))
        tracker.on_evaluation(2, {"val_loss": 2.25, "val_accuracy": 0.75})
        tracker.on_sample(2, "Once", " upon a time")
        tracker.on_checkpoint(2, folder)
        if fails:
            raise KeyboardInterrupt


class Logged:
    """What a stand-in received, in a form that all three share."""

    def __init__(self):
        self.opened, self.numbers, self.texts, self.closed = {}, [], [], []


def stand_in(name: str, logged: Logged, *, broken: str = "") -> types.ModuleType:
    """A module with the part of the real one's interface that a tracker may use; `broken` names a call that fails."""
    module = types.ModuleType(name)

    def may_fail(call):
        if call == broken:
            raise ConnectionError("no route to host")

    def take(values, step):
        may_fail("log")
        logged.numbers += [(key, value, step) for key, value in values.items() if not isinstance(value, str)]
        logged.texts += [(value, step) for value in values.values() if isinstance(value, str)]

    class Run:
        def log(self, data, step=None):
            take(data, step)

        def finish(self, exit_code=0):
            may_fail("close")
            logged.closed.append(exit_code)

    def init(project=None, name=None, config=None, mode=None, dir=None, settings=None):  # noqa: A002
        may_fail("open")
        print("chatter")
        logged.opened = {"project": project, "name": name, "config": config, "mode": mode, "dir": dir}
        return Run()

    def start_run(run_id=None, experiment_id=None, run_name=None):
        may_fail("open")
        print("chatter")
        logged.opened |= {"name": run_name}

    def log_params(params, synchronous=None):
        assert all(len(value) <= 6000 for value in params.values()), "MLflow refuses longer ones"
        logged.opened |= {"config": params}

    def end_run(status="FINISHED"):
        may_fail("close")
        logged.closed.append({"FINISHED": 0, "FAILED": 1}[status])

    if name != "mlflow":
        module.init, module.Settings = init, lambda console, silent: None
    else:
        module.set_tracking_uri = lambda uri: logged.opened.__setitem__("uri", uri)
        module.get_experiment_by_name = lambda name: None
        module.create_experiment = lambda name, artifact_location=None, tags=None: "1"
        module.set_experiment = lambda experiment_name=None: logged.opened.__setitem__(
            "project", experiment_name
        )
        module.start_run, module.log_params, module.end_run = start_run, log_params, end_run
        module.log_metrics = lambda metrics, step=None, synchronous=None: take(metrics, step)
        module.log_text = lambda text, artifact_file: take({"text": text}, int(artifact_file[-12:-4]))
        module.flush_async_logging = lambda: None
    return module


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """Settings of this user or machine must not decide a test, and a tracker's own must not outlive it."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    for name in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def use(monkeypatch):
    def use_stand_in(name, **more):
        logged = Logged()
        monkeypatch.setitem(sys.modules, name, stand_in(name, logged, **more))
        return logged

    return use_stand_in


@pytest.mark.parametrize("name", NAMES)
def test_every_step_evaluation_and_sample_is_logged(name, use, tmp_path):
    logged = use(name)
    train(name, tmp_path)
    assert [n for n in logged.numbers if n[0] == "train/loss"] == [
        ("train/loss", 5.0, 1),
        ("train/loss", 2.5, 2),
    ]
    assert ("validation/loss", 6.0, 0) in logged.numbers
    assert ("validation/accuracy", 0.75, 2) in logged.numbers
    assert logged.texts == [("Once upon a time", 2)]
    assert logged.opened["name"] == "run/pretrain"
    assert logged.opened["project"] == "scratchlm"
    assert str(logged.opened["config"]["model.emb_dim"]) == "16"
    assert logged.closed == [0]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_training_that_fails_is_marked_as_failed(name, use, tmp_path):
    logged = use(name)
    with pytest.raises(KeyboardInterrupt):
        train(name, tmp_path, fails=True)
    assert logged.closed == [1]


@pytest.mark.parametrize("broken", ["open", "log", "close"])
@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_that_fails_is_reported_once_and_stops_nothing(name, broken, use, tmp_path, caplog):
    use(name, broken=broken)
    with caplog.at_level(logging.WARNING):
        train(name, tmp_path)
    (warning,) = caplog.messages
    assert warning == f"{name} failed, training continues without it: ConnectionError: no route to host"


@pytest.mark.parametrize("name", NAMES)
def test_a_trackers_own_output_stays_off_standard_output(name, use, tmp_path, capsys):
    use(name)
    train(name, tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "chatter" in err


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named_with_what_installs_it(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    for act in (lambda: check_tracker(name), lambda: train(name, tmp_path)):
        with pytest.raises(
            MissingDependencyError, match=rf"needs the package {name}, .* 'scratchlm\[track\]'"
        ):
            act()


def test_nothing_leaves_this_machine_unless_the_user_says_so(use, tmp_path, monkeypatch):
    assert_offline = use("wandb")
    train("wandb", tmp_path)
    assert assert_offline.opened["mode"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    asked = use("wandb")
    train("wandb", tmp_path)
    assert asked.opened["mode"] == "online"
    local = use("mlflow")
    train("mlflow", tmp_path)
    assert local.opened["uri"] == f"sqlite:///{tmp_path.as_posix()}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    remote = use("mlflow")
    train("mlflow", tmp_path)
    assert "uri" not in remote.opened, "MLflow reads that variable itself"


def real(name: str, *more: str) -> None:
    missing = [one for one in (name, *more) if importlib.util.find_spec(one) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed; pip install 'scratchlm[track]'")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of those packages, about themselves
def test_the_real_mlflow_holds_the_numbers(tmp_path):
    real("mlflow", "sqlalchemy", "alembic")
    train("mlflow", tmp_path)
    with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as database:
        rows = database.execute(
            "select step, value from metrics where key = 'train/loss' order by step"
        ).fetchall()
    assert rows == list(LOSSES.items())
    (sample,) = (tmp_path / "mlflow").rglob("step-00000002.txt")
    assert sample.read_text() == "Once upon a time"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_writes_an_offline_run_into_the_folder(tmp_path):
    real("wandb")
    train("wandb", tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"train/loss" in content
    assert b"Once upon a time" in content


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_trackio_holds_the_numbers(tmp_path, monkeypatch):
    real("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "db"))
    train("trackio", tmp_path)
    with sqlite3.connect(tmp_path / "db" / "scratchlm.db") as database:
        rows = database.execute("select step, metrics from metrics order by step").fetchall()
    losses = [
        text for _, text in rows if '"train/loss"' in (text if isinstance(text, str) else text.decode())
    ]
    assert len(losses) == len(LOSSES)
