"""Curves and samples for Weights & Biases, MLflow or Trackio, when a user asks for one; by default nothing is sent.

Each writes to this machine unless its own environment variables say otherwise: W&B offline, below the run folder, until
WANDB_MODE is set; MLflow into `mlflow/` of the run folder until MLFLOW_TRACKING_URI is set; Trackio into its own folder
until TRACKIO_SPACE_ID is set. A sink that fails is told of once and then left alone: training goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from scratchlm.core.errors import MissingDependencyError
from scratchlm.training.callbacks import StepRecord

logger = logging.getLogger(__name__)

TrackerName: TypeAlias = Literal["wandb", "mlflow", "trackio"]
PROJECT = "scratchlm"
MAX_SETTING = 500  # characters of one setting; MLflow takes no more than 6,000


class Sink(Protocol):
    """Where a run's numbers and texts go."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Some numbers of one step."""
        ...

    def write(self, text: str, step: int) -> None:
        """What the model wrote at one step."""
        ...

    def close(self, *, has_failed: bool) -> None:
        """The training has ended."""
        ...


class WandbSink:
    """Weights & Biases."""

    def __init__(self, name: str, settings: Mapping[str, Any], folder: Path) -> None:
        wandb = _wandb()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            config=dict(settings),
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step; W&B puts those of the same step together."""
        self._run.log(dict(values), step=step)

    def write(self, text: str, step: int) -> None:
        """The text as it reads."""
        self._run.log({"sample": text}, step=step)

    def close(self, *, has_failed: bool) -> None:
        """Finish the W&B run."""
        self._run.finish(exit_code=int(has_failed))


class MlflowSink:
    """MLflow."""

    def __init__(self, name: str, settings: Mapping[str, Any], folder: Path) -> None:
        self._mlflow = _mlflow()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            own = (folder / "mlflow").resolve()
            own.mkdir(parents=True, exist_ok=True)
            self._mlflow.set_tracking_uri(f"sqlite:///{own.as_posix()}/mlflow.db")
            if self._mlflow.get_experiment_by_name(experiment) is None:
                self._mlflow.create_experiment(experiment, artifact_location=(own / "artifacts").as_uri())
        self._mlflow.set_experiment(experiment)
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_params({key: str(value)[:MAX_SETTING] for key, value in settings.items()})

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""
        self._mlflow.log_metrics(
            dict(values), step=step, synchronous=False
        )  # a commit a step would hold training up

    def write(self, text: str, step: int) -> None:
        """The text as a file of the run."""
        self._mlflow.log_text(text, f"samples/step-{step:08d}.txt")

    def close(self, *, has_failed: bool) -> None:
        """End the MLflow run, with everything written."""
        self._mlflow.flush_async_logging()
        self._mlflow.end_run(status="FAILED" if has_failed else "FINISHED")


class TrackioSink:
    """Trackio."""

    def __init__(self, name: str, settings: Mapping[str, Any], folder: Path) -> None:
        self._run = _trackio().init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=name, config=dict(settings), embed=False,
            auto_log_cpu=False, auto_log_gpu=False,
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""
        self._run.log(dict(values), step=step)

    def write(self, text: str, step: int) -> None:
        """The text as it reads."""
        self._run.log({"sample": text}, step=step)

    def close(self, *, has_failed: bool) -> None:
        """Finish the Trackio run."""
        self._run.finish()


SINKS: dict[TrackerName, Callable[[str, Mapping[str, Any], Path], Sink]] = {
    "wandb": WandbSink,
    "mlflow": MlflowSink,
    "trackio": TrackioSink,
}


class Tracker:
    """A callback that tells a sink what happens; a sink that fails is left alone from then on."""

    def __init__(self, name: TrackerName, open_sink: Callable[[], Sink]) -> None:
        self._name = name
        self._sink: Sink | None = None
        with self._guarded():
            self._sink = open_sink()

    def on_step(self, record: StepRecord) -> None:
        """Training loss, learning rate, gradient norm and speed."""
        values = {
            "train/loss": record.train_loss,
            "train/learning_rate": record.learning_rate,
            "train/grad_norm": record.grad_norm,
            "train/tokens_per_s": record.tokens_per_s,
            "train/tokens": float(record.tokens),
        }
        self._tell(lambda sink: sink.log(values, record.step))

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Every figure of the evaluation."""
        values = {f"validation/{name.removeprefix('val_')}": value for name, value in metrics.items()}
        self._tell(lambda sink: sink.log(values, step))

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """The text as it reads."""
        self._tell(lambda sink: sink.write(f"{prompt}{text}", step))

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Nothing to tell: weights stay where they are."""

    def close(self, *, has_failed: bool = False) -> None:
        """The training has ended."""
        self._tell(lambda sink: sink.close(has_failed=has_failed))
        self._sink = None

    def _tell(self, say: Callable[[Sink], None]) -> None:
        sink = self._sink
        if sink is not None:
            with self._guarded():
                say(sink)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """What a sink prints must not get among our output, and no fault of it may stop a training."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except MissingDependencyError:
            raise
        except Exception as error:  # noqa: BLE001  (other people's network code: anything can come out of it)
            self._sink = None
            logger.warning(
                "%s failed, training goes on without it: %s: %s", self._name, type(error).__name__, error
            )


@contextlib.contextmanager
def tracked(name: TrackerName, *, run: str, settings: Mapping[str, Any], folder: Path) -> Iterator[Tracker]:
    """A tracker for the length of a training.

    `run` names the training in the sink, `settings` are its plain settings, `folder` is where a sink may write.
    Raises: MissingDependencyError when the sink's package is not installed.
    """
    tracker = Tracker(name, lambda: SINKS[name](run, settings, folder))
    try:
        yield tracker
    except BaseException:
        tracker.close(has_failed=True)
        raise
    tracker.close()


def check_tracker(name: TrackerName) -> None:
    """Make sure that a sink can be opened, before anything is trained.

    Raises: MissingDependencyError naming what to install.
    """
    {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}[name]()


def _wandb() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing is sent that was not asked for
    try:
        import wandb
    except ImportError as cause:
        raise _missing("wandb") from cause
    return wandb


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
    except ImportError as cause:
        raise _missing("mlflow") from cause
    return mlflow


def _trackio() -> Any:
    try:
        import trackio
    except ImportError as cause:
        raise _missing("trackio") from cause
    return trackio


def _missing(name: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"--track {name} needs the package {name}, found it not installed; pip install 'scratchlm[track]', or leave "
        "--track out: TensorBoard's files are written anyway."
    )
