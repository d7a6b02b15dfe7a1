"""Train in several processes, called ranks: each takes a share of every batch, and their gradients are summed.

`torchrun` starts the processes, on one host or many, and tells each its number in environment variables. Without it
there is one process, and nothing here costs anything. The global batch defines the run: `batch_size` counts the
examples of all ranks together, and rank r of n takes the examples r, r + n, r + 2 n, ... of every batch.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store  # type: ignore[attr-defined]

from scratchlm.core.batch import Batch
from scratchlm.core.protocols import Task, Total
from scratchlm.data.loaders import BatchLoader
from scratchlm.training.interrupts import StopRequest

POLL_S = 0.05


class Ranks(Protocol):
    """The processes that train together. Every rank must call the methods in the same order."""

    @property
    def rank(self) -> int:
        """The number of this process."""
        ...

    @property
    def world_size(self) -> int:
        """The number of processes."""
        ...

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone prints and writes files."""
        ...

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each of the values over the ranks."""
        ...

    def largest(self, value: float) -> float:
        """The largest of all ranks' values."""
        ...

    def of_main(self, value: float) -> float:
        """Rank 0's value."""
        ...

    def wait(self) -> None:
        """Wait until all ranks are here."""
        ...

    def main_first(self) -> AbstractContextManager[None]:
        """Run the block on rank 0, then on the others, which find the files that rank 0 wrote."""
        ...

    def share(self, loader: BatchLoader) -> BatchLoader:
        """The loader of this rank's share of every batch."""
        ...

    def seed_step(self, seed: int, step: int) -> None:
        """Give each rank its own random numbers, for dropout, as a function of seed, step and rank."""
        ...


class OneProcess:
    """Training without other ranks."""

    rank, world_size, is_main = 0, 1, True

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values."""
        return list(values)

    def largest(self, value: float) -> float:
        """The value."""
        return value

    def of_main(self, value: float) -> float:
        """The value."""
        return value

    def wait(self) -> None:
        """Nothing to wait for."""

    def main_first(self) -> AbstractContextManager[None]:
        """Run the block."""
        return nullcontext()

    def share(self, loader: BatchLoader) -> BatchLoader:
        """The loader itself."""
        return loader

    def seed_step(self, seed: int, step: int) -> None:
        """Keep the generator, whose state a checkpoint holds."""


class EndedElsewhere(SystemExit):
    """Another rank ends with an error, and says why; this one ends with the same exit code and without a message."""


class TorchRanks:
    """The ranks of torch's default process group: gloo between CPUs, NCCL between GPUs."""

    def __init__(self, store: Store) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.store = store
        self._n_waits = 0

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum in float64; the same on all ranks."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, value: float) -> float:
        """The largest of all ranks' values."""
        return self._reduced([value], dist.ReduceOp.MAX)[0]

    def of_main(self, value: float) -> float:
        """Rank 0's value."""
        return self.sum([value if self.is_main else 0.0])[0]

    def wait(self) -> None:
        """Wait for rank 0, however long it takes.

        Raises: EndedElsewhere when a rank ends with an error.
        """
        self._n_waits += 1
        self.store.set(f"wait {self._n_waits} {self.rank}", "here")
        keys = [f"wait {self._n_waits} {rank}" for rank in range(self.world_size)]
        while not self.store.check(keys):
            for rank in range(self.world_size):
                if (note := self.last_words(rank)) is not None:
                    raise EndedElsewhere(note[0])
            time.sleep(POLL_S)  # in Python, so that a signal is handled at once

    def leave_note(self, exit_code: int, message: str) -> None:
        """Tell the other ranks that this one ends with an error."""
        with suppress(RuntimeError):  # the store may have ended too
            self.store.set(f"ended {self.rank}", json.dumps([exit_code, message]))

    def last_words(self, rank: int) -> tuple[int, str] | None:
        """Exit code and message of a rank that ended with an error."""
        if not self.store.check([key := f"ended {rank}"]):
            return None
        exit_code, message = json.loads(self.store.get(key))
        return int(exit_code), str(message)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block on rank 0, then on the others."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def share(self, loader: BatchLoader) -> BatchLoader:
        """The loader of this rank's share of every batch."""
        return loader.for_rank(self.rank, self.world_size)

    def seed_step(self, seed: int, step: int) -> None:
        """Seed torch's generators, so that a resumed run needs no state but rank 0's."""
        digest = hashlib.sha256(f"scratchlm rank {seed} {step} {self.rank} {self.world_size}".encode())
        torch.manual_seed(int.from_bytes(digest.digest()[:8], "big") >> 1)

    def _reduced(self, values: Sequence[float], op: dist.ReduceOp.RedOpType) -> list[float]:
        tensor = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(tensor, op)
        return cast("list[float]", tensor.tolist())


class TaskLoss(nn.Module):
    """A task's loss as a module, so that DistributedDataParallel wraps whatever parts of the model the task uses."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, batch: Batch | None) -> Tensor:
        """Sum of the losses over the batch's targets; without a batch zero, which depends on all trainable weights."""
        if batch is None:
            return torch.stack([0.0 * p.sum() for p in self.parameters() if p.requires_grad]).sum()
        return self.task.loss_sum(self.model, batch)

    def metrics(self, batches: Iterable[Batch], *, total: Total) -> dict[str, float]:
        """The task's metrics."""
        return self.task.metrics(self.model, batches, total=total)


class SharedStop:
    """A stop request that counts for all ranks once one of them has received a signal."""

    def __init__(self, own: StopRequest, ranks: Ranks) -> None:
        self.own, self.ranks = own, ranks
        self.signal_number: int | None = None

    @property
    def is_made(self) -> bool:
        """Whether a rank has received a signal; every rank must ask at the same places."""
        own = self.own.signal_number if self.own.is_made else None
        self.signal_number = int(self.ranks.largest(own or 0)) or None
        return self.signal_number is not None


_joined: list[Ranks] = []  # the ranks of this process's group, while it is a member of one


def current_ranks() -> Ranks:
    """The ranks that this process trains with; one process outside `rank_group`."""
    return _joined[-1] if _joined else OneProcess()


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Make these the current ranks within the block."""
    _joined.append(ranks)
    try:
        yield
    finally:
        _joined.pop()
