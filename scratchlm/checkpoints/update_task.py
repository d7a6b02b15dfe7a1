"""Change the task of a saved model, for values known only after training, such as a threshold."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scratchlm.checkpoints.store import MANIFEST
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import new_folder, write_json
from scratchlm.core.json_table import read_json_table

TASK = "task.json"


def update_task(folder: Path, task: Mapping[str, Any]) -> None:
    """Replace the `task.json` of a model folder atomically; other files are hard-linked, not copied, where possible.

    Raises: CheckpointError when the folder cannot be written.
    """
    manifest = read_json_table(folder / MANIFEST, error=CheckpointError)
    with new_folder(folder, error=CheckpointError) as partial:
        for file in folder.iterdir():
            if file.name not in (TASK, MANIFEST):
                _link(file, partial / file.name)
        write_json(partial / TASK, dict(task), error=CheckpointError)
        facts = {"sha256": sha256_of_file(partial / TASK), "size_bytes": (partial / TASK).stat().st_size}
        files = {**manifest.need("files", dict), TASK: facts}
        changed = {**manifest.values, "files": dict(sorted(files.items()))}
        write_json(partial / MANIFEST, changed, error=CheckpointError)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, target)
