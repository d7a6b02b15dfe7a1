"""The checkpoints of a run: what is saved, what is deleted, and how a run goes on from them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scratchlm.checkpoints.store import (
    MANIFEST,
    TrainingState,
    best_checkpoint,
    build_model,
    checkpoint_folder,
    checkpoint_step,
    list_checkpoints,
    load_tensors,
    load_training_state,
    save_model,
    verify,
)
from scratchlm.core.config import from_dict, to_dict, with_new_names
from scratchlm.core.errors import CheckpointError
from scratchlm.core.json_table import JSONTable, read_json_table
from scratchlm.core.partials import remove_folder, remove_partials
from scratchlm.core.seed import restore_rng_state, rng_state
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.training.config import TrainingConfig
from scratchlm.training.optim import Optimizers
from scratchlm.training.partial_weights import learning_weights, restore_learning_weights
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.schedule import learning_rate, planned_steps

logger = logging.getLogger(__name__)

ORIGIN = ("data_fingerprint", "base_sha256")  # facts of a checkpoint that a resumed run must share
_Stamp = tuple[tuple[str, int, int], ...]  # name, size and time of change of each file


class RunCheckpoints:
    """Save checkpoints in a run folder, delete old ones, and take up the newest good one.

    The newest `keep_checkpoints` that verify stay, and the best of them all; the one just written and the one resumed
    from are never deleted.
    """

    def __init__(
        self, run: RunFolder, config: TrainingConfig, model: GPTModel, optimizers: Optimizers
    ) -> None:
        self.run, self.config, self.model, self.optimizers = run, config, model, optimizers
        self._saved: tuple[int, int, str] | None = None  # step, evaluated_step and use of the newest one
        self._resumed_from: Path | None = None
        self._verified: dict[Path, _Stamp] = {}  # as each was when its hashes were right

    def save(self, progress: Progress, *, n_batches: int, is_complete: bool) -> Path | None:
        """Write a checkpoint of this very moment, unless the newest one already is that, and delete old ones."""
        moment = (progress.step, progress.evaluated_step, self.config.use)
        if self._saved == moment:
            return None
        form = self.run.saved_form
        state = TrainingState(
            tensors=self.trained_tensors() | rng_state(),
            values={
                "progress": asdict(progress),
                "config": to_dict(self.config),
                "n_batches": n_batches,
            },
        )
        is_evaluated = progress.evaluated_step == progress.step
        facts = {
            "step": progress.step,
            "val_loss": progress.val_loss if is_evaluated else None,
            "use": self.config.use,
            **(self.run.facts or {}),
        }
        folder = checkpoint_folder(self.run.path, progress.step)
        model = self.model if form is None else form(self.model)
        save_model(folder, model, self.run.tokenizer, task=self.run.task, training_state=state, facts=facts)
        self._saved = moment
        protected = {folder} if is_complete or self._resumed_from is None else {folder, self._resumed_from}
        self._delete_old(progress.step, protected)
        return folder

    def trained_tensors(self) -> dict[str, Tensor]:
        """The moments, and the trained weights where the model is saved in another form than it is trained in."""
        own = {} if self.run.saved_form is None else learning_weights(self.optimizers.names)
        return self.optimizers.state() | own

    def resume(self, *, n_batches: int) -> Progress | None:
        """Take up the newest good checkpoint; without any, None.

        One that is damaged, or holds numbers that are not finite, is named in a warning and passed over.
        Raises: CheckpointError when all are, and for one of other data, another base, tokenizer or setting.
        """
        remove_partials(self.run.path / "checkpoints")
        damaged: list[str] = []
        for folder in reversed(list_checkpoints(self.run.path)):
            try:
                manifest, state, weights = _read_finite(folder)
            except CheckpointError as error:
                damaged.append(str(error))
                logger.warning("skipping a damaged checkpoint: %s", error)
                continue
            self._check_same_origin(manifest, folder)
            saved = JSONTable(state.values, where=str(folder / "training_state.json"), error=CheckpointError)
            earlier = saved.need("config", dict)
            before = {**earlier, "n_batches": saved.need("n_batches", int)}
            self._check_same_settings(before, folder, n_batches=n_batches)
            self._restore(folder, weights, state)
            self.optimizers.restore(state.tensors)
            restore_rng_state(state.tensors)
            progress = Progress.from_saved(saved.need("progress", dict))
            self._saved = (progress.step, progress.evaluated_step, earlier.get("use", "last"))
            self._resumed_from = folder
            self._warn_of_another_schedule(earlier, progress, n_batches=n_batches)
            return progress
        if damaged:
            raise CheckpointError(
                f"{self.run.path} must hold a good checkpoint, found only damaged ones ({damaged[0]}); start over."
            )
        return None

    def load_best(self) -> tuple[int, float] | None:
        """Give the model the weights of the best checkpoint; its step and validation loss, or None without one."""
        folder, _ = best_checkpoint(self.run.path)
        if folder is None:
            return None
        manifest = read_json_table(folder / MANIFEST, error=CheckpointError)
        weights = load_tensors(folder / "model.safetensors")
        self._restore(folder, weights, load_training_state(folder))
        return manifest.need("step", int), manifest.need("val_loss", float)

    def _restore(self, folder: Path, weights: dict[str, Tensor], state: TrainingState) -> None:
        if self.run.saved_form is None:
            loaded = build_model(self.model.config, weights, where=folder / "model.safetensors")
            self.model.load_state_dict(loaded.state_dict())
        else:
            restore_learning_weights(self.optimizers.names, state.tensors, where=folder)

    def _delete_old(self, step: int, protected: set[Path]) -> None:
        """Delete what is not protected, not the best and not among the newest, as far as it verifies.

        Later steps than this one belong to a course that was given up: they neither count nor go.
        """
        remove_partials(self.run.path / "checkpoints")
        folders = [one for one in reversed(list_checkpoints(self.run.path)) if checkpoint_step(one) <= step]
        losses = {
            one: manifest.get("val_loss") for one in folders if (manifest := self._manifest_of_good(one))
        }
        evaluated = [(loss, folder) for folder, loss in losses.items() if loss is not None]
        stay = {*list(losses)[: self.config.keep_checkpoints], *protected}
        stay |= {min(evaluated)[1]} if evaluated else set()
        for folder in losses.keys() - stay:
            try:
                remove_folder(folder)
            except OSError as error:
                logger.warning("an old checkpoint could not be deleted: %s", error)

    def _manifest_of_good(self, folder: Path) -> dict[str, Any]:
        """The manifest of a checkpoint that verifies; empty for another.

        Hashing takes a second per GB, so it is done again only for files whose size or time have changed.
        """
        try:
            stamp = _stamp(folder)
            if self._verified.get(folder) != stamp:
                verify(folder)
                self._verified[folder] = stamp
            return dict(read_json_table(folder / MANIFEST, error=CheckpointError).values)
        except (CheckpointError, OSError):
            return {}

    def _check_same_origin(self, earlier: Mapping[str, Any], folder: Path) -> None:
        """Data, base and tokenizer must be those of the first start, whatever paths they have now."""
        now = self.run.facts or {}
        for name in ORIGIN:
            if earlier.get(name) != now.get(name):
                raise CheckpointError(
                    f"{folder} was trained with another {name} ({earlier.get(name)}), found {now.get(name)} now; "
                    "put the earlier files back, or start over."
                )
        if load_tokenizer(folder / "tokenizer.json").fingerprint != self.run.tokenizer.fingerprint:
            raise CheckpointError(
                f"{folder} was trained with another tokenizer than the one here; start over."
            )

    def _check_same_settings(self, values: Mapping[str, Any], folder: Path, *, n_batches: int) -> None:
        """Whatever decides the weights and the sample order must be as at the first start, or the run is neither.

        A setting that an earlier version did not know counts as its default; None is not written down.
        """
        names = dict.fromkeys(field.name for field in fields(self.config))
        usual = to_dict(type(self.config)())
        earlier = {**names, **usual, **with_new_names(type(self.config), values)}
        now = {**names, **to_dict(self.config), "n_batches": n_batches}
        for name in sorted(now.keys() - self.config.extendable):
            if earlier[name] != now[name]:
                raise CheckpointError(
                    f"{folder} was trained with {name}={earlier[name]}, found {now[name]} now; "
                    "resume with the same setting and data, or start over."
                )

    def _warn_of_another_schedule(
        self, earlier: Mapping[str, Any], progress: Progress, *, n_batches: int
    ) -> None:
        """Another end moves a learning rate that decays: say from which value to which."""
        names = ("max_steps", "epochs", "max_minutes")
        told = {name: earlier[name] for name in names if earlier.get(name) is not None}
        ends = from_dict(type(self.config), told, where="the checkpoint's settings")
        before = dataclasses.replace(self.config, **{name: getattr(ends, name) for name in names})
        if before.ends_by_clock or self.config.ends_by_clock:
            return
        plans = [planned_steps(config, progress, n_batches=n_batches) for config in (before, self.config)]
        was, now = (
            learning_rate(config, step=min(progress.step + 1, n), n_steps=n)
            for config, n in zip((before, self.config), plans)
        )
        if was != now and progress.step < plans[1]:
            logger.warning(
                "the learning rate of step %d becomes %.3g, it was %.3g: the %s schedule now ends at step %d and not "
                "at step %d, so the result is not that of a run of %d steps from the start",
                progress.step + 1, now, was, self.config.schedule, plans[1], plans[0], plans[1],
            )  # fmt: skip


def not_finite(tensors: Mapping[str, Tensor]) -> tuple[str, float] | None:
    """The first tensor with a number that is not finite, by name, and that number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool((is_finite := torch.isfinite(tensor)).all()):
            return name, float(tensor[~is_finite].flatten()[0])
    return None


def _read_finite(folder: Path) -> tuple[dict[str, Any], TrainingState, dict[str, Tensor]]:
    manifest = verify(folder)
    state, weights = load_training_state(folder), load_tensors(folder / "model.safetensors")
    if (found := not_finite({**weights, **state.tensors})) is not None:
        raise CheckpointError(
            f"{folder} must hold finite numbers, found {found[1]} in {found[0]}; use another one."
        )
    return manifest, state, weights


def _stamp(folder: Path) -> _Stamp:
    facts = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return tuple((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts)
