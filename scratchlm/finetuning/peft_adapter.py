"""LoRA corrections as a folder of Hugging Face's `peft`, and back.

The folder holds `adapter_config.json` and `adapter_model.safetensors`, under the names of transformers' modules.
Its GPT-2 has one matrix where we have three (queries, keys, values), so our three corrections become one of
three times the rank, whose output part holds a block for each.

A classifier's adapter brings its head along as `score`, which has no bias there. Ours then moves into the shift of
the last LayerNorm, as in `export_huggingface`, and the norm is brought along too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.huggingface import move_head_bias
from scratchlm.checkpoints.names import GPT2, LLAMA, NameTable, first_names
from scratchlm.checkpoints.store import save_tensors
from scratchlm.checkpoints.weight_files import open_weights
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import new_folder, read_json, write_json
from scratchlm.finetuning.lora import LinearWithLoRA
from scratchlm.model.gpt import GPTModel

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
HEAD, SCORE = "out_head.weight", "score.weight"
SAVED_MODULES = {"score", "classifier", "ln_f", "norm"}  # peft names the first two for every classifier
_PREFIX = "base_model.model."
_PART = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")


def export_peft(folder: str | Path, model: GPTModel, *, base: str | None = None) -> Path:
    """Write the model's LoRA corrections as an adapter folder, whole or not at all.

    A classifier, whose head is not as wide as the vocabulary, becomes an adapter of the kind SEQ_CLS with its head.
    base: name or folder of the model that they correct, for `peft.AutoPeftModel`.
    Raises: ConfigError for a model without corrections; CheckpointError when only some of a joint matrix have
        one, or of different rank or scale, which the format cannot say.
    """
    table = _table(model)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for name, ours in _modules(table, model):
        layers = [_module(model, path) for path in ours]
        with_lora = [layer for layer in layers if isinstance(layer, LinearWithLoRA)]
        if not with_lora:
            continue
        kinds = {(layer.lora.rank, layer.lora.scaling) for layer in with_lora}
        if len(with_lora) != len(layers) or len(kinds) != 1:
            raise CheckpointError(
                f"the corrections of {', '.join(ours)} become one in this format, found {len(with_lora)} of "
                f"{len(layers)}, of {len(kinds)} kinds; give all of them the same rank and scale."
            )
        rank, scaling = kinds.pop()
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = torch.cat([layer.lora.A.T for layer in with_lora])
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = _diagonal([layer.lora.B.T for layer in with_lora])
        ranks[name] = rank * len(layers)
        alphas[name] = scaling * ranks[name]
    if not tensors:
        raise ConfigError(
            "the model should have LoRA layers, found none; call replace_linear_with_lora first."
        )
    config = _config(ranks, alphas, table, base)
    if is_classifier(model):
        saved = _saved_modules(model, table)
        tensors |= {_PREFIX + name: tensor for name, tensor in saved.items()}
        modules = dict.fromkeys(name.rpartition(".")[0].rpartition(".")[2] for name in saved)
        config |= {"task_type": "SEQ_CLS", "modules_to_save": list(modules)}
    target = Path(folder)
    with new_folder(target, error=CheckpointError) as partial:
        save_tensors(partial / _WEIGHTS[0], tensors, metadata={"format": "pt"})
        write_json(partial / ADAPTER_CONFIG, config, error=CheckpointError)
    return target


def is_classifier(model: GPTModel) -> bool:
    """Does its head score classes, and not the tokens of a vocabulary?"""
    return _plain_head(model)[0].shape[0] != model.config.vocab_size


def import_peft(model: GPTModel, folder: str | Path) -> int:
    """Give the model the corrections of an adapter folder, in place; says how many linear layers got one.

    An adapter of the kind SEQ_CLS also replaces the model's head by its own, for a score per class.
    Raises: CheckpointError for an adapter of another kind than LoRA, for one of another model, and for damaged
        files, naming what does not fit.
    """
    folder = Path(folder)
    config = _read_config(folder)
    weights = open_weights(_find_weights(folder))
    table = _table(model)
    places = dict(_modules(table, model))
    saved = _fit_saved(model, weights, config, table, folder)
    found: dict[str, dict[str, Tensor]] = {}
    for key in weights:
        if key in saved:
            continue
        match = _PART.fullmatch(key.removeprefix(_PREFIX))
        if match is None or match[1] not in places:
            raise CheckpointError(
                f"{folder} should correct modules of this model, found {key:.200}; take the model it was "
                "trained for."
            )
        found.setdefault(match[1], {})[match[2]] = weights[key].float()
    fitting = [_fit(model, places[name], parts, config, name, folder) for name, parts in found.items()]
    for corrections in fitting:
        for path, layer in corrections.items():
            parent = _module(model, path.rpartition(".")[0])
            setattr(parent, path.rpartition(".")[2], layer)
    for ours, tensor in saved.values():
        if ours == HEAD:
            n_classes, width = tensor.shape
            model.out_head = nn.Linear(width, n_classes, bias=False, device=model.tok_emb.weight.device)
        with torch.no_grad():
            model.get_parameter(ours).copy_(tensor)
    return sum(map(len, fitting))


def _plain_head(model: GPTModel) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the head, its correction added if it has one.

    Shapes: (C, E) and (C,).
    """
    head: nn.Module = model.out_head
    if not isinstance(head, LinearWithLoRA):
        return model.out_head.weight.detach(), model.out_head.bias
    return (head.linear.weight + head.lora.product()).detach(), head.linear.bias


