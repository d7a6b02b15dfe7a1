"""What a classifier's adapter holds beside its corrections: the head, and the norm before it.

transformers' head of a classifier has no bias. Ours moves into the shift of the last LayerNorm on its way out,
and out of it again on its way in, so that the base's own norm stays as it was.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.huggingface import move_head_bias
from scratchlm.checkpoints.names import NameTable, split
from scratchlm.core.errors import CheckpointError
from scratchlm.finetuning.lora import LinearWithLoRA, plain_linear
from scratchlm.finetuning.peft_settings import PeftSettings
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
    model: GPTModel, weights: Mapping[str, Tensor], settings: PeftSettings, table: NameTable
) -> dict[str, dict[str, Tensor]]:
    """What replaces weights of the model as a whole, by the adapter's keys: our names of them, and the numbers.

    These are the modules that modules_to_save names, the biases that `bias` trains, and copies of embedding and
    head, which peft saves along with corrections of them.
    Raises: CheckpointError for a weight that the settings do not speak of, is missing or has another shape.
    """
    folder, head = settings.where.parent, SCORE if settings.is_classifier else "lm_head.weight"
    rows = {
        name if name in table.unprefixed else table.prefixes[0] + name: row
        for row in table.rows(model.config.n_layers)
        if (name := row.theirs) == head or row.ours[0] != HEAD
    }
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved: dict[str, dict[str, Tensor]] = {}
    for key in weights:
        name = key.removeprefix(PREFIX).replace(".modules_to_save.default", "").replace(".base_layer.", ".")
        if name not in rows:
            continue
        module, row = name.rpartition(".")[0], rows[name]
        is_bias = name.endswith(".bias") and settings.bias != "none"
        if not (settings.is_saved(module) or is_bias or row.ours[0] in (HEAD, "tok_emb.weight")):
            raise CheckpointError(
                f"{folder} must hold only what its {settings.where.name} speaks of, got {key:.120}, which "
                "modules_to_save does not name; take another copy of the adapter."
            )
        parts = dict(zip(row.ours, split(weights[key].float(), row)))
        for ours, part in parts.items():
            expected = _expected_shape(ours, part, own, model, is_classifier=settings.is_classifier)
            if len(parts) != len(row.ours) or tuple(part.shape) != expected:
                raise CheckpointError(
                    f"{folder} must hold {key:.120} for weights of the shape {expected}, got "
                    f"{tuple(weights[key].shape)}; take the model it was trained for."
                )
        saved[key] = parts
    found = {ours for parts in saved.values() for ours in parts}
    for name, row in rows.items():
        is_there = set(row.ours) <= own.keys() or row.ours[0] == HEAD
        if is_there and settings.is_saved(name.rpartition(".")[0]) and not set(row.ours) <= found:
            raise CheckpointError(
                f"{folder} must hold {name}, since {settings.where.name} has {settings.saved!r:.80} as "
                "modules_to_save, found none; take another copy of the adapter."
            )
    return saved


def _expected_shape(
    ours: str, part: Tensor, own: Mapping[str, tuple[int, ...]], model: GPTModel, *, is_classifier: bool
) -> tuple[int, ...]:
    if ours == HEAD and is_classifier and part.dim() == 2:
        return (max(2, len(part)), model.config.emb_dim)
    if ours.endswith(".bias"):  # GPT-2's queries, keys and values have none here while all are zero
        return own.get(ours.removesuffix("bias") + "weight", ())[:1]
    return own.get(ours, ())


def put_saved_modules(model: GPTModel, saved: Mapping[str, Tensor], *, has_own_matrix: bool = True) -> None:
    """Give the model an adapter's own modules in place; `saved` has our names of the weights.

    has_own_matrix: where head and embedding are one matrix, the one that is replaced becomes its own. A
        classifier's norm that differs from the model's by its shift only carries a head's bias: the head gets it back.
    """
    if not saved:
        return
    state, head = model.state_dict(), saved.get(HEAD)
    changed = dict(saved)
    if head is not None and len(head) != model.config.vocab_size:
        bias = None
        if SHIFT in saved and torch.equal(saved[SCALE], state[SCALE].cpu().float()):
            moved = saved[SHIFT].double() - state[SHIFT].cpu().double()
            bias = (head.double() @ moved).float()
            del changed[SCALE], changed[SHIFT]
            changed["out_head.bias"] = bias
        device = model.tok_emb.weight.device
        model.out_head = nn.Linear(head.shape[1], len(head), bias=bias is not None, device=device)
    elif has_own_matrix and model.config.tie_embeddings and changed.keys() & {HEAD, "tok_emb.weight"}:
        plain_head = model.out_head.linear if isinstance(model.out_head, LinearWithLoRA) else model.out_head
        plain_head.weight = nn.Parameter(model.tok_emb.weight.detach().clone())
        model.config = dataclasses.replace(model.config, tie_embeddings=False)
    for name, tensor in changed.items():
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        if isinstance(module, LinearWithLoRA):
            module = module.linear
        parameter = getattr(module, attribute)
        if parameter is None:  # a bias of queries, keys or values that was left out
            setattr(module, attribute, nn.Parameter(tensor.to(model.tok_emb.weight)))
            model.config = dataclasses.replace(model.config, qkv_bias=True)
            continue
        with torch.no_grad():
            parameter.copy_(tensor)
