"""Join the processes that train together, and say which one is missing when the others wait in vain."""

import gc
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from scratchlm.core.errors import RankLostError, ScratchLMError
from scratchlm.core.launch import launched_ranks
from scratchlm.training.distributed import POLL_S, EndedElsewhere, OneProcess, Ranks, TorchRanks, joined

WAIT_S = 5.0  # time in which the ranks that are left say so


@contextmanager
def rank_group(*, timeout_s: float, device_type: str = "cpu") -> Iterator[Ranks]:
    """Within the block the processes that torchrun started are the current ranks; without torchrun it is one process.

    Units: timeout_s is the time in seconds that a rank may be late at an exchange during training.
    Raises: RankLostError naming the ranks that ended or stopped responding. An error that rank 0 reports too ends the
        other ranks without a message, by EndedElsewhere.
    """
    launched = launched_ranks()
    if launched is None:
        yield OneProcess()
        return
    # This imports torch.distributed.nn; were it imported within the group, its default arguments would keep the group.
    import torch.distributed.fsdp  # noqa: F401

    ranks = TorchRanks(_join(timeout_s, device_type, *launched))
    ending, is_silent = _Ending(ranks), False
    try:
        with joined(ranks):
            yield ranks
    except EndedElsewhere:
        is_silent = True
        raise
    except ScratchLMError as error:
        is_silent = ending.is_reported_by_main(error)
        if is_silent:
            raise EndedElsewhere(error.exit_code) from error
        raise
    except BaseException as error:
        if isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            lost = ending.lost(error)
            is_silent = isinstance(lost, EndedElsewhere)
            raise lost from error
        code = error.code if isinstance(error, SystemExit) else 1
        ranks.leave_note(code if isinstance(code, int) else 1, str(error))
        raise
    finally:
        ending.leave()
        dist.destroy_process_group()
        # Its threads end with the last reference to the group, and a sharded model is a cycle of references that has
        # one. A thread that still gave up a tensor while the interpreter ended would abort the process:
        # https://github.com/pytorch/pytorch/issues/190489.
        gc.collect()
        if is_silent:
            time.sleep(WAIT_S)  # torchrun ends all ranks as soon as one has: first the one with the message


def _join(timeout_s: float, device_type: str, rank: int, world_size: int) -> Store:
    limit = timedelta(seconds=timeout_s)
    try:
        # torchrun has a store of its own, which outlives the ranks; otherwise rank 0 holds it.
        is_holder = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = PrefixStore(
            f"scratchlm {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}",
            TCPStore(
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                world_size,
                is_holder,
                limit,
                wait_for_workers=False,
            ),
        )
        _wait_until_joined(store, timeout_s, rank, world_size)
        # Small numbers are exchanged between the CPUs also where the model is on GPUs.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=world_size,
            timeout=limit,
        )
    except RankLostError:
        raise
    except (RuntimeError, ValueError) as cause:
        raise RankLostError(
            f"rank {rank} did not find the other {world_size - 1} within {timeout_s:g} s: "
            f"{str(cause).splitlines()[0]}; check that all processes were started and that MASTER_ADDR is reachable."
        ) from cause
    return store


def _wait_until_joined(store: Store, timeout_s: float, rank: int, world_size: int) -> None:
    """Wait in Python for all ranks, so that a signal ends the process at once."""
    store.set(f"joined {rank}", "")
    give_up_at_s = time.monotonic() + timeout_s
    while missing := [one for one in range(world_size) if not store.check([f"joined {one}"])]:
        if time.monotonic() >= give_up_at_s:
            names = ", ".join(map(str, missing))
            raise RankLostError(
                f"the processes of rank {names} of {world_size} did not start within {timeout_s:g} s; start all of "
                "them with the same command."
            )
        time.sleep(POLL_S)


class _Ending:
    """What the ranks tell each other through the store when one of them fails."""

    def __init__(self, ranks: TorchRanks) -> None:
        self.ranks, self.store, self.rank = ranks, ranks.store, ranks.rank
        self.others = sorted(set(range(ranks.world_size)) - {ranks.rank})
        self.missing: list[int] = []
        self.store.set(f"host {self.rank}", platform.node())

    def is_reported_by_main(self, error: ScratchLMError) -> bool:
        """Tell the others about an error, and whether rank 0 has the same one, which it prints."""
        note = (error.exit_code, str(error))
        self.ranks.leave_note(*note)
        if self.rank > 0:
            with suppress(RuntimeError):
                self._wait_for(lambda: self.ranks.last_words(0) is not None)
                return self.ranks.last_words(0) == note
        return False

    def lost(self, error: RuntimeError) -> RankLostError | EndedElsewhere:
        """The error that names the missing ranks; EndedElsewhere where another rank prints one."""
        what, names = str(error).splitlines()[0], "the process of rank 0"  # if the store does not answer
        with suppress(RuntimeError):
            self.store.set(f"here {self.rank}", "")
            self._wait_for(
                lambda: all(self._has(f"here {one}") or self._has(f"ended {one}") for one in self.others)
            )
            for one in self.others:
                if (note := self.ranks.last_words(one)) is not None:
                    return EndedElsewhere(note[0])
            here = [one for one in self.others if self._has(f"here {one}")]
            if any(one < self.rank for one in here):
                return EndedElsewhere(RankLostError.exit_code)
            self.missing = [one for one in self.others if one not in here]
            names = ", ".join(f"rank {one} on {self._host_of(one)}" for one in self.missing) or "the network"
        return RankLostError(
            f"{names} failed or stopped responding ({what}); start the same command again to continue from the newest "
            "checkpoint, or let torchrun do it with --max-restarts."
        )

    def leave(self) -> None:
        """Keep the store, which rank 0 may hold, until the others need it no more."""
        with suppress(RuntimeError):
            self.store.set(f"left {self.rank}", "")
            if self.rank == 0:
                others = [one for one in self.others if one not in self.missing]
                self._wait_for(lambda: all(self._has(f"left {one}") for one in others))

    def _host_of(self, rank: int) -> str:
        return self.store.get(f"host {rank}").decode() if self._has(f"host {rank}") else "an unknown host"

    def _has(self, key: str) -> bool:
        return bool(self.store.check([key]))

    def _wait_for(self, is_true: Callable[[], bool]) -> None:
        give_up_at_s = time.monotonic() + WAIT_S
        while not is_true() and time.monotonic() < give_up_at_s:
            time.sleep(POLL_S)
