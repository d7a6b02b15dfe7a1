"""Changes of model and optimizer that `benchmarks.quality` compares and that are no settings of a run."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.model.gpt import GPTModel
from scratchlm.training.muon import EPSILON, Muon
from scratchlm.training.optim import Optimizers

LEVERS = ("normuon", "cautious", "zero", "relu2", "soft-cap", "value-embeddings")
SECOND_MOMENT = 0.95  # NorMuon's beta 2
CAP = 15.0  # logits stay between -15 and 15, as in modded-nanogpt


def levers_of(text: str) -> set[str]:
    """The levers of `a+b`.

    Raises: ConfigError for an unknown one.
    """
    names = set(filter(None, text.split("+")))
    for name in names - set(LEVERS):
        raise ConfigError(f"lever must be one of {', '.join(LEVERS)}, got {name!r}; {nearest(name, LEVERS)}")
    return names


def change_model(model: GPTModel, levers: set[str]) -> None:
    """Apply the levers that concern the model: to its start, or to what it computes."""
    for name, module in model.named_modules():
        if "zero" in levers and name.endswith(("att.out_proj", "ff.layers.2", "ff.down")):
            nn.init.zeros_(module.weight)  # every block starts as the identity (Zhang et al. 2019, Fixup)
    if "relu2" in levers:
        for block in model.trf_blocks:
            block.ff.layers[1] = SquaredReLU()
    if "soft-cap" in levers:
        model.out_head = SoftCappedHead(model.out_head)
    if "value-embeddings" in levers:
        add_value_embeddings(model)


class SquaredReLU(nn.Module):
    """Source: So et al. 2021, "Primer"."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class SoftCappedHead(nn.Module):
    """Source: Gemma 2 (Riviere et al. 2024), section 2."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head, self.out_features, self.weight = head, head.out_features, head.weight

    def forward(self, x: Tensor) -> Tensor:
        return CAP * torch.tanh(self.head(x) / CAP)


def add_value_embeddings(model: GPTModel, n_blocks: int = 2) -> None:
    """Add an embedding of each token to the values of the last blocks.

    Source: Zhou et al. 2024, "Value Residual Learning"; as embeddings in modded-nanogpt.
    """
    config, embed, seen = model.config, model.embed, {}

    def remembering(ids: Tensor, **rest: Any) -> Any:
        seen["ids"] = ids
        return embed(ids, **rest)

    def with_values(project: Any, table: nn.Embedding, n_heads: int) -> Any:
        def projected(x: Tensor, context: Any) -> tuple[Tensor, Tensor, Tensor]:
            queries, keys, values = project(x, context)
            added = table(seen["ids"]).unflatten(-1, (n_heads, -1)).transpose(1, 2)  # (B, H, T, D)
            return queries, keys, values + added

        return projected

    model.embed = remembering  # type: ignore[method-assign]
    model.value_embeddings = nn.ModuleList()
    for block in list(model.trf_blocks)[-n_blocks:]:
        table = nn.Embedding(config.vocab_size, config.emb_dim)
        nn.init.normal_(table.weight, std=0.02)
        model.value_embeddings.append(table)
        block.att.project = with_values(block.att.project, table, config.n_heads)


def change_optimizers(optimizers: Optimizers, levers: set[str]) -> None:
    """Apply the levers that concern Muon."""
    for part in optimizers.parts:
        if isinstance(part, Muon) and levers & {"normuon", "cautious"}:
            part.__class__ = VariedMuon
            part.levers = levers


class VariedMuon(Muon):
    """Muon with one step size for each row or column of an update, or with cautious weight decay.

    Source: Li et al. 2025, "NorMuon"; Chen et al. 2025, "Cautious Weight Decay": only weights that the update moves
    towards zero decay.
    """

    levers: set[str]

    def _step_together(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        rows, columns = weights[0].shape
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))
        for weight, update in zip(weights, self.orthogonalized(ahead)):
            if "normuon" in self.levers:
                update = self._normalized(weight, update)
            decay = group["lr"] * group["weight_decay"]
            weight.sub_(decay * weight * (weight * update > 0 if "cautious" in self.levers else 1))
            weight.sub_(group["lr"] * math.sqrt(max(1.0, rows / columns)) * update)

    def _normalized(self, weight: Tensor, update: Tensor) -> Tensor:
        dim = -1 if weight.shape[0] >= weight.shape[1] else -2
        square = update.square().mean(dim, keepdim=True)
        moment = self.state[weight].setdefault("second_moment", torch.zeros_like(square))
        moment.lerp_(square, 1 - SECOND_MOMENT)
        scaled = update * moment.clamp_min(1e-10).rsqrt()
        return scaled * (update.norm() / scaled.norm().clamp_min(EPSILON))
