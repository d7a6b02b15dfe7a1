"""How the ranks hold the model that they train: all of every weight on each rank, or a part of every weight (FSDP2)."""

import copy
import inspect
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any, Protocol

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from scratchlm.core.batch import Batch
from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Task
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import is_quantized
from scratchlm.training.config import ShardingName
from scratchlm.training.distributed import Ranks, TaskLoss
from scratchlm.training.sharded_tensors import gathered


class ParallelModel(Protocol):
    """A model that the ranks train with a task. Every rank must call the methods in the same order."""

    model: GPTModel  # with the parameters that this rank trains
    is_whole: bool  # whether this rank holds all of every parameter

    @property
    def loss(self) -> nn.Module:
        """A `TaskLoss` whose backward pass averages the gradients over the ranks."""
        ...

    def without_exchange(self) -> AbstractContextManager[None]:
        """In the block `backward` only adds to this rank's gradients; the next one outside exchanges them."""
        ...

    def metrics(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The task's metrics over the batches of all ranks."""
        ...

    def whole(self) -> GPTModel:
        """The model with all its weights on rank 0; the other ranks' may be empty."""
        ...

    def finish(self) -> None:
        """Give the model that was passed in the trained weights, on every rank."""
        ...


def parallel_model(model: GPTModel, task: Task, ranks: Ranks, sharding: ShardingName) -> ParallelModel:
    """The model as these ranks train it; one process has all of it in any case."""
    is_sharded = sharding == "fsdp" and ranks.world_size > 1
    return ShardedModel(model, task, ranks) if is_sharded else WholeModel(model, task, ranks)


class WholeModel:
    """A model of which this process has all weights, like every other rank (DistributedDataParallel)."""

    is_whole = True

    def __init__(self, model: GPTModel, task: Task, ranks: Ranks) -> None:
        self.model, self.task, self.ranks = model, task, ranks

    @cached_property
    def loss(self) -> nn.Module:
        """The task's loss; with other ranks in DistributedDataParallel, which gives all of them rank 0's weights."""
        loss = TaskLoss(self.model, self.task)
        if self.ranks.world_size == 1:
            return loss
        # No buffer changes in training. The argument was renamed in torch 2.13.
        is_renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
        unsynced: Any = {"forward_sync_buffers" if is_renamed else "broadcast_buffers": False}
        parallel = DistributedDataParallel(loss, gradient_as_bucket_view=True, **unsynced)
        # After its first backward pass it exchanges the gradients in another order, and sums over more than two ranks
        # then differ in the last bit. That must not happen within a run, or a resumed one would not equal it.
        parallel(None).backward()
        parallel.zero_grad()
        return parallel

    def without_exchange(self) -> AbstractContextManager[None]:
        """In the block no gradients are exchanged."""
        return self.loss.no_sync() if isinstance(self.loss, DistributedDataParallel) else nullcontext()

    def metrics(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The task's metrics over the batches of all ranks."""
        return self.task.metrics(self.model, batches, total=self.ranks.sum)

    def whole(self) -> GPTModel:
        """The model itself."""
        return self.model

    def finish(self) -> None:
        """The model has the trained weights already."""


class ShardedModel:
    """A model whose weights, gradients and moments are sharded: of n ranks each has a part of every tensor.

    A block's weights are gathered when its forward or backward pass begins, and given up when it ends. Embeddings,
    head, final norm and the last block form one group, which is gathered once for both passes: an embedding and a head
    that share their matrix must be in one group, the last block is needed again at once, and a classifier runs it in
    pieces.

    The model that is passed in gives up its weights; until `finish` they exist in parts only.
    Source: Rajbhandari et al. 2020, "ZeRO", stage 3; Zhao et al. 2023, "PyTorch FSDP".
    Raises: ConfigError for a model with quantized layers.
    """

    is_whole = False

    def __init__(self, model: GPTModel, task: Task, ranks: Ranks) -> None:
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        if is_quantized(model):
            raise ConfigError(
                "sharding=fsdp shards weights in floating point only, and the base has quantized layers (base_bits, or "
                "a base that was saved so); train with sharding=none, or on the base in floating point."
            )
        self._emptied, self._ranks = model, ranks
        mesh = init_device_mesh(next(model.parameters()).device.type, (ranks.world_size,))
        # torch's caches keep the mesh, and this table, which only torch.compile reads, would keep the process group.
        getattr(mesh, "_pg_registry", {}).clear()
        self.model = copy.deepcopy(model, {id(p): p for p in model.parameters()})  # shares the weights
        for block in list(self.model.trf_blocks)[:-1]:
            fully_shard(block, mesh=mesh)
        self.loss: Any = TaskLoss(self.model, task)
        fully_shard(self.loss, mesh=mesh)
        register_fsdp_forward_method(self.loss, "metrics")
        self._parts = dict(self.model.named_parameters())
        for weight in model.parameters():
            weight.data = weight.data.new_zeros(()).expand(weight.shape)

    @contextmanager
    def without_exchange(self) -> Iterator[None]:
        """In the block the gradients of whole weights are added up on this rank."""
        self.loss.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.loss.set_requires_gradient_sync(True)

    def metrics(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The task's metrics over the batches of all ranks."""
        try:
            found: dict[str, float] = self.loss.metrics(batches, total=self._ranks.sum)
            return found
        finally:
            self.loss.reshard()

    def whole(self) -> GPTModel:
        """A copy in the main memory of rank 0, gathered weight by weight; those of the other ranks are empty."""
        weights: dict[int, nn.Parameter] = {}
        for name, empty in self._emptied.named_parameters():
            data = gathered(self._parts[name])
            if self._ranks.is_main:
                weights[id(empty)] = nn.Parameter(data.cpu(), requires_grad=empty.requires_grad)
        return copy.deepcopy(self._emptied, dict(weights)) if self._ranks.is_main else self._emptied

    def finish(self) -> None:
        """Gather all weights on every rank, in the model that was passed in."""
        for name, weight in self._emptied.named_parameters():
            weight.data = gathered(self._parts[name])
