"""Write LoRA adapters in the format of Hugging Face's `peft`, and read them.

An adapter folder contains `adapter_config.json` and `adapter_model.safetensors`, with the module names of
transformers. Its GPT-2 has one matrix where ours has three (queries, keys, values), so our three low-rank
updates become one of three times the rank, whose output matrix is block-diagonal. Our folders also contain
`base.json`, a hash of the base weights that the adapter belongs to. For classifiers see `peft_head.py`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.fingerprint import weights_fingerprint
from scratchlm.checkpoints.names import GPT2, LLAMA, NameTable, first_names
from scratchlm.checkpoints.store import ADAPTER_CONFIG, own_weights, save_tensors
from scratchlm.checkpoints.weight_files import open_weights
from scratchlm.core.atomic_replace import standing
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import new_folder, read_json, write_json
from scratchlm.finetuning.dora import LinearWithDoRA, row_lengths
from scratchlm.finetuning.lora import LinearWithLoRA, is_linear, linear_widths
from scratchlm.finetuning.peft_config import PeftConfig
from scratchlm.finetuning.peft_head import (
    PREFIX,
    is_classifier,
    load_saved_modules,
    match_saved_modules,
    saved_modules,
)
from scratchlm.model.gpt import GPTModel

ADAPTER_FOLDER = "adapter"  # of a run folder
BASE_FILE = "base.json"  # other programs ignore it
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_FILES = (ADAPTER_CONFIG, *_WEIGHTS, BASE_FILE)  # all files that an adapter folder may contain
_BASE_KEY = "weights_sha256"
_PART = re.compile(r"(.+)\.lora_(A|B|magnitude_vector)(?:\.default)?(?:\.weight)?")


# --- export


def export_peft(folder: str | Path, model: GPTModel, *, base: str | None = None) -> Path:
    """Write the model's low-rank updates alone, atomically, as an adapter folder.

    A classifier, whose head is not as wide as the vocabulary, becomes an adapter of the type SEQ_CLS with its head.
    base: name or folder of the base model, for `peft.AutoPeftModel`.
    Raises: ConfigError for a model without LoRA layers; CheckpointError when the layers of a joint matrix differ in
        kind, rank or scale, which the format cannot store.
    """
    table = _table(model)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    adapted: list[LinearWithLoRA] = []
    for name, ours in _modules(table, model):
        layers = [model.get_submodule(path) for path in ours]
        own = [layer for layer in layers if isinstance(layer, LinearWithLoRA)]
        if not own:
            continue
        kinds = {(type(layer), layer.lora.rank, layer.lora.scaling) for layer in own}
        if len(kinds) != 1:
            raise CheckpointError(
                f"{', '.join(ours)} are one matrix in peft's format, but their {len(kinds)} LoRA layers differ in "
                "rank, scale or kind; give all of them the same."
            )
        _, rank, scaling = kinds.pop()
        tensors |= {f"{PREFIX}{name}.lora_{part}": tensor for part, tensor in _joined(layers, own).items()}
        ranks[name] = rank * len(own)
        alphas[name] = scaling * ranks[name]
        adapted += own
    if not tensors:
        raise ConfigError("the model has no LoRA layers to export; call replace_linear_with_lora first.")
    if len({isinstance(layer, LinearWithDoRA) for layer in adapted}) != 1:
        raise CheckpointError(
            "the model has LoRA and DoRA layers, but an adapter holds one kind; write two adapters."
        )
    first = next(iter(ranks))
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": ranks[first],
        "lora_alpha": alphas[first],
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != ranks[first]},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != alphas[first]},
        "target_modules": list(ranks),
        "lora_dropout": max(layer.lora.dropout for layer in adapted),
        "bias": "none",
        "fan_in_fan_out": table is GPT2,
        "inference_mode": True,
        "use_rslora": False,
        "use_dora": isinstance(adapted[0], LinearWithDoRA),
    }
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
        write_base_fingerprint(partial, model, has_head=not has_classes)
    return target


def _joined(layers: Sequence[nn.Module], adapted: Sequence[LinearWithLoRA]) -> dict[str, Tensor]:
    """The updates of layers that are one matrix in transformers; zeros for a layer without an update."""
    first = adapted[0].lora.B
    blocks = [
        layer.lora.B.T if isinstance(layer, LinearWithLoRA) else first.new_zeros(linear_widths(layer)[1], 0)
        for layer in layers
    ]
    parts = {
        "A.weight": torch.cat([layer.lora.A.T for layer in adapted]),
        "B.weight": torch.block_diag(*blocks),  # type: ignore[no-untyped-call]
    }
    if isinstance(adapted[0], LinearWithDoRA):
        lengths = [
            layer.magnitude if isinstance(layer, LinearWithDoRA) else row_lengths(layer) for layer in layers
        ]
        parts["magnitude_vector"] = torch.cat(lengths)
    return parts


# --- import


def import_peft(model: GPTModel, folder: str | Path) -> int:
    """Add the low-rank updates of an adapter folder to the model, in place; returns the number of adapted layers.

    An adapter of the type SEQ_CLS also replaces the model's head by its own, with a score per class.
    Raises: CheckpointError for an adapter other than LoRA or DoRA, for one of another model or other base weights,
        and for damaged files, naming what does not match; the model is unchanged then.
    """
    folder = standing(Path(folder))
    config = PeftConfig(folder)
    weights = open_weights(_find_weights(folder))
    table = _table(model)
    modules = dict(_modules(table, model))
    config.check_patterns(modules)
    saved = match_saved_modules(model, weights, config, table)
    found: dict[str, dict[str, Tensor]] = {}
    for key in weights:
        if key in saved:
            continue
        match = _PART.fullmatch(key.removeprefix(PREFIX))
        if match is None or match[1] not in modules:
            raise CheckpointError(
                f"{folder} holds {key:.200}, which does not belong to a linear layer of this model; use the "
                "model that the adapter was trained for, or merge the adapter with peft and open the merged model."
            )
        found.setdefault(match[1], {})[match[2]] = weights[key].float()
    targets = config.targets(
        modules, usual=("c_attn",) if table is GPT2 else ("q_proj", "v_proj"), head="lm_head"
    )
    if unmatched := sorted(targets ^ found.keys()):
        raise CheckpointError(
            f"the weights in {folder} do not match its target_modules: {first_names(unmatched)} is in one of them "
            "only; restore it from another copy of the adapter."
        )
    adapted: dict[str, LinearWithLoRA] = {}
    for name, parts in found.items():
        adapted |= _adapted_layers(model, modules[name], parts, config, name)
    check_base_fingerprint(folder, model, has_head=not config.is_classifier)
    for path, layer in adapted.items():
        model.set_submodule(path, layer)
    whole = {name: tensor for parts in saved.values() for name, tensor in parts.items()}
    load_saved_modules(model, whole, has_own_matrix=bool(config.saved))
    return len(adapted)


def _adapted_layers(
    model: GPTModel, ours: tuple[str, ...], parts: Mapping[str, Tensor], config: PeftConfig, name: str
) -> dict[str, LinearWithLoRA]:
    """The layers that replace `ours`, which are one matrix in transformers, by our names."""
    linears = [model.get_submodule(path) for path in ours]
    if any(isinstance(layer, LinearWithLoRA) for layer in linears):
        raise CheckpointError(f"{name} has a LoRA layer already; merge it or load the model again.")
    n_in, heights = linear_widths(linears[0])[0], [linear_widths(layer)[1] for layer in linears]
    n_out, rank = sum(heights), config.rank(name)
    shapes = {side: tuple(part.shape) for side, part in parts.items()}
    expected: dict[str, tuple[int, ...]] = {"A": (rank, n_in), "B": (n_out, rank)}
    if config.use_dora:
        expected["magnitude_vector"] = (n_out,)
    if shapes != expected:
        also = f" and lora_magnitude_vector ({n_out},)" if config.use_dora else ""
        raise CheckpointError(
            f"{config.path.parent} must hold lora_A ({rank}, {n_in}) and lora_B ({n_out}, {rank}){also} for {name} "
            f"according to r and rank_pattern, got {shapes}; use the model it was trained for."
        )
    scale = config.scale(name)
    layer_type = LinearWithDoRA if config.use_dora else LinearWithLoRA
    blocks = torch.split(parts["B"], heights)
    lengths = torch.split(parts.get("magnitude_vector", torch.zeros(n_out)), heights)
    adapted: dict[str, LinearWithLoRA] = {}
    for path, linear, block, columns, length in zip(ours, linears, blocks, _own_columns(blocks), lengths):
        if len(columns) == 0 and not config.use_dora:
            continue
        n_own = max(1, len(columns))
        layer = layer_type(linear, n_own, scale * n_own, dropout=config.dropout)
        with torch.no_grad():
            if len(columns):
                layer.lora.A.copy_(parts["A"][columns].T)
                layer.lora.B.copy_(block[:, columns].T)
            if isinstance(layer, LinearWithDoRA):
                layer.magnitude.copy_(length)
        adapted[path] = layer.train(linear.training)
    return adapted


def _own_columns(blocks: Sequence[Tensor]) -> list[Tensor]:
    """The columns of the joint B that each layer needs: its own if B is block-diagonal as in our export, else all.

    So an exported adapter is read back unchanged, and no layer computes with the ranks of another.
    """
    rank = blocks[0].shape[1]
    used = [(block != 0).any(dim=0) for block in blocks]  # (R,) each
    non_zero = [one for one in used if bool(one.any())]
    is_diagonal = (
        len(blocks) > 1
        and len({int(one.sum()) for one in non_zero}) == 1
        and bool((torch.stack(non_zero).sum(dim=0) == 1).all())
    )
    return [one.nonzero()[:, 0] if is_diagonal else torch.arange(rank) for one in used]


def _find_weights(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} holds no adapter weights ({' or '.join(_WEIGHTS)}); restore it from another copy of the adapter."
    )


# --- names of modules


def _table(model: GPTModel) -> NameTable:
    return LLAMA if model.config.positions == "rotary" else GPT2


def _modules(table: NameTable, model: GPTModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    """transformers' name of each linear module, and our names of the layers in it."""
    linear = {
        name
        for name, module in model.named_modules()
        if is_linear(module) or isinstance(module, LinearWithLoRA)
    }
    for row in table.rows(model.config.n_layers):
        is_matrix = row.theirs.endswith(".weight") and row.theirs != "score.weight"
        ours = tuple(name.removesuffix(".weight") for name in row.ours)
        is_class_head = ours == ("out_head",) and is_classifier(model)  # saved as a whole, as the score
        if is_matrix and not is_class_head and linear.issuperset(ours):
            prefix = "" if row.theirs in table.unprefixed else table.prefixes[0]
            yield (prefix + row.theirs).removesuffix(".weight"), ours


