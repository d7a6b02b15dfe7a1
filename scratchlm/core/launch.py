"""Recognise a process that `torchrun`, or a program like it, started together with others."""

import os

from scratchlm.core.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun for each process


def launched_ranks() -> tuple[int, int] | None:
    """This process's number and the number of processes; None for a process of its own.

    Raises: ConfigError when the environment contradicts itself.
    """
    if not all(os.environ.get(name) for name in VARIABLES):
        return None  # RANK alone may belong to another program
    rank, world_size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if not (rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size)):
        raise ConfigError(
            f"RANK must be a number below WORLD_SIZE, got RANK={rank} and WORLD_SIZE={world_size} in the environment; "
            "start the processes with torchrun, or unset both."
        )
    return None if int(world_size) == 1 else (int(rank), int(world_size))


def is_follower() -> bool:
    """Whether this process is a rank above 0, which prints nothing but its own errors."""
    ranks = launched_ranks()
    return ranks is not None and ranks[0] > 0


def is_restart() -> bool:
    """Whether torchrun has started this process again after a failure (`--max-restarts`)."""
    return launched_ranks() is not None and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def local_rank() -> int:
    """The number of this process among those on its host, which chooses its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))
