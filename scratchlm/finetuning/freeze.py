"""Select the part of a model that fine-tuning trains; the rest is frozen."""

from typing import Literal

from torch import nn

from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import check_trainable

WeightPart = Literal["head", "last-layer", "last-block", "last-two-blocks", "all"]
TrainPart = Literal[WeightPart, "lora"]  # lora: low-rank updates beside frozen weights, see lora.py
N_BLOCKS: dict[str, int] = {"head": 0, "last-layer": 0, "last-block": 1, "last-two-blocks": 2}


def freeze_all_but(model: GPTModel, part: WeightPart) -> int:
    """Make only a part of the model trainable, in place; returns the number of trainable parameters.

    `head` is the output head alone, which the book's table calls `last-layer`; `last-block` and `last-two-blocks`
    add the final norm and those blocks, as the book does; `all` is everything.
    Raises: ConfigError when that part has quantized weights.
    """
    trainable: list[nn.Module] = [model if part == "all" else model.out_head]
    if part != "all" and N_BLOCKS[part]:
        trainable += [model.final_norm, *list(model.trf_blocks)[-N_BLOCKS[part] :]]
    for module in trainable:
        check_trainable(module)
    model.requires_grad_(False)
    for module in trainable:
        module.requires_grad_(True)
    return model.n_parameters(trainable_only=True)
