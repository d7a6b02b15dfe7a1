"""What a classifier's adapter holds beside its corrections: the head, and the norm before it.

transformers' head of a classifier has no bias. Ours moves into the shift of the last LayerNorm on its way out,
and out of it again on its way in, so that the base's own norm stays as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.huggingface import move_head_bias
from scratchlm.checkpoints.names import NameTable
from scratchlm.core.errors import CheckpointError
from scratchlm.finetuning.lora import LinearWithLoRA, plain_linear
from scratchlm.model.gpt import GPTModel

HEAD, SCORE = "out_head.weight", "score.weight"
SCALE, SHIFT = "final_norm.scale", "final_norm.shift"
PREFIX = "base_model.model."


def is_classifier(model: GPTModel) -> bool:
    """Does its head score classes, and not the tokens of a vocabulary?"""
    return _plain_head(model)[0].shape[0] != model.config.vocab_size


def _plain_head(model: GPTModel) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the head, its correction added if it has one.

    Shapes: (C, E) and (C,).
    """
    head: nn.Module = model.out_head
    if not isinstance(head, LinearWithLoRA):
        return model.out_head.weight.detach(), model.out_head.bias
    merged = copy.deepcopy(head)  # LoRA's sum or DoRA's rows, as the correction itself has it
    merged.merge()
    linear = plain_linear(merged)
    return linear.weight.detach(), linear.bias


def saved_modules(model: GPTModel, table: NameTable) -> dict[str, Tensor]:
    """The head without its bias, and the norm that took the bias up."""
    weight, bias = _plain_head(model)
    saved = {SCORE: weight}
    if bias is None or not bias.any():
        return saved
    state = {HEAD: weight, "out_head.bias": bias.detach()}
    state |= {f"final_norm.{name}": tensor.detach() for name, tensor in model.final_norm.state_dict().items()}
    move_head_bias(state)
    names = {ours: theirs for theirs, ours in _norm_names(model, table).items()}
    return saved | {names[ours]: state[ours] for ours in names}


def _norm_names(model: GPTModel, table: NameTable) -> dict[str, str]:
    """transformers' names of the last norm's weights, and ours."""
    rows = [row for row in table.rows(model.config.n_layers) if row.ours[0].startswith("final_norm.")]
    return {table.prefixes[0] + row.theirs: row.ours[0] for row in rows}


def fit_saved_modules(
    model: GPTModel, weights: Mapping[str, Tensor], config: Mapping[str, Any], table: NameTable, folder: Path
) -> dict[str, tuple[str, Tensor]]:
    """What replaces weights of the model, by the adapter's names: our name of the weight, and the numbers."""
    places = {SCORE: HEAD, **_norm_names(model, table)}
    saved = {
        key: (places[name], weights[key].float())
        for key in weights
        if (name := key.removeprefix(PREFIX).replace(".modules_to_save.default", "")) in places
    }
    if bool(saved) != bool(config.get("modules_to_save")):
        raise CheckpointError(
            f"{folder} should hold what modules_to_save names, found {config.get('modules_to_save')!r:.80} and "
            f"{sorted(saved)!r:.200}; fetch it again."
        )
    for key, (ours, tensor) in saved.items():
        width = model.config.emb_dim
        is_fitting = tensor.dim() == 2 and tensor.shape[1] == width and len(tensor) >= 2
        if not (is_fitting if ours == HEAD else tensor.shape == (width,)):
            raise CheckpointError(
                f"{folder} should hold {key} for a width of {width}, found {tuple(tensor.shape)}; take the model "
                "it was trained for."
            )
    return saved


def put_saved_modules(model: GPTModel, saved: Mapping[str, Tensor]) -> None:
    """Give the model an adapter's own head, and its norm, in place; `saved` has our names of the weights.

    A norm that differs from the model's by its shift only carries a head's bias: the head gets it back.
    """
    if not saved:
        return
    (n_classes, width), state = saved[HEAD].shape, model.state_dict()
    bias = None
    if SHIFT in saved and torch.equal(saved[SCALE], state[SCALE].cpu().float()):
        moved = saved[SHIFT].double() - state[SHIFT].cpu().double()
        bias = (saved[HEAD].double() @ moved).float()
    model.out_head = nn.Linear(width, n_classes, bias=bias is not None, device=model.tok_emb.weight.device)
    changed = {HEAD: saved[HEAD], "out_head.bias": bias} if bias is not None else saved
    with torch.no_grad():
        for name, tensor in changed.items():
            model.get_parameter(name).copy_(tensor)
