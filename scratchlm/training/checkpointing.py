"""Save the checkpoints of a run, delete old ones, and restore the best or the newest."""

import copy
import functools
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

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
from scratchlm.core.atomic_replace import remove_folder, remove_partials
from scratchlm.core.config import to_dict
from scratchlm.core.errors import CheckpointError
from scratchlm.core.json_table import read_json_table
from scratchlm.core.seed import restore_rng_state, rng_state
from scratchlm.model.gpt import GPTModel
from scratchlm.training.background import BackgroundJob
from scratchlm.training.config import TrainingConfig
from scratchlm.training.distributed import Ranks
from scratchlm.training.optim import Optimizers
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.resume import newest_resumable
from scratchlm.training.sharded_tensors import copy_whole, gathered, is_sharded
from scratchlm.training.sharding import ParallelModel

logger = logging.getLogger(__name__)

PREFIX = "weights."  # prefix of a trainable weight's name in the training state
_Stamp = tuple[tuple[str, int, int], ...]  # name, size and time of change of each file


class RunCheckpoints:
    """Saves checkpoints in a run folder, deletes old ones, and resumes from the newest intact one.

    With several ranks, rank 0 alone writes and deletes, and all of them read: the folder must be on shared storage. A
    checkpoint does not depend on their number.

    The newest `keep_checkpoints` intact ones and the best of all are kept; the one just written and the one
    resumed from are never deleted. A checkpoint is written by a background thread from a copy of weights, optimizer
    and random state; training waits only for the copy, and for the checkpoint before if that is still being written.
    """

    def __init__(
        self,
        run: RunFolder,
        config: TrainingConfig,
        parallel: ParallelModel,
        optimizers: Optimizers,
        *,
        n_batches: int,
        ranks: Ranks,
    ) -> None:
        self.run, self.config, self.parallel, self.optimizers = run, config, parallel, optimizers
        self.ranks = ranks
        self.n_batches = n_batches  # in an epoch
        self._saved: tuple[int, int, str] | None = None  # step, evaluated_step and use of the newest one
        self._resumed_from: Path | None = None
        self._writer: BackgroundJob[tuple[int, Path]] = BackgroundJob()
        self._verified: dict[Path, _Stamp] = {}  # the state of each folder when its hashes were checked

    def start(self, *, resume: bool) -> Progress | None:
        """Restore the newest intact checkpoint and return its progress; None if the run begins at step 0.

        Raises: CheckpointError as `newest_resumable`, when `resume` is off although there are checkpoints, and where
            their folder would be there is a file.
        """
        place = self.run.path / "checkpoints"
        if place.exists() and not place.is_dir():
            raise CheckpointError(f"{place} is a file, where checkpoints would be written; move it away.")
        if not resume:
            if list_checkpoints(self.run.path):
                raise CheckpointError(
                    f"{self.run.path} already holds checkpoints of an earlier run; resume it or choose another folder."
                )
            return None
        with self.ranks.main_first():
            if self.ranks.is_main:
                remove_partials(self.run.path / "checkpoints")
            found = newest_resumable(self.run, self.config, n_batches=self.n_batches)
        self._check_same_step(0 if found is None else found.progress.step)
        if found is None:
            return None
        self._restore_weights(found.folder, found.weights, found.state)
        self.optimizers.restore(found.state.tensors)
        restore_rng_state(found.state.tensors)
        self._saved = (found.progress.step, found.progress.evaluated_step, found.use)
        self._resumed_from = found.folder
        return found.progress

    def save(self, progress: Progress, *, is_finished: bool, is_last: bool) -> None:
        """Begin to write a checkpoint and to delete old ones, unless the newest one has the same state.

        `is_last`: training does not continue, so that no copy is needed. `is_finished`: nor will it be resumed. The
        checkpoint before must have been collected with `saved(wait=True)`.
        """
        moment = (progress.step, progress.evaluated_step, self.config.use)
        if self._saved == moment:
            if is_finished and self.ranks.is_main:  # a process killed after the last checkpoint left old ones
                self._delete_old(progress.step, {checkpoint_folder(self.run.path, progress.step)})
            return
        self._saved = moment
        merge, tensors = self.run.merge, self.optimizers.state() | rng_state()
        if merge is not None:
            tensors |= trainable_state(self.optimizers.trainable)
        model, tensors = self.parallel.whole(), _gathered_on_main(tensors, self.ranks)
        if not self.ranks.is_main:
            return
        values = {"progress": asdict(progress), "config": to_dict(self.config), "n_batches": self.n_batches}
        facts = {
            "step": progress.step,
            "val_loss": progress.val_loss if progress.evaluated_step == progress.step else None,
            "use": self.config.use,
            **(self.run.facts or {}),
        }
        device = next(self.parallel.model.parameters()).device
        is_in_training = model is self.parallel.model
        model = model if merge is None else merge(model)
        is_wanted = self.config.background_checkpoints and not is_last
        in_background = is_wanted and _has_room(model, tensors)
        if in_background and is_in_training:
            model = _copy_of(model) if merge is None else model
            tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        job = functools.partial(
            self._write, model, device, TrainingState(tensors=tensors, values=values), facts, is_finished
        )
        self._writer.start(job)
        if not in_background:
            self._writer.wait()

    def saved(self, *, wait: bool) -> tuple[int, Path] | None:
        """The step and folder of a checkpoint that has been written since the last call; None without one.

        Raises: the error that writing it ended with, such as CheckpointError for a full disk.
        """
        return self._writer.collect(wait=wait)

    def close(self) -> None:
        """Wait until nothing is being written any more, also when training ends with an error of its own."""
        self._writer.wait()

    def _write(
        self,
        model: GPTModel,
        device: torch.device,
        state: TrainingState,
        facts: Mapping[str, Any],
        is_finished: bool,
    ) -> tuple[int, Path]:
        step = facts["step"]
        folder = checkpoint_folder(self.run.path, step)
        save_model(
            folder,
            model,
            self.run.tokenizer,
            task=self.run.task,
            training_state=state,
            facts=facts,
            device=device,
        )
        protected = {folder} if is_finished or self._resumed_from is None else {folder, self._resumed_from}
        self._delete_old(step, protected)
        return step, folder

    def load_best(self) -> tuple[int, float] | None:
        """Load the weights of the best checkpoint into the model; its step and validation loss, or None without one."""
        folder, _ = best_checkpoint(self.run.path)
        if folder is None:
            return None
        manifest = read_json_table(folder / MANIFEST, error=CheckpointError)
        weights = load_tensors(folder / "model.safetensors")
        self._restore_weights(folder, weights, load_training_state(folder))
        return manifest.need("step", int), manifest.need("val_loss", float)

    def _check_same_step(self, step: int) -> None:
        """Check that all ranks found the same checkpoint.

        Raises: CheckpointError.
        """
        newest, oldest = int(self.ranks.largest(step)), -int(self.ranks.largest(-step))
        if newest != oldest:
            raise CheckpointError(
                f"the ranks see different checkpoints in {self.run.path}, the newest of step {oldest} and of step "
                f"{newest}; put the run folder on storage that all hosts share."
            )

    def _restore_weights(self, folder: Path, weights: dict[str, Tensor], state: TrainingState) -> None:
        if self.run.merge is None:
            loaded = build_model(self.parallel.model.config, weights, where=folder / "model.safetensors")
            of_file = dict(loaded.named_parameters())
            for name, weight in self.parallel.model.named_parameters():
                copy_whole(weight, of_file[name])
        else:
            restore_trainable_state(self.optimizers.trainable, state.tensors, where=folder)

    def _delete_old(self, step: int, protected: set[Path]) -> None:
        """Delete the intact checkpoints that are not protected, not the best and not among the newest.

        Later steps than this one belong to an abandoned continuation, and are neither counted nor deleted.
        """
        remove_partials(self.run.path / "checkpoints")
        folders = [one for one in reversed(list_checkpoints(self.run.path)) if checkpoint_step(one) <= step]
        losses = {
            one: manifest.get("val_loss") for one in folders if (manifest := self._manifest_of_good(one))
        }
        evaluated = [(loss, folder) for folder, loss in losses.items() if isinstance(loss, (int, float))]
        stay = {*list(losses)[: self.config.keep_checkpoints], *protected}
        stay |= {min(evaluated)[1]} if evaluated else set()
        for folder in losses.keys() - stay:
            try:
                remove_folder(folder)
            except OSError as error:
                logger.warning("an old checkpoint could not be deleted: %s", error)

    def _manifest_of_good(self, folder: Path) -> dict[str, Any]:
        """The manifest of an intact checkpoint; empty for a damaged one.

        Hashing takes a second per GB, so it is repeated only for files whose size or time has changed.
        """
        try:
            facts = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
            stamp = tuple((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts)
            if self._verified.get(folder) != stamp:
                verify(folder)
                self._verified[folder] = stamp
            return dict(read_json_table(folder / MANIFEST, error=CheckpointError).values)
        except (CheckpointError, OSError):
            return {}


class BestInMemory:
    """Keeps the best weights of a training run without a folder, when the setting `use` is `best`."""

    def __init__(self, config: TrainingConfig, optimizers: Optimizers) -> None:
        self.config, self.optimizers = config, optimizers
        self._step, self._val_loss = 0, float("inf")
        self._weights: dict[str, Tensor] = {}

    def saved(self, *, wait: bool) -> tuple[int, Path] | None:
        """None: nothing is written."""
        return None

    def close(self) -> None:
        """Do nothing."""

    def save(self, progress: Progress, *, is_finished: bool, is_last: bool) -> None:
        """Copy the weights if this step was evaluated and is the best so far."""
        is_evaluated = progress.step > 0 and progress.evaluated_step == progress.step
        if self.config.use != "best" or not is_evaluated or progress.val_loss is None:
            return
        if progress.val_loss < self._val_loss:
            self._step, self._val_loss = progress.step, progress.val_loss
            self._weights = {name: p.detach().clone() for name, p in self.optimizers.trainable.items()}

    @torch.no_grad()
    def load_best(self) -> tuple[int, float] | None:
        """Restore the best weights into the model; their step and validation loss, or None without any."""
        if not self._weights:
            return None
        for name, parameter in self.optimizers.trainable.items():
            parameter.copy_(self._weights[name])
        return self._step, self._val_loss


def trainable_state(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The trainable weights as named tensors of a training state, e.g. `weights.out_head.lora.A`.

    A run that saves a merged model needs them, because a sum cannot be split again exactly.
    """
    return {f"{PREFIX}{name}": weight for name, weight in weights.items()}


def restore_trainable_state(
    weights: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], *, where: Path
) -> None:
    """Restore in place what `trainable_state` saved.

    Raises: CheckpointError when the saved weights differ in names or shapes; nothing is changed.
    """
    saved = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
    then = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    now = {name: tuple(weight.shape) for name, weight in weights.items()}
    if then != now:
        differing = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        name = differing[0]
        raise CheckpointError(
            f"{where} holds other trainable weights than this run: {name} has shape {then.get(name)} there and "
            f"{now.get(name)} here ({len(differing)} differ); resume with the settings of the first start."
        )
    for name, weight in weights.items():
        copy_whole(weight, saved[name])


def _has_room(model: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a copy of all of it leaves as much memory again; otherwise training waits instead of copying."""
    n_bytes = sum(tensor.nbytes for tensor in (*model.parameters(), *tensors.values()))
    return bool(psutil.virtual_memory().available > 2 * n_bytes)


def _copy_of(model: GPTModel) -> GPTModel:
    """A copy in the main memory, without gradients; shared weights stay shared."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("cpu", copy=True), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def _gathered_on_main(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """The tensors, whole and in rank 0's main memory where they are sharded; nothing on the other ranks."""
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        one = gathered(tensor).cpu() if is_sharded(tensor) else tensor
        if ranks.is_main:
            whole[name] = one
    return whole
