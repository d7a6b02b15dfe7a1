"""Tensors of which each rank has a part: the same number of rows on each rank, fewer on the last ones.

They are torch's DTensors, as FSDP2 makes them. They are recognised by a method, because importing the class takes
half as long as importing torch.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank has a part of the tensor only."""
    return hasattr(tensor, "full_tensor")


def own_rows(tensor: Tensor) -> Tensor:
    """This rank's rows of a sharded tensor, sharing its memory; a whole tensor itself."""
    return cast(Any, tensor).to_local() if is_sharded(tensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """All rows of a sharded tensor, for which every rank must call this; a whole tensor itself."""
    return cast(Any, tensor.detach()).full_tensor() if is_sharded(tensor) else tensor


def slice_of_rank(n_rows: int, rank: int, n_ranks: int) -> slice:
    """The rows of a rank.

    Example:
        >>> [len(range(5)[slice_of_rank(5, rank, 4)]) for rank in range(4)]
        [2, 2, 1, 0]
    """
    n_per_rank = -(-n_rows // n_ranks)
    return slice(min(n_rows, rank * n_per_rank), min(n_rows, (rank + 1) * n_per_rank))


@torch.no_grad()
def copy_whole(target: Tensor, whole: Tensor) -> None:
    """Copy all rows of a tensor into another one, or those of this rank into a sharded one."""
    if is_sharded(target):
        mesh = cast(Any, target).device_mesh
        whole = whole[slice_of_rank(len(whole), mesh.get_local_rank(), mesh.size())]
    own_rows(target).copy_(whole)


def like_weight(whole: Tensor, weight: Tensor) -> Tensor:
    """A copy of a whole tensor, sharded as a weight of the same shape is, on that weight's device."""
    if not is_sharded(weight) or whole.shape != weight.shape:
        return whole.to(weight.device).clone()
    copied = torch.empty_like(weight, dtype=whole.dtype, requires_grad=False)
    copy_whole(copied, whole)
    return copied


def on_owners(
    compute: Callable[[list[Tensor]], list[Tensor]], rows: list[Tensor], shape: torch.Size
) -> list[Tensor]:
    """Compute something of whole matrices of which each rank has some rows; returns the same rows of the results.

    Rank r of n owns the matrices r, r + n, ...: the others send it their rows, and it sends back those of the
    results. So each matrix is computed once, and no rank holds all of them.

    Shapes: rows (N, this rank's rows, columns); compute maps whole matrices of the given shape to as many.
    """
    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    slices = [slice_of_rank(shape[0], one, n_ranks) for one in range(n_ranks)]
    heights = [part.stop - part.start for part in slices]
    n_owned = [len(range(one, len(rows), n_ranks)) for one in range(n_ranks)]

    def exchange(parts: list[Tensor], shapes: list[tuple[int, int, int]]) -> list[Tensor]:
        sent = torch.cat([part.flatten() for part in parts])
        n_received = [a * b * c for a, b, c in shapes]
        received = sent.new_empty(sum(n_received))
        dist.all_to_all_single(received, sent, n_received, [part.numel() for part in parts])
        return [part.view(shape) for part, shape in zip(torch.split(received, n_received), shapes)]

    stacked = torch.stack(rows)
    owned = exchange(
        [stacked[one::n_ranks] for one in range(n_ranks)],
        [(n_owned[rank], height, shape[1]) for height in heights],
    )
    results = compute(list(torch.cat(owned, dim=1).unbind()))
    whole = torch.stack(results) if results else stacked.new_empty(0, *shape)
    returned = exchange(
        [whole[:, part] for part in slices],
        [(n, heights[rank], shape[1]) for n in n_owned],
    )
    done = torch.empty_like(stacked)
    for one, part in enumerate(returned):
        done[one::n_ranks] = part
    return list(done.unbind())