def _saved_modules(model: GPTModel, table: NameTable) -> dict[str, Tensor]:
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


def _fit_saved(
    model: GPTModel, weights: Mapping[str, Tensor], config: Mapping[str, Any], table: NameTable, folder: Path
) -> dict[str, tuple[str, Tensor]]:
    """What replaces weights of the model, by the adapter's names: our name of the weight, and the numbers."""
    places = {SCORE: HEAD, **_norm_names(model, table)}
    saved = {
        key: (places[name], weights[key].float())
        for key in weights
        if (name := key.removeprefix(_PREFIX).replace(".modules_to_save.default", "")) in places
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


def _fit(
    model: GPTModel,
    ours: tuple[str, ...],
    parts: Mapping[str, Tensor],
    config: Mapping[str, Any],
    name: str,
    folder: Path,
) -> dict[str, LinearWithLoRA]:
    """The corrected layers in place of `ours`, which share the first matrix."""
    layers = [_module(model, path) for path in ours]
    if any(not isinstance(layer, nn.Linear) for layer in layers):
        raise CheckpointError(
            f"{name} should not have a correction yet, found one; merge it or load the model anew."
        )
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    n_out = sum(layer.out_features for layer in linears)
    rank = parts["A"].shape[0] if "A" in parts and parts["A"].dim() == 2 else 0
    shapes = {side: tuple(part.shape) for side, part in parts.items()}
    if rank < 1 or shapes != {"A": (rank, linears[0].in_features), "B": (n_out, rank)}:
        raise CheckpointError(
            f"{folder} should hold lora_A (rank, {linears[0].in_features}) and lora_B ({n_out}, rank) for "
            f"{name}, found {shapes}; take the model it was trained for."
        )
    scaling = _scaling(config, name, rank)
    corrected: dict[str, LinearWithLoRA] = {}
    heights = [layer.out_features for layer in linears]
    for path, linear, rows in zip(ours, linears, torch.split(parts["B"], heights), strict=True):
        layer = LinearWithLoRA(linear, rank, scaling * rank)
        with torch.no_grad():
            layer.lora.A.copy_(parts["A"].T)
            layer.lora.B.copy_(rows.T)
        corrected[path] = layer
    return corrected


def _scaling(config: Mapping[str, Any], name: str, rank: int) -> float:
    patterns = config.get("alpha_pattern") or {}
    alpha = next(
        (value for key, value in patterns.items() if name == key or name.endswith(f".{key}")),
        config.get("lora_alpha", 8),
    )
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise CheckpointError(f"{ADAPTER_CONFIG} must hold numbers as lora_alpha, found {alpha!r:.80}.")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / ADAPTER_CONFIG, error=CheckpointError)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{folder / ADAPTER_CONFIG} must be of a LoRA adapter, found {kind!r:.80}.")
    for key, allowed in (("bias", "none"), ("use_dora", False)):
        if config.get(key, allowed) not in (allowed, None):
            raise CheckpointError(
                f"{folder / ADAPTER_CONFIG} has {key} = {config[key]!r:.80}, which would change the results and "
                "which we do not have; merge the adapter with peft."
            )
    others = set(config.get("modules_to_save") or ()) - SAVED_MODULES
    if others or (config.get("modules_to_save") and config.get("task_type") != "SEQ_CLS"):
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG} should replace a classifier's head at most, found modules_to_save = "
            f"{config['modules_to_save']!r:.80}; merge the adapter with peft."
        )
    if not isinstance(config.get("alpha_pattern") or {}, dict):
        raise CheckpointError(f"{folder / ADAPTER_CONFIG} must hold alpha_pattern as a table.")
    return config


def _config(
    ranks: Mapping[str, int], alphas: Mapping[str, float], table: NameTable, base: str | None
) -> dict[str, Any]:
    first = next(iter(ranks))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": ranks[first],
        "lora_alpha": alphas[first],
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != ranks[first]},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != alphas[first]},
        "target_modules": list(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": table is GPT2,
        "inference_mode": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _find_weights(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} should hold {first_names(list(_WEIGHTS))}, found none; fetch it again.")


def _diagonal(blocks: list[Tensor]) -> Tensor:
    """One matrix with the blocks along its diagonal, zeros elsewhere."""
    joined = blocks[0].new_zeros(sum(len(b) for b in blocks), sum(b.shape[1] for b in blocks))
    row = column = 0
    for block in blocks:
        joined[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return joined


def _table(model: GPTModel) -> NameTable:
    return LLAMA if model.config.positions == "rotary" else GPT2


def _modules(table: NameTable, model: GPTModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    """transformers' names of linear layers, and ours that they hold; the head has the same name in all."""
    for row in table.rows(model.config.n_layers):
        is_matrix = row.theirs.endswith(".weight") and row.theirs != "score.weight"
        ours = tuple(name.removesuffix(".weight") for name in row.ours)
        is_other_head = ours == ("out_head",) and is_classifier(model)  # goes along whole, as the score
        if is_matrix and not is_other_head and all(_is_linear(model, path) for path in ours):
            prefix = "" if row.theirs in table.unprefixed else table.prefixes[0]
            yield (prefix + row.theirs).removesuffix(".weight"), ours


def _module(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path)


def _is_linear(model: nn.Module, path: str) -> bool:
    try:
        return isinstance(model.get_submodule(path), (nn.Linear, LinearWithLoRA))
    except AttributeError:
        return False
