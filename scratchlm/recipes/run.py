"""Run the stages of a recipe: skip those that are complete, resume the one that was interrupted."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

import torch

from scratchlm.checkpoints.store import checkpoint_folder, checkpoint_step, list_checkpoints, verify
from scratchlm.core.atomic_replace import PARTIAL_MARK, discard, remove_folder, remove_partials
from scratchlm.core.device import peak_memory_bytes
from scratchlm.core.errors import CheckpointError, ConfigError, ScratchLMError
from scratchlm.core.files import make_parent, write_json, write_text
from scratchlm.core.json_table import read_json_table
from scratchlm.core.protocols import ShowsProgress, no_progress
from scratchlm.core.run_lock import LOCK_FILE, run_lock
from scratchlm.recipes.inputs import check_inputs
from scratchlm.recipes.recipe import Recipe, Stage, differing_settings, load_recipe, save_recipe
from scratchlm.recipes.stages import STAGES, StageRun, stage_folder
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import EXTENDABLE
from scratchlm.training.distributed import current_ranks
from scratchlm.training.interrupts import StoppedBySignal

Figures: TypeAlias = Mapping[Stage, dict[str, Any]]  # of each stage, as plain values
RendersReport: TypeAlias = Callable[[str, Recipe, Path, Figures, torch.device], str]  # -> the page


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run."""

    out: Path
    report: Path
    seconds: float  # over all stages, including earlier calls
    figures: dict[Stage, dict[str, Any]]
    was_complete: bool  # whether all stages were already complete


def run_recipe(
    name: str,
    recipe: Recipe,
    out: Path,
    *,
    device: torch.device,
    render: RendersReport,
    callbacks_for: Callable[[Stage], Sequence[Callback]] = lambda stage: (),
    fresh: bool = False,
    extend: bool = False,
    notify: Callable[[str], None] = lambda message: None,
    progress: ShowsProgress = no_progress,
) -> RunResult:
    """Run every stage that is not complete yet, then write `report.html` with `render`.

    `fresh` deletes an earlier run in `out` first; `extend` continues it with other limits (see EXTENDABLE).
    Raises: ConfigError when `out` holds a run with other settings or other files, or is in use by another process;
        the stages' errors.
    """
    recipe.check()
    if fresh:
        check_inputs(recipe)  # before the earlier run is deleted
    ranks = current_ranks()
    with ExitStack() as stack:
        with ranks.main_first():
            if not ranks.is_main and not (out / "recipe.toml").exists():
                raise ConfigError(
                    f"rank {ranks.rank} does not see {out}, the folder of the run; put it on storage that all hosts "
                    "share (--out)."
                )
            if ranks.is_main:
                _refuse_foreign(out)
                stack.enter_context(run_lock(out))
                stack.enter_context(_removed_unless_begun(out))
                prepare_folder(out, recipe, fresh=fresh, extend=extend)
                stack.enter_context(run_lock(out))  # with fresh, out is another folder now
        ranks.wait()  # an error below may remove the folder
        stages, report = recipe.stages, out / "report.html"
        figures: dict[Stage, dict[str, Any]] = {}
        done = [stage for stage in stages if _is_complete(recipe, out, stage)]
        if len(done) < len(stages) and not fresh:
            check_inputs(recipe)
        ranks.wait()  # none begins while another still reads the folder
        for number, stage in enumerate(stages, start=1):
            notify(f"[{number}/{len(stages)}] {stage}{': complete' if stage in done else ''}")
            if stage not in done:
                _run_stage(
                    stage,
                    StageRun(
                        recipe=recipe,
                        out=out,
                        device=device,
                        callbacks=callbacks_for(stage),
                        notify=notify,
                        progress=progress,
                    ),
                )
            ranks.wait()  # for rank 0, which writes the results
            figures[stage] = dict(read_json_table(_figures_file(out, stage)).values)
        was_complete = len(done) == len(stages) and report.exists()
        if not was_complete and ranks.is_main:
            write_text(report, render(name, recipe, out, figures, device))
        seconds = sum(found["stage_seconds"] for found in figures.values())
        return RunResult(out=out, report=report, seconds=seconds, figures=figures, was_complete=was_complete)


@contextmanager
def _removed_unless_begun(out: Path) -> Iterator[None]:
    """Delete a new run folder if the run fails before its first step, so that the corrected command works."""
    is_new = not _is_used(out)
    try:
        yield
    except ScratchLMError:
        if is_new and not any(out.rglob("metrics.jsonl")):
            discard(out)
        raise


