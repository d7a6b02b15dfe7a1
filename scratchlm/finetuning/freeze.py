"""Which parts of a model learn: the rest stays as pre-training left it."""

from __future__ import annotations

from typing import Literal

from torch import nn

from scratchlm.model.gpt import GPTModel

WeightPart = Literal["head", "last-layer", "last-block", "last-two-blocks", "all"]
TrainPart = Literal[WeightPart, "lora"]  # lora: corrections beside frozen weights, see lora_settings.py
N_BLOCKS: dict[str, int] = {"head": 0, "last-layer": 0, "last-block": 1, "last-two-blocks": 2}


def freeze_all_but(model: GPTModel, part: WeightPart) -> int:
    """Leave only a part trainable, in place; returns how many numbers that are.

    `head` is the output head alone, which the book's table calls `last-layer`; `last-block` and `last-two-blocks`
    add the final norm and those blocks, as the book does; `all` is everything.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(part == "all")
    learning: list[nn.Module] = [model.out_head]
    if part != "all" and N_BLOCKS[part]:
        learning += [model.final_norm, *list(model.trf_blocks)[-N_BLOCKS[part] :]]
    for module in learning:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
    return model.n_parameters(trainable_only=True)
