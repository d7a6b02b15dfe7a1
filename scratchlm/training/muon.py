"""The Muon optimizer: orthogonalized updates, with equal step size in all directions of a matrix."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scratchlm.training.sharded_tensors import is_sharded, on_owners, own_rows

IterationName = Literal["newton-schulz", "polar-express"]
ITERATIONS = {  # the polynomials a x + b x^3 + c x^5 that all singular values go through, one after the other
    "newton-schulz": ((3.4445, -4.7750, 2.0315),) * 5,  # Jordan et al. 2024: the steepest that stays near 1
    # Amsel et al. 2025, "The Polar Express", theorem 3.1 for values from 0.01: each is the one that brings what the
    # earlier ones made of them closest to 1. Three end between 0.73 and 1.27, as close as Jordan's five.
    "polar-express": ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526)),
}
EPSILON = 1e-7  # a gradient of zeros stays zero
STACKED_WIDTH = 128  # wider matrices are 10 % faster one by one than in a stack


def orthogonalize(matrices: Tensor, iteration: IterationName = "newton-schulz") -> Tensor:
    """Orthogonalize matrices: bring all singular values close to 1, approximating U V^T of U S V^T.

    An iteration of odd polynomials, for one matrix or a whole stack at once. The values end between 0.7 and 1.3,
    which works as well as exactly 1.
    Shapes: (rows, columns) or (N, rows, columns) -> the same.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if is_tall else matrices).to(_kernel_dtype(matrices))
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(EPSILON)  # no singular value above 1
    added = torch.addmm if x.ndim == 2 else torch.baddbmm  # added(m, n, o) = beta m + alpha n o
    for a, b, c in ITERATIONS[iteration]:
        gram = x @ x.mT
        x = added(x, added(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


def orthogonalize_all(matrices: list[Tensor], iteration: IterationName = "newton-schulz") -> list[Tensor]:
    """Orthogonalize matrices of one shape."""
    if matrices and min(matrices[0].shape) <= STACKED_WIDTH:
        return list(orthogonalize(torch.stack(matrices), iteration).unbind())
    return [orthogonalize(matrix, iteration) for matrix in matrices]


class Muon(torch.optim.Optimizer):
    """Momentum that is orthogonalized, matrix by matrix, before each step.

    `torch.optim.Muon` handles one matrix at a time; here narrow matrices of one shape are stacked, which halves
    the optimizer's time for small models. Both agree up to the rounding of the iteration. Of sharded matrices each
    rank keeps its rows of the momentum, and orthogonalizes some of the matrices for all ranks: see `on_owners`.
    Source: Jordan et al. 2024; Nesterov momentum 0.95, the step scaled by the root of rows / columns where that is
    above 1, weight decay as in AdamW.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        iteration: IterationName = "newton-schulz",
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.orthogonalized = partial(orthogonalize_all, iteration=iteration)
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None, "Muon takes one step for one gradient"
        for group in self.param_groups:
            stacks: dict[tuple[Any, ...], list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    stacks.setdefault((*weight.shape, weight.dtype, weight.device), []).append(weight)
            for weights in stacks.values():
                self._step_together(weights, group)

    def _step_together(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        rows, columns = shape = weights[0].shape
        gradients = [own_rows(weight.grad) for weight in weights if weight.grad is not None]
        momenta = [own_rows(self.state[weight]["momentum_buffer"]) for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))  # Nesterov momentum
        if is_sharded(weights[0]):
            updates = on_owners(self.orthogonalized, ahead, shape)
        else:
            updates = self.orthogonalized(ahead)
        values = [own_rows(weight) for weight in weights]
        torch._foreach_mul_(values, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(values, updates, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))


def _kernel_dtype(matrices: Tensor) -> torch.dtype:
    """bfloat16, whose rounding the iteration tolerates, except on processors that multiply float32 faster."""
    if matrices.device.type != "cpu":
        return torch.bfloat16
    has_kernels: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    is_fast = has_kernels and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if is_fast else matrices.dtype
