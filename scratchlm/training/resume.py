"""Find the checkpoint from which a run resumes, and check that it belongs to the same run."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from scratchlm.checkpoints.store import (
    TrainingState,
    list_checkpoints,
    load_tensors,
    load_training_state,
    verify,
)
from scratchlm.core.config import from_dict, to_dict, with_new_names
from scratchlm.core.errors import CheckpointError
from scratchlm.core.json_table import JSONTable
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.training.config import TrainingConfig
from scratchlm.training.finite import find_not_finite
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.schedule import learning_rate, planned_steps

logger = logging.getLogger(__name__)

# Facts of a checkpoint that must not change on resuming.
ORIGIN = ("data_fingerprint", "base_sha256", "attend_within_documents")


@dataclass(frozen=True, kw_only=True)
class Resumable:
    """A checkpoint that a run can resume from."""

    folder: Path
    progress: Progress
    use: str  # the run's setting then
    weights: dict[str, Tensor]  # of the saved model
    state: TrainingState  # optimizer and random state; trainable weights too where the saved model is merged


def newest_resumable(run: RunFolder, config: TrainingConfig, *, n_batches: int) -> Resumable | None:
    """Find the newest intact checkpoint of a run; None when there is none yet.

    A checkpoint that is damaged, or holds numbers that are not finite, is skipped with a warning.
    Raises: CheckpointError when all are, and when the newest good one is of other data, another base, tokenizer or
        setting.
    """
    damaged: list[str] = []
    for folder in reversed(list_checkpoints(run.path)):
        try:
            manifest, state, weights = _read_finite(folder)
        except CheckpointError as error:
            damaged.append(str(error))
            logger.warning("skipping a damaged checkpoint: %s", error)
            continue
        check_same_origin(manifest, run, folder)
        saved = JSONTable(state.values, where=str(folder / "training_state.json"), error=CheckpointError)
        earlier = saved.need("config", dict)
        before = {**earlier, "n_batches": saved.need("n_batches", int)}
        check_same_settings(before, config, folder, n_batches=n_batches)
        progress = Progress.from_saved(saved.need("progress", dict))
        warn_of_another_schedule(earlier, config, progress, n_batches=n_batches)
        use = earlier.get("use", "last")
        return Resumable(folder=folder, progress=progress, use=use, weights=weights, state=state)
    if damaged:
        raise CheckpointError(
            f"all checkpoints in {run.path} are damaged ({damaged[0]}); start over in another folder."
        )
    return None


def check_same_origin(earlier: Mapping[str, Any], run: RunFolder, folder: Path) -> None:
    """Check that data, base and tokenizer are those of the first start; their paths may differ."""
    now = run.facts or {}
    for name in ORIGIN:
        if earlier.get(name) != now.get(name):
            raise CheckpointError(
                f"{folder} was trained with another {name} ({earlier.get(name)}), now it is {now.get(name)}; "
                "resume with the same files and settings, or start over."
            )
    if load_tokenizer(folder / "tokenizer.json").fingerprint != run.tokenizer.fingerprint:
        raise CheckpointError(f"{folder} was trained with another tokenizer; start over.")


def check_same_settings(
    values: Mapping[str, Any], config: TrainingConfig, folder: Path, *, n_batches: int
) -> None:
    """Refuse to resume when a setting that affects the weights or the sample order has changed.

    A setting that an earlier version did not have counts as its default; None is not written to the file.
    """
    names = dict.fromkeys(field.name for field in fields(config))
    usual = to_dict(type(config)())
    earlier = {**names, **usual, **with_new_names(type(config), values)}
    now = {**names, **to_dict(config), "n_batches": n_batches}
    for name in sorted(now.keys() - config.extendable):
        if earlier[name] != now[name]:
            raise CheckpointError(
                f"{folder} was trained with {name}={earlier[name]}, now it is {now[name]}; "
                "resume with the same setting and data, or start over."
            )


def warn_of_another_schedule(
    earlier: Mapping[str, Any], config: TrainingConfig, progress: Progress, *, n_batches: int
) -> None:
    """Warn, with both values, when a new limit of the run changes a decaying learning rate."""
    names = ("max_steps", "epochs", "max_minutes")
    given = {name: earlier[name] for name in names if earlier.get(name) is not None}
    ends = from_dict(type(config), given, where="the checkpoint's settings")
    before = dataclasses.replace(config, **{name: getattr(ends, name) for name in names})
    if before.ends_by_clock or config.ends_by_clock:
        return
    configs = (before, config)
    n_before, n_now = (planned_steps(one, progress, n_batches=n_batches) for one in configs)
    step = progress.step + 1
    was, now = (
        learning_rate(one, step=min(step, n), n_steps=n) for one, n in zip(configs, (n_before, n_now))
    )
    if was != now and step <= n_now:
        logger.warning(
            "the learning rate of step %d becomes %.3g, it was %.3g: the %s schedule now ends at step %d and not "
            "at step %d, so the result is not that of a run of %d steps from the start",
            step, now, was, config.schedule, n_now, n_before, n_now,
        )  # fmt: skip


def _read_finite(folder: Path) -> tuple[dict[str, Any], TrainingState, dict[str, Tensor]]:
    manifest = verify(folder)
    state, weights = load_training_state(folder), load_tensors(folder / "model.safetensors")
    if (found := find_not_finite({**weights, **state.tensors})) is not None:
        raise CheckpointError(f"{folder} holds {found[1]} in {found[0]}; use another checkpoint.")
    return manifest, state, weights
