"""Send curves and samples to Weights & Biases, MLflow or Trackio (`--track`).

Each writes to this machine unless its own environment variables say otherwise: W&B offline into the run folder until
WANDB_MODE is set; MLflow into `mlflow/` of the run folder until MLFLOW_TRACKING_URI is set; Trackio into its own folder
until TRACKIO_SPACE_ID is set. A tracker that fails is dropped with one warning, and training continues.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from scratchlm.core.errors import MissingDependencyError
from scratchlm.training.callbacks import Callback, StepRecord

logger = logging.getLogger(__name__)

TrackerName: TypeAlias = Literal["wandb", "mlflow", "trackio"]
Log: TypeAlias = Callable[[dict[str, Any], int], object]  # (numbers and texts, step)
Finish: TypeAlias = Callable[[int], object]  # (exit code)
PROJECT = "scratchlm"
MAX_SETTING = 500  # characters of one setting; MLflow's limit is 6,000
NO_TELEMETRY = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Tracker(Callback):
    """A callback that logs to a tracking service; after an error the service is not used again."""

    def __init__(self, name: TrackerName, start: Callable[[], tuple[Log, Finish]]) -> None:
        self._name = name
        self._service: tuple[Log, Finish] | None = None
        with self._guarded():
            self._service = start()

    def on_step(self, record: StepRecord) -> None:
        """Training loss, learning rate, gradient norm and speed."""
        names = ("learning_rate", "grad_norm", "tokens_per_s", "tokens")
        values = {
            "train/loss": record.train_loss,
            **{f"train/{name}": getattr(record, name) for name in names},
        }
        self._log({name: float(value) for name, value in values.items()}, record.step)

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """All metrics of the evaluation."""
        self._log({f"validation/{name.removeprefix('val_')}": value for name, value in metrics.items()}, step)

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Prompt and continuation."""
        self._log({"sample": f"{prompt}{text}"}, step)

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Do nothing: weights are not uploaded."""

    def finish(self, exit_code: int = 0) -> None:
        """End the tracked run; an exit code other than 0 marks it as failed."""
        if self._service is not None:
            with self._guarded():
                self._service[1](exit_code)
            self._service = None

    def _log(self, values: dict[str, Any], step: int) -> None:
        if self._service is not None:
            with self._guarded():
                self._service[0](values, step)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep the service's output off standard output, and its errors from stopping the training."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except MissingDependencyError:
            raise
        except Exception as error:  # noqa: BLE001  (other people's network code: anything can come out of it)
            self._service = None
            logger.warning(
                "%s failed, training continues without it: %s: %s", self._name, type(error).__name__, error
            )


@contextlib.contextmanager
def tracked(name: TrackerName, *, run: str, settings: Mapping[str, Any], folder: Path) -> Iterator[Tracker]:
    """Provide a tracker for the duration of a training run.

    `run` names the training in the service, `settings` are its plain settings, `folder` is where a service may write.
    Raises: MissingDependencyError when the service's package is not installed.
    """
    tracker = Tracker(name, lambda: START[name](check_tracker(name), run, dict(settings), folder))
    try:
        yield tracker
    except BaseException:
        tracker.finish(exit_code=1)
        raise
    tracker.finish()


def check_tracker(name: TrackerName) -> Any:
    """Import a service's package, so that a missing package is detected before training.

    Raises: MissingDependencyError naming what to install.
    """
    for variable, value in NO_TELEMETRY.items():
        os.environ.setdefault(variable, value)
    try:
        if name == "wandb":
            import wandb

            return wandb
        if name == "mlflow":
            import mlflow

            return mlflow
        import trackio

        return trackio
    except ImportError as cause:
        raise MissingDependencyError(
            f"--track {name} needs the package {name}, which is not installed; pip install 'scratchlm[track]', or "
            "leave --track out: TensorBoard's files are written anyway."
        ) from cause


def _start_wandb(wandb: Any, name: str, settings: dict[str, Any], folder: Path) -> tuple[Log, Finish]:
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), name=name, config=settings, dir=str(folder),
        mode=os.environ.get("WANDB_MODE", "offline"), settings=wandb.Settings(console="off", silent=True),
    )  # fmt: skip
    return run.log, run.finish


def _start_trackio(trackio: Any, name: str, settings: dict[str, Any], folder: Path) -> tuple[Log, Finish]:  # noqa: ARG001
    run = trackio.init(project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=name, config=settings)
    return run.log, lambda exit_code: run.finish()


def _start_mlflow(mlflow: Any, name: str, settings: dict[str, Any], folder: Path) -> tuple[Log, Finish]:
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        own = (folder / "mlflow").resolve()
        own.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{own.as_posix()}/mlflow.db")
        if mlflow.get_experiment_by_name(experiment) is None:
            mlflow.create_experiment(experiment, artifact_location=(own / "artifacts").as_uri())
    mlflow.set_experiment(experiment)
    mlflow.start_run(run_name=name)
    mlflow.log_params({key: str(value)[:MAX_SETTING] for key, value in settings.items()})

    def log(values: dict[str, Any], step: int) -> None:
        if "sample" in values:
            mlflow.log_text(values["sample"], f"samples/step-{step:08d}.txt")
        else:
            mlflow.log_metrics(values, step=step, synchronous=False)  # synchronous logging delays training

    def finish(exit_code: int) -> None:
        mlflow.flush_async_logging()
        mlflow.end_run(status="FAILED" if exit_code else "FINISHED")

    return log, finish


START: dict[TrackerName, Callable[[Any, str, dict[str, Any], Path], tuple[Log, Finish]]] = {
    "wandb": _start_wandb,
    "mlflow": _start_mlflow,
    "trackio": _start_trackio,
}
