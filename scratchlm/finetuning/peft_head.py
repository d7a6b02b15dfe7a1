"""Weights that a peft adapter replaces as a whole, such as a classifier's head.

The head of a classifier in transformers has no bias. The export moves ours into the shift of the final LayerNorm, and
the import moves it back, so that the base's own norm stays unchanged.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.huggingface import move_head_bias
from scratchlm.checkpoints.names import NameTable, split
from scratchlm.core.errors import CheckpointError
from scratchlm.finetuning.lora import LinearWithLoRA, linear_widths, plain_linear
from scratchlm.finetuning.peft_config import PeftConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.model.linear import build_linear, dense_weight

HEAD, SCORE = "out_head.weight", "score.weight"
SCALE, SHIFT = "final_norm.scale", "final_norm.shift"
PREFIX = "base_model.model."


def is_classifier(model: GPTModel) -> bool:
    """Whether the head scores classes instead of the tokens of a vocabulary."""
    head: nn.Module = model.out_head
    width = linear_widths(head.linear if isinstance(head, LinearWithLoRA) else head)[1]
    return width != model.config.vocab_size


def saved_modules(model: GPTModel, table: NameTable) -> dict[str, Tensor]:
    """A classifier's head without its bias, and the norm that gets the bias, by transformers' names."""
    head: nn.Module = model.out_head
    if isinstance(head, LinearWithLoRA):
        weight, bias = head.merged_weight(), plain_linear(head).bias
    else:
        weight, bias = model.out_head.weight, model.out_head.bias
    saved = {SCORE: weight.detach()}
    if bias is None or not bias.any():
        return saved
    state = {HEAD: weight.detach(), "out_head.bias": bias.detach()}
    state |= {f"final_norm.{name}": tensor.detach() for name, tensor in model.final_norm.state_dict().items()}
    move_head_bias(state)
    norm = [row for row in table.rows(model.config.n_layers) if row.ours[0].startswith("final_norm.")]
    return saved | {table.prefixes[0] + row.theirs: state[row.ours[0]] for row in norm}


def match_saved_modules(
    model: GPTModel, weights: Mapping[str, Tensor], config: PeftConfig, table: NameTable
) -> dict[str, dict[str, Tensor]]:
    """The weights in an adapter that replace the model's, by the adapter's keys: tensors by our names.

    These are the modules in modules_to_save, the biases that `bias` selects, and copies of embedding and head, which
    peft saves along with updates of them.
    Raises: CheckpointError for a weight that the config does not name, is missing or has another shape.
    """
    folder, head = config.path.parent, SCORE if config.is_classifier else "lm_head.weight"
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
        is_bias = name.endswith(".bias") and config.bias != "none"
        if not (config.is_saved(module) or is_bias or row.ours[0] in (HEAD, "tok_emb.weight")):
            raise CheckpointError(
                f"{folder} holds {key:.120}, which modules_to_save in its {config.path.name} does not name; use "
                "another copy of the adapter."
            )
        parts = dict(zip(row.ours, split(weights[key].float(), row)))
        for ours, part in parts.items():
            expected = _expected_shape(ours, part, own, model, is_classifier=config.is_classifier)
            if len(parts) != len(row.ours) or tuple(part.shape) != expected:
                raise CheckpointError(
                    f"{key:.120} in {folder} must match weights of the shape {expected}, got "
                    f"{tuple(weights[key].shape)}; use the model it was trained for."
                )
        saved[key] = parts
    found = {ours for parts in saved.values() for ours in parts}
    for name, row in rows.items():
        is_there = set(row.ours) <= own.keys() or row.ours[0] == HEAD
        if is_there and config.is_saved(name.rpartition(".")[0]) and not set(row.ours) <= found:
            raise CheckpointError(
                f"{folder} lacks {name}, although {config.path.name} has {config.saved!r:.80} as modules_to_save; "
                "restore it from another copy of the adapter."
            )
    return saved


def _expected_shape(
    ours: str, part: Tensor, own: Mapping[str, tuple[int, ...]], model: GPTModel, *, is_classifier: bool
) -> tuple[int, ...]:
    if ours == HEAD and is_classifier and part.dim() == 2:
        return (max(2, len(part)), model.config.emb_dim)
    if ours.endswith(".bias"):  # our GPT-2 has no bias of queries, keys and values where all are zero
        return own.get(ours.removesuffix("bias") + "weight", ())[:1]
    return own.get(ours, ())


def load_saved_modules(model: GPTModel, saved: Mapping[str, Tensor], *, has_own_matrix: bool = True) -> None:
    """Replace weights of the model by an adapter's, in place; `saved` uses our names.

    A classifier's norm that differs from the model's in its shift only holds the head's bias, which is moved back.
    has_own_matrix: untie head and embedding if one of them is replaced.
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
        device = next(model.parameters()).device
        model.out_head = build_linear(head.shape[1], len(head), bias=bias is not None, device=device)
    elif has_own_matrix and model.config.tie_embeddings and changed.keys() & {HEAD, "tok_emb.weight"}:
        plain_head = model.out_head.linear if isinstance(model.out_head, LinearWithLoRA) else model.out_head
        plain_head.weight = nn.Parameter(dense_weight(model.tok_emb).detach().clone())
        model.config = dataclasses.replace(model.config, tie_embeddings=False)
    for name, tensor in changed.items():
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        if isinstance(module, LinearWithLoRA):
            module = module.linear
        parameter = getattr(module, attribute)
        if parameter is None:  # a bias of queries, keys or values
            setattr(module, attribute, nn.Parameter(tensor.to(next(model.parameters()))))
            model.config = dataclasses.replace(model.config, qkv_bias=True)
            continue
        with torch.no_grad():
            parameter.copy_(tensor)
