"""Record a classifier's additional trainings (other seeds, fewer texts), so that a resumed run does not repeat them."""

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
from scratchlm.training.config import TrainingConfig
from scratchlm.training.history import History
from scratchlm.training.resume import ORIGIN

SIDE_RUNS = "side_runs.jsonl"
# settings of the additional trainings, which a resumed main training may change
SIDE_SETTINGS = {"activation_cache_mb", "seeds", "learning_curve", "choose_threshold", "compare_raw_split"}
# settings that do not affect the accuracy of a training
NEUTRAL_SETTINGS = {"activation_cache", "activation_cache_mb", "seeds", "learning_curve", "compare_raw_split",
                    "checkpoint_every_steps", "keep_checkpoints", "sample_every_steps"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SideRun:
    """The result of an additional training, with another seed or on fewer texts."""

    seed: int
    n_texts: int
    accuracy: float  # on the leak-free test texts


def side_run_key(settings: TrainingConfig, **facts: object) -> str:
    """A hash of everything that determines the accuracy: settings, texts and base."""
    relevant = {name: value for name, value in to_dict(settings).items() if name not in NEUTRAL_SETTINGS}
    return hashlib.sha256(json.dumps([relevant, facts], sort_keys=True).encode()).hexdigest()


def find_side_run(folder: Path, key: str) -> SideRun | None:
    """The recorded side run with that key."""
    for record in History(folder / SIDE_RUNS).records():
        if record.get("key") == key:
            return SideRun(**{field.name: record[field.name] for field in dataclasses.fields(SideRun)})
    return None


def record_side_run(folder: Path, key: str, run: SideRun, *, step: int) -> None:
    """Append a finished side run."""
    History(folder / SIDE_RUNS).append({"step": step, "key": key, **dataclasses.asdict(run)})


def has_origin(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the run's newest checkpoint has this base and these texts; True if it cannot be read."""
    try:
        manifests = [
            read_json_table(checkpoint / MANIFEST, error=CheckpointError).values
            for checkpoint in list_checkpoints(folder)[-1:]
        ]
    except CheckpointError:
        return True  # the Trainer reports the problem
    return all(manifest.get(name) == facts.get(name) for manifest in manifests for name in ORIGIN)
