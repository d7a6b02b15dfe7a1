"""Trainings beside the main one (other seeds, fewer texts, the book's split), found again by all that decides them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.checkpoints.store import MANIFEST, list_checkpoints
from scratchlm.core.config import to_dict
from scratchlm.core.errors import CheckpointError
from scratchlm.core.json_table import read_json_table
from scratchlm.training.checkpointing import ORIGIN
from scratchlm.training.config import TrainingConfig
from scratchlm.training.history import History

SIDE_RUNS = "side_runs.jsonl"
BESIDE = {"trunk_cache_mb", "seeds", "learning_curve", "choose_threshold", "compare_raw_split"}
# settings that no accuracy depends on
IDLE = {"trunk_cache", "trunk_cache_mb", "seeds", "learning_curve", "compare_raw_split", "checkpoint_every_steps",
        "keep_checkpoints", "sample_every_steps"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SideRun:
    """A training beside the main one: with another seed, or on fewer texts."""

    seed: int
    n_texts: int
    accuracy: float  # on the leak-free test texts


def side_run_key(settings: TrainingConfig, **facts: object) -> str:
    """A hash of all that decides the accuracy of a side run: its settings, texts and base."""
    deciding = {name: value for name, value in to_dict(settings).items() if name not in IDLE}
    return hashlib.sha256(json.dumps([deciding, facts], sort_keys=True).encode()).hexdigest()


def find_side_run(folder: Path, key: str) -> SideRun | None:
    """The side run of that key, if it was finished before."""
    for record in History(folder / SIDE_RUNS).records():
        if record.get("key") == key:
            return SideRun(**{field.name: record[field.name] for field in dataclasses.fields(SideRun)})
    return None


def keep_side_run(folder: Path, key: str, run: SideRun, *, step: int) -> None:
    """Remember a side run that is finished."""
    History(folder / SIDE_RUNS).append({"step": step, "key": key, **dataclasses.asdict(run)})


def has_origin(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Are texts and base of a run's newest checkpoint these? Without a readable checkpoint nothing contradicts."""
    try:
        earlier = [
            read_json_table(one / MANIFEST, error=CheckpointError).values
            for one in list_checkpoints(folder)[-1:]
        ]
    except CheckpointError:
        return True  # the Trainer says what is wrong with it
    return all(manifest.get(name) == facts.get(name) for manifest in earlier for name in ORIGIN)