# --- the base that an adapter belongs to


def base_fingerprint(model: nn.Module, *, has_head: bool = True) -> str:
    """Hex sha256 of a model's weights without its adapter, independent of the file that they were loaded from.

    With has_head False the output head, which a classifier replaces, is left out.
    """
    prefixes = [f"{name}." for name, m in model.named_modules() if isinstance(m, LinearWithLoRA)]
    weights: dict[str, Tensor] = {}
    for name, tensor in own_weights(model).items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None:
            weights[name] = tensor
        elif name.startswith(f"{prefix}linear."):
            weights[prefix + name.removeprefix(f"{prefix}linear.")] = tensor
    embedding, head = weights.get("tok_emb.weight"), weights.get("out_head.weight")
    if embedding is not None and head is not None and torch.equal(embedding, head):
        del weights["out_head.weight"]  # tied, as one tensor or as two equal ones
    return weights_fingerprint(
        {name: tensor for name, tensor in weights.items() if has_head or not name.startswith("out_head.")}
    )


def write_base_fingerprint(folder: Path, model: nn.Module, *, has_head: bool = True) -> None:
    """Record in an adapter folder the base that it was trained on."""
    noted = {_BASE_KEY: base_fingerprint(model, has_head=has_head)}
    write_json(folder / BASE_FILE, noted, error=CheckpointError)


def check_base_fingerprint(folder: Path, model: nn.Module, *, has_head: bool = True) -> None:
    """Reject an adapter that was trained on other weights; one without a record, such as peft's, is accepted.

    Raises: CheckpointError for another base, or a damaged record.
    """
    if not (folder / BASE_FILE).exists():
        return
    noted = read_json(folder / BASE_FILE, error=CheckpointError)
    expected = noted.get(_BASE_KEY) if isinstance(noted, dict) else None
    if not isinstance(expected, str):
        raise CheckpointError(
            f"{folder / BASE_FILE} has no {_BASE_KEY}; restore it from another copy of the adapter."
        )
    found = base_fingerprint(model, has_head=has_head)
    if found != expected:
        raise CheckpointError(
            f"the adapter in {folder} belongs to a base with weights {expected[:12]}..., but this model has weights "
            f"{found[:12]}...; load the base that the adapter was trained on, and quantize it first if it was trained "
            "with base_bits (scratchlm quantize --bits 8, or --bits 4 --kind nf4)."
        )
