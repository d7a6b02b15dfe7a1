"""`scratchlm serve`: a web page and an API for models."""

import dataclasses
import os
import threading
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from scratchlm.checkpoints.store import list_checkpoints
from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.runs_list import HEADLINES, run_record
from scratchlm.cli.started_runs import StartedRuns
from scratchlm.core.errors import ConfigError, DataError, MissingDependencyError, ScratchLMError
from scratchlm.reports.comparison_data import answer_columns, read_answer_file
from scratchlm.reports.found_runs import FoundRun, find_runs, look_at_run
from scratchlm.reports.paired_items import pair_items
from scratchlm.reports.run_data import curves
from scratchlm.training.history import History

if TYPE_CHECKING:  # optional dependencies
    from scratchlm.serving.models import ModelSource, ServedModel

MAX_ANSWERS = 2000  # of a run that the page shows
TOKEN_VARIABLE = "SCRATCHLM_TOKEN"  # noqa: S105  (its name, not its value)


@dataclass(frozen=True, kw_only=True)
class Serve(Common):
    """Serve a web page and an API that clients of OpenAI and Ollama can use, for one model or several.

    Without MODEL, the models in the runs folder are served, including those trained later. NAME=MODEL gives a model an
    id other than the last two parts of its path. The server accepts connections from this machine only; another --host
    needs a token, from --token-file or the environment variable SCRATCHLM_TOKEN.

    Example: scratchlm serve runs/quickstart/instruct base=runs/quickstart --port 8000
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()  # models to serve: MODEL or NAME=MODEL
    model: tuple[str, ...] = ()  # the same as a flag, as other commands have it
    runs_dir: Path = Path("runs")  # the folder with the runs that the page shows
    host: str = "127.0.0.1"  # address to listen on; another than this machine's own needs a token
    port: int = 8000  # port to listen on; 0 chooses a free one
    open: bool = False  # open the page in the browser
    token_file: Path | None = None  # file with the token that clients must send
    allow_hosts: tuple[str, ...] = ()  # further names under which clients may address the server
    allow_origins: tuple[str, ...] = ()  # origins of other pages with access, e.g. http://localhost:3000
    n_slots: int = 16  # maximum number of texts that one model generates at the same time
    max_waiting: int = 64  # maximum number of texts that wait for a slot; the server answers 503 to more
    cache_mb: int = 2048  # memory in MB for keys and values of each model; less means fewer texts at a time
    drain_s: float = 30.0  # seconds that running requests get to finish after SIGTERM


class FolderOfRuns:
    """The runs of a folder, as `/api/runs` shows them; a name is looked up in its list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all_runs(self) -> list[dict[str, Any]]:
        """A summary of every run."""
        return [_without_path(run) for run in find_runs(self.folder)] if self.folder.is_dir() else []

    def one_run(self, name: str) -> dict[str, Any] | None:
        """One run with its curves and samples, or None."""
        path = self._path(name)
        if path is None:
            return None
        run = look_at_run(path)
        samples = History(path / "samples.jsonl").records() if run.is_run else []
        histories = {stage: curves(run.folder(stage)) for stage in run.stages}
        return {
            **_without_path(run),
            "settings": _without_folders(run.settings),
            "history": histories,
            "samples": samples,
            "has_report": (path / "report.html").is_file(),
        }

    def answers(self, name: str) -> dict[str, Any] | None:
        """A run's answers and its judgements, item by item, or None."""
        path = self._path(name)
        if path is None:
            return None
        columns, problems = answer_columns(look_at_run(path), name), []
        for file in sorted([*path.glob("*-by-*.jsonl"), *path.glob("*/*-by-*.jsonl")]):
            try:
                columns.append(read_answer_file(file).column(name, run=0))
            except DataError:  # of a judge that was interrupted; the other answers are shown
                problems.append(f"{file.name} is damaged or unfinished, so it is not shown.")
        paired = pair_items(columns)
        return {
            "columns": [
                {"label": c.label, "score_name": c.score_name, "score_max": c.score_max} for c in columns
            ],
            "items": [dataclasses.asdict(item) for item in paired.items[:MAX_ANSWERS]],
            "problems": problems,
        }

    def report(self, name: str) -> str | None:
        """The run's report.html, or None."""
        path = self._path(name)
        file = None if path is None else path / "report.html"
        return file.read_text(encoding="utf-8") if file is not None and file.is_file() else None

    def _path(self, name: str) -> Path | None:
        """The folder of that name; the name is compared, and never becomes a path."""
        if not self.folder.is_dir() or name.startswith("."):
            return None
        return next((path for path in self.folder.iterdir() if path.name == name and path.is_dir()), None)


