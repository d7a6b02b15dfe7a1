"""Build the optimizers of a model's trainable weights, and save their state as named tensors."""

import torch
from torch import Tensor, nn

from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.training.config import TrainingConfig
from scratchlm.training.muon import Muon
from scratchlm.training.sharded_tensors import gathered, like_weight


class Optimizers:
    """One or two torch optimizers for a model's trainable weights, used like one.

    Matrices are decayed, biases and norms are not. With `muon`, the blocks' matrices go to `Muon`
    and embeddings, head, biases and norms to AdamW.
    Source: AdamW from Loshchilov & Hutter 2019; Muon from Jordan et al. 2024, which leaves embeddings and the
    output head to AdamW.
    Raises: ConfigError when no weight is trainable.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self.config = config
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trainable:
            raise ConfigError("the model has no trainable weight; unfreeze a part of it.")
        muon_weights = {
            name: p for name, p in self.trainable.items()
            if config.optimizer == "muon" and p.ndim == 2 and name.startswith("trf_blocks.")
        }  # fmt: skip
        rest = [p for name, p in self.trainable.items() if name not in muon_weights]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.parts: list[torch.optim.Optimizer] = []
        if rest:
            betas = (config.beta1, config.beta2)
            adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)
            # Created at the first update, they would lie between freed activations, which then do not fit any more.
            for p in rest:
                moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                adamw.state[p] = {"step": torch.zeros((), device=p.device), **moments}
            self.parts.append(adamw)
        if muon_weights:
            self.parts.append(
                Muon(
                    muon_weights.values(),
                    lr=config.muon_learning_rate,
                    weight_decay=config.weight_decay,
                    iteration=config.muon_iteration,
                )
            )

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the next step; Muon's is the same fraction of its own peak."""
        for part in self.parts:
            is_muon = isinstance(part, Muon)
            scale = self.config.muon_learning_rate / self.config.learning_rate if is_muon else 1.0
            for group in part.param_groups:
                group["lr"] = value * scale

    def step(self) -> None:
        """Update the weights, then delete the gradients."""
        for part in self.parts:
            part.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Delete the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def clip_gradients(self, max_norm: float) -> float:
        """Scale the gradients to a global norm of at most max_norm (0 = no limit); returns the norm before."""
        weights = [p for p in self.trainable.values() if p.grad is not None]
        if max_norm > 0:
            return float(gathered(nn.utils.clip_grad_norm_(weights, max_norm)))
        return float(gathered(nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])))

    def state(self) -> dict[str, Tensor]:
        """The moments as named tensors, e.g. `optimizer.final_norm.scale.exp_avg`, so that no pickle is needed."""
        name_of = {id(p): name for name, p in self.trainable.items()}
        return {
            f"optimizer.{name_of[id(p)]}.{key}": torch.as_tensor(value)
            for part in self.parts
            for p, moments in part.state.items()
            for key, value in moments.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned.

        Raises: CheckpointError when a moment belongs to a weight that is not trainable, or has another shape.
        """
        part_of = {
            id(p): part for part in self.parts for group in part.param_groups for p in group["params"]
        }  # fmt: skip
        for key, tensor in tensors.items():
            if not key.startswith("optimizer."):
                continue
            name, _, moment = key.removeprefix("optimizer.").rpartition(".")
            weight = self.trainable.get(name)
            if weight is None or (tensor.ndim > 0 and tensor.shape != weight.shape):
                raise CheckpointError(
                    f"the optimizer state does not fit the trainable weights: {key} has shape {tuple(tensor.shape)}; "
                    "resume with the settings of the first start."
                )
            state = part_of[id(weight)].state[weight]
            # fused AdamW needs its step counter on the weight's device and in float32, as it was created
            state[moment] = like_weight(tensor, weight)