def _run_stage(stage: Stage, run: StageRun) -> None:
    """Run a stage and write its figures; a signal's StoppedBySignal names the command that resumes the run."""
    started_at_s = time.perf_counter()
    try:
        found = STAGES[stage](run)
    except StoppedBySignal as stop:
        raise StoppedBySignal(
            stop.signal_number, f"stopped in stage {stage} after saving; `scratchlm run {run.out}` continues."
        ) from stop
    if not current_ranks().is_main:
        return
    facts = {
        "stage_seconds": time.perf_counter() - started_at_s + found["earlier_seconds"],
        "peak_memory_bytes": peak_memory_bytes(),
        "finished_at": datetime.now(timezone.utc).isoformat(),
    }
    file = _figures_file(run.out, stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**found, **facts})


def prepare_folder(out: Path, recipe: Recipe, *, fresh: bool, extend: bool) -> None:
    """Prepare the run folder: a new one, one to resume, or one that `fresh` empties.

    Raises: ConfigError when it holds a run with other settings, or anything but a run.
    """
    _refuse_foreign(out)
    saved = out / "recipe.toml"
    if saved.exists() and fresh:
        _remove_run(out, recipe)
    if saved.exists():
        _, earlier = load_recipe(str(saved))
        differing = [
            name for name in differing_settings(earlier, recipe) if name not in ("description", "needs")
        ]
        # With several stages the later ones would use the model of the shorter run.
        can_extend = extend and len(recipe.stages) == 1
        is_extension = can_extend and all(name.rpartition(".")[2] in EXTENDABLE for name in differing)
        if differing and not is_extension:
            raise ConfigError(
                f"{out} holds a run with other settings ({', '.join(differing[:5])}); continue it with its own "
                f"(`scratchlm run {out}`), start over with --fresh, or choose another --out."
            )
        if differing:  # delete the old report first, so that it is never taken for that of the new run
            (out / "report.html").unlink(missing_ok=True)
        for stage in {name.partition(".")[0] for name in differing}:
            (out / "figures" / f"{stage}.json").unlink(missing_ok=True)  # no longer complete
        if recipe != earlier:
            save_recipe(recipe, saved)
        remove_partials(out)
        remove_partials(out / "figures")
        (out / ".running.json").unlink(missing_ok=True)  # the lock of earlier versions
        return
    make_parent(saved, error=ConfigError)
    remove_partials(out)
    save_recipe(recipe, saved)


def _refuse_foreign(out: Path) -> None:
    """Reject a folder with files that do not belong to a run."""
    if out.is_file():
        raise ConfigError(f"{out} is a file, not a folder; choose another --out.")
    if _is_used(out) and not (out / "recipe.toml").exists():
        raise ConfigError(f"{out} holds files that are not of a run; choose another --out.")


def _is_used(out: Path) -> bool:
    own = (LOCK_FILE, PARTIAL_MARK)
    return out.is_dir() and not all(any(mark in path.name for mark in own) for path in out.iterdir())


def _remove_run(out: Path, recipe: Recipe) -> None:
    """Delete a run folder atomically; ConfigError when the new run needs something in it."""
    data = recipe.data
    used = [recipe.base or "", *data.text, *data.messages, *data.instructions, *data.preferences]
    inside = [name for name in used if name and Path(name).resolve().is_relative_to(out.resolve())]
    if inside:
        raise ConfigError(f"--fresh would delete {inside[0]}, which this run needs; choose another --out.")
    remove_folder(out)


def _is_complete(recipe: Recipe, out: Path, stage: Stage) -> bool:
    """Whether the stage has its results, and an intact checkpoint to which they belong."""
    folder, file = stage_folder(out, stage, recipe.stages), _figures_file(out, stage)
    checkpoints = list_checkpoints(folder)
    if not checkpoints or not file.exists():
        return False
    used_step = read_json_table(file).get("used_step", int, checkpoint_step(checkpoints[-1]))
    try:
        for checkpoint in {checkpoints[-1], checkpoint_folder(folder, used_step)}:
            verify(checkpoint)
    except CheckpointError:  # the stage resumes from the one before, or reports that there is none
        return False
    return True


def _figures_file(out: Path, stage: Stage) -> Path:
    return out / "figures" / f"{stage}.json"
