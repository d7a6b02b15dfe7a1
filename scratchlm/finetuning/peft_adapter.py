"""LoRA corrections as a folder of Hugging Face's `peft`, and back.

The folder holds `adapter_config.json` and `adapter_model.safetensors`, under the names of transformers' modules.
Its GPT-2 has one matrix where we have three (queries, keys, values), so our three corrections become one of
three times the rank, whose output part holds a block for each. A file of ours says in `base.json` which weights
it corrects.

A classifier's adapter brings its head along as `score`, which has no bias there. Ours then moves into the shift of
the last LayerNorm, as in `export_huggingface`, and the norm is brought along too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.names import GPT2, LLAMA, NameTable, first_names
from scratchlm.checkpoints.store import ADAPTER_CONFIG, save_tensors
from scratchlm.checkpoints.weight_files import open_weights
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import new_folder, write_json
from scratchlm.core.partials import standing
from scratchlm.finetuning.base_weights import BASE_FILE, check_base, save_base
from scratchlm.finetuning.dora import LinearWithDoRA, row_lengths
from scratchlm.finetuning.lora import LinearWithLoRA
from scratchlm.finetuning.peft_head import (
    PREFIX,
    fit_saved_modules,
    is_classifier,
    put_saved_modules,
    saved_modules,
)
from scratchlm.finetuning.peft_settings import PeftSettings
from scratchlm.finetuning.targets import is_linear, widths
from scratchlm.model.gpt import GPTModel

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_FILES = (ADAPTER_CONFIG, *_WEIGHTS, BASE_FILE)  # that an adapter's folder holds
_USUAL_TARGETS = (("q_proj", "v_proj"), ("c_attn",))  # of peft for the Llama family, for GPT-2
_PART = re.compile(r"(.+)\.lora_(A|B|magnitude_vector)(?:\.default)?(?:\.weight)?")


def export_peft(folder: str | Path, model: GPTModel, *, base: str | None = None) -> Path:
    """Write the model's corrections, and nothing else, as an adapter folder, whole or not at all.

    A classifier, whose head is not as wide as the vocabulary, becomes an adapter of the kind SEQ_CLS with its head.
    base: name or folder of the model that they correct, for `peft.AutoPeftModel`.
    Raises: ConfigError for a model without corrections, or with merged ones; CheckpointError when those of a
        joint matrix are of different kind, rank or scale, which the format cannot say.
    """
    table = _table(model)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    dropouts: set[float] = set()
    corrected: list[LinearWithLoRA] = []
    for name, ours in _modules(table, model):
        layers = [_module(model, path) for path in ours]
        own = [layer for layer in layers if isinstance(layer, LinearWithLoRA)]
        if not own:
            continue
        kinds = {(type(layer), layer.lora.rank, layer.lora.scaling) for layer in own}
        if len(kinds) != 1:
            raise CheckpointError(
                f"the corrections of {', '.join(ours)} become one in this format, found {len(kinds)} kinds; give all "
                "of them the same rank and scale."
            )
        _, rank, scaling = kinds.pop()
        tensors |= {f"{PREFIX}{name}.lora_{part}": tensor for part, tensor in _joined(layers).items()}
        ranks[name] = rank * len(own)
        alphas[name] = scaling * ranks[name]
        dropouts |= {layer.lora.dropout for layer in own}
        corrected += own
    if not tensors:
        raise ConfigError(
            "the model should have LoRA layers, found none; call replace_linear_with_lora first."
        )
    has_dora = {isinstance(layer, LinearWithDoRA) for layer in corrected}
    if len(has_dora) != 1:
        raise CheckpointError("an adapter is either LoRA or DoRA, found both; write two adapters.")
    config = _config(ranks, alphas, table, base, use_dora=has_dora.pop(), dropout=max(dropouts))
    has_classes = is_classifier(model)
    if has_classes:
        saved = saved_modules(model, table)
        tensors |= {PREFIX + name: tensor for name, tensor in saved.items()}
        modules = dict.fromkeys(name.rpartition(".")[0].rpartition(".")[2] for name in saved)
        config |= {"task_type": "SEQ_CLS", "modules_to_save": list(modules)}
    target = Path(folder)
    with new_folder(target, error=CheckpointError) as partial:
        save_tensors(partial / _WEIGHTS[0], tensors, metadata={"format": "pt"})
        write_json(partial / ADAPTER_CONFIG, config, error=CheckpointError)
        save_base(partial, model, has_head=not has_classes)
    return target


def replaced_parts(folder: str | Path) -> list[str]:
    """What an adapter folder replaces beside its corrections, such as a classifier's head, by peft's names.

    Raises: CheckpointError for an adapter of another kind than LoRA or DoRA.
    """
    settings = PeftSettings(standing(Path(folder)))
    return settings.saved + (["biases"] if settings.bias != "none" else [])


def _joined(layers: list[nn.Module]) -> dict[str, Tensor]:
    """The corrections of layers that share one matrix over there; of a layer without, zeros."""
    corrected = [layer for layer in layers if isinstance(layer, LinearWithLoRA)]
    blocks = [
        layer.lora.B.T
        if isinstance(layer, LinearWithLoRA)
        else corrected[0].lora.B.new_zeros(widths(layer)[1], 0)
        for layer in layers
    ]
    parts = {
        "A.weight": torch.cat([layer.lora.A.T for layer in corrected]),
        "B.weight": _diagonal(blocks),
    }
    if isinstance(corrected[0], LinearWithDoRA):
        lengths = [
            layer.magnitude if isinstance(layer, LinearWithDoRA) else row_lengths(layer) for layer in layers
        ]
        parts["magnitude_vector"] = torch.cat(lengths)
    return parts


def import_peft(model: GPTModel, folder: str | Path) -> int:
    """Give the model the corrections of an adapter folder, in place; says how many linear layers got one.

    An adapter of the kind SEQ_CLS also replaces the model's head by its own, for a score per class.
    Raises: CheckpointError for an adapter of another kind than LoRA or DoRA, for one of another model or of
        other weights, and for damaged files, naming what does not fit; the model is then as before.
    """
    folder = standing(Path(folder))
    settings = PeftSettings(folder)
    weights = open_weights(_find_weights(folder))
    table = _table(model)
    places = dict(_modules(table, model))
    settings.check_patterns(places)
    saved = fit_saved_modules(model, weights, settings, table)
    found: dict[str, dict[str, Tensor]] = {}
    for key in weights:
        if key in saved:
            continue
        match = _PART.fullmatch(key.removeprefix(PREFIX))
        if match is None or match[1] not in places:
            raise CheckpointError(
                f"{folder} must correct linear modules of this model, got {key:.200}; take the model it was trained "
                "for, or merge the adapter with peft and open the merged model."
            )
        found.setdefault(match[1], {})[match[2]] = weights[key].float()
    wanted = settings.targets(places, usual=_USUAL_TARGETS[table is GPT2], head="lm_head")
    if odd := sorted(wanted ^ found.keys()):
        raise CheckpointError(
            f"{folder} must hold corrections of the modules that its target_modules names, and of no others; "
            f"{first_names(odd)} is in one of them only: take another copy of the adapter."
        )
    fitting = [_fit(model, places[name], parts, settings, name) for name, parts in found.items()]
    check_base(folder, model, has_head=not settings.is_classifier)
    for corrections in fitting:
        for path, layer in corrections.items():
            parent = _module(model, path.rpartition(".")[0])
            setattr(parent, path.rpartition(".")[2], layer)
    whole = {name: tensor for parts in saved.values() for name, tensor in parts.items()}
    put_saved_modules(model, whole, has_own_matrix=bool(settings.saved))
    return sum(map(len, fitting))


def _fit(
    model: GPTModel, ours: tuple[str, ...], parts: Mapping[str, Tensor], settings: PeftSettings, name: str
) -> dict[str, LinearWithLoRA]:
    """The corrected layers in place of `ours`, which share the first matrix."""
    linears = [_module(model, path) for path in ours]
    if any(isinstance(layer, LinearWithLoRA) for layer in linears):
        raise CheckpointError(
            f"{name} must not have a correction yet, found one; merge it or load the model anew."
        )
    n_in, heights = widths(linears[0])[0], [widths(layer)[1] for layer in linears]
    n_out, rank = sum(heights), settings.rank(name)
    shapes = {side: tuple(part.shape) for side, part in parts.items()}
    expected: dict[str, tuple[int, ...]] = {"A": (rank, n_in), "B": (n_out, rank)}
    if settings.use_dora:
        expected["magnitude_vector"] = (n_out,)
    if shapes != expected:
        also = f" and lora_magnitude_vector ({n_out},)" if settings.use_dora else ""
        raise CheckpointError(
            f"{settings.where.parent} must hold lora_A ({rank}, {n_in}) and lora_B ({n_out}, {rank}){also} for "
            f"{name}, as r and rank_pattern say, got {shapes}; take the model it was trained for."
        )
    scale = settings.scale(name)
    kind = LinearWithDoRA if settings.use_dora else LinearWithLoRA
    blocks = list(torch.split(parts["B"], heights))
    lengths = torch.split(parts.get("magnitude_vector", torch.zeros(n_out)), heights)
    corrected: dict[str, LinearWithLoRA] = {}
    for path, linear, block, own, length in zip(ours, linears, blocks, _own_ranks(blocks), lengths):
        if len(own) == 0 and kind is LinearWithLoRA:
            continue
        n_own = max(1, len(own))
        layer = kind(linear, n_own, scale * n_own, dropout=settings.dropout)
        with torch.no_grad():
            if len(own):
                layer.lora.A.copy_(parts["A"][own].T)
                layer.lora.B.copy_(block[:, own].T)
            if isinstance(layer, LinearWithDoRA):
                layer.magnitude.copy_(length)
        corrected[path] = layer.train(linear.training)
    return corrected


def _own_ranks(blocks: list[Tensor]) -> list[Tensor]:
    """Which of the joint ranks each layer needs: its own, when the blocks lie along a diagonal as we write them.

    Then what was written comes back as it was, and no layer computes with another's ranks. Otherwise, all need all.
    """
    rank = blocks[0].shape[1]
    used = [(block != 0).any(dim=0) for block in blocks]  # (R,) each
    needed = [one for one in used if bool(one.any())]
    is_diagonal = (
        len(blocks) > 1
        and len({int(one.sum()) for one in needed}) == 1
        and bool((torch.stack(needed).sum(dim=0) == 1).all())
    )
    return [one.nonzero()[:, 0] if is_diagonal else torch.arange(rank) for one in used]


def _config(
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
    table: NameTable,
    base: str | None,
    *,
    use_dora: bool,
    dropout: float,
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
        "lora_dropout": dropout,
        "bias": "none",
        "fan_in_fan_out": table is GPT2,
        "inference_mode": True,
        "use_rslora": False,
        "use_dora": use_dora,
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
        module = model.get_submodule(path)
    except AttributeError:
        return False
    return is_linear(module) or isinstance(module, LinearWithLoRA)