def _without_folders(value: Any) -> Any:
    """Settings whose absolute paths are only the names of files and folders."""
    if isinstance(value, Mapping):
        return {name: _without_folders(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _without_path(run: FoundRun) -> dict[str, Any]:
    """A run as the page shows it, without paths of the server."""
    record = run_record(run)
    del record["path"]
    if record["problem"]:
        for path in (run.path.resolve(), run.path):
            record["problem"] = record["problem"].replace(str(path), run.name)
    return record | {"metrics": {stage: HEADLINES[stage][0] for stage in run.stages}}


@command_line(Serve)
def main(command: Serve, console: Console) -> dict[str, Any]:
    """Load the models and serve until a signal; returns the `--json` keys."""
    try:
        from scratchlm.serving.app import create_app
        from scratchlm.serving.models import model_sources, open_served
        from scratchlm.serving.run_server import address_of, open_socket, run_server
        from scratchlm.serving.settings import ServeSettings
    except ImportError as cause:
        raise MissingDependencyError(
            f"serve needs FastAPI and uvicorn, of which {cause.name} is missing; install them with "
            "`pip install 'scratchlm[serve]'`."
        ) from cause
    settings = ServeSettings(
        host=command.host,
        port=command.port,
        token=_token(command.token_file),
        allow_hosts=command.allow_hosts,
        allow_origins=command.allow_origins,
        n_slots=command.n_slots,
        max_waiting=command.max_waiting,
        cache_bytes=command.cache_mb << 20,
        drain_s=command.drain_s,
    )
    named = (*command.models, *command.model)
    sources = model_sources(named)

    def opened(source: "ModelSource") -> "ServedModel":
        console.print(f"loading {source.id} ...")
        return open_served(source, device=command.device)

    def opened_folder(folder: Path) -> "ServedModel":
        return opened(*model_sources([str(folder)]))

    models_of_runs = ModelsOfRuns(command.runs_dir, opened_folder, report=console.print)
    bound = open_socket(settings)  # before the models are loaded: a port in use is reported at once
    with bound:
        models = [opened(source) for source in sources] if named else models_of_runs()
        if not models:
            raise ConfigError(
                f"there is no model in {command.runs_dir}; name one, as in `scratchlm serve MODEL`, or train one with "
                "`scratchlm run`."
            )
        address = address_of(bound)

        def report() -> None:
            print(
                f"serving {', '.join(model.id for model in models)} on {address} (Ctrl-C stops)", flush=True
            )
            if command.open:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        runs, control = FolderOfRuns(command.runs_dir), StartedRuns(command.runs_dir)
        new_models = None if named else models_of_runs
        app = create_app(models, settings, runs=runs, control=control, new_models=new_models)
        run_server(app, bound, settings, on_start=report)
    return {"address": address, "models": [model.id for model in models]}


class ModelsOfRuns:
    """The models of the runs folder: every stage of every run that has a checkpoint.

    Each call opens and returns those that are new, or have another checkpoint than when they were opened. A stage that
    is being trained at the first call is opened as it is, later ones when they are complete.
    """

    def __init__(
        self, folder: Path, open_one: "Callable[[Path], ServedModel]", *, report: Callable[[str], None]
    ) -> None:
        self.folder, self.open_one, self.report = folder, open_one, report
        self._opened: dict[Path, list[Path]] | None = None  # the checkpoints that each model had

    def __call__(self) -> "list[ServedModel]":
        """Look once; a model that cannot be opened is reported and left out until it changes."""
        is_first, found = self._opened is None, []
        self._opened = self._opened or {}
        for run in find_runs(self.folder) if self.folder.is_dir() else []:
            settled = run.stages if is_first or run.state != "running" else tuple(run.figures)
            for folder in dict.fromkeys(run.folder(stage) for stage in settled if run.is_run):
                checkpoints = list_checkpoints(folder)
                if not checkpoints or self._opened.get(folder) == checkpoints:
                    continue
                self._opened[folder] = checkpoints
                try:
                    found.append(self.open_one(folder))
                except ScratchLMError as error:
                    self.report(f"{folder} is left out: {error}")
        return found


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"the token file {file} cannot be read: {cause}; check the path.") from cause
