"""Read Hugging Face model folders as our model, and write folders that transformers loads."""

import dataclasses
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scratchlm.checkpoints.huggingface_config import (
    ARCHITECTURES,
    config_from_huggingface,
    config_to_huggingface,
)
from scratchlm.checkpoints.names import GPT2, GPT2_LINEAR, LLAMA, NameTable, to_ours, to_theirs
from scratchlm.checkpoints.store import (
    MODEL_FOLDER_FILES,
    build_model,
    expected_shapes,
    own_weights,
    save_tensors,
)
from scratchlm.checkpoints.usage import TEMPLATE_FILE, USAGE_KEYS
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import check_replaceable, new_folder, read_json, write_json, write_text
from scratchlm.core.json_table import JSONTable
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import dense_model
from scratchlm.tokenizers.special_tokens import end_ids

WEIGHT_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def find_weights(folder: Path) -> Path:
    """Find the folder's weights: the first existing file among transformers' file names.

    Raises: CheckpointError when there are none.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has none of {', '.join(WEIGHT_FILES)}; fetch the folder again.")


def read_huggingface(
    folder: Path, weights: Mapping[str, Tensor], *, where: Path
) -> tuple[GPTModel, dict[str, Any]]:
    """Read model and task of a folder with transformers' `config.json`; weights become float32.

    where: the file of the weights, for messages.
    Raises: CheckpointError for a family or setting that is not supported, and for damaged files, listing every
        weight that is missing, unexpected or of another shape.
    """
    values = read_json(folder / "config.json", error=CheckpointError)
    config = config_from_huggingface(values, where=str(folder / "config.json"))
    model = model_from_huggingface(config, weights, where=where)
    return model, _task(values, model, where=str(folder / "config.json"))


def model_from_huggingface(config: GPTConfig, theirs: Mapping[str, Tensor], *, where: Path) -> GPTModel:
    """Build a GPT from weights with Hugging Face's names, in the layout of Conv1D or Linear.

    Raises: CheckpointError listing every weight that is missing, unexpected or of another shape.
    """
    shapes = expected_shapes(config, n_weights=len(theirs), where=str(where))
    has_no_qkv_bias = config.positions == "learned" and not config.qkv_bias
    if has_no_qkv_bias:  # GPT-2's files always have this bias; without one it is all zeros
        biased = dataclasses.replace(config, qkv_bias=True)
        shapes = expected_shapes(biased, n_weights=len(theirs), where=str(where))
    if "score.weight" in theirs:
        shapes["out_head.weight"] = (len(theirs["score.weight"]), config.emb_dim)
    elif "lm_head.weight" not in theirs and config.tie_embeddings:
        del shapes["out_head.weight"]
    table = _table(config, theirs)
    state = to_ours(table, _with_zero_biases(theirs, table, shapes), shapes, where=str(where))
    if "score.weight" not in theirs and config.tie_embeddings and "out_head.weight" in state:
        if not torch.equal(state["out_head.weight"], state["tok_emb.weight"]):
            raise CheckpointError(
                f"{where} has different matrices for the token embedding and the head, but its config ties them; set "
                "tie_word_embeddings to false in config.json."
            )
        del state["out_head.weight"]
    if has_no_qkv_bias:
        biases = [name for name in state if ".att.W_" in name and name.endswith(".bias")]
        if any(state[name].any() for name in biases):
            config = dataclasses.replace(config, qkv_bias=True)
        else:
            state = {name: tensor for name, tensor in state.items() if name not in biases}
    return build_model(config, state, where=where)


def export_huggingface(
    folder: str | Path,
    model: GPTModel,
    tokenizer: Tokenizer,
    *,
    task: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
) -> Path:
    """Write, atomically, a folder that transformers' Auto classes load with equal logits; an older one is replaced.

    A classifier's bias moves into the shift of the last LayerNorm, because transformers' classifiers have none.
    chat_template: Jinja template with which transformers turns a conversation into a prompt; default: the task's.
    Raises: ConfigError for a model that fits none of transformers' families; CheckpointError when the disk is
        full, and for an existing folder that holds anything but a model.
    """
    target = Path(folder)
    check_replaceable(target, MODEL_FOLDER_FILES, kind="model folder", error=CheckpointError)
    task, model = dict(task or {}), dense_model(model)
    values = config_to_huggingface(model.config)
    state = {name: tensor.detach().cpu() for name, tensor in own_weights(model).items()}
    is_classifier = task.get("kind") == "classification"
    values |= _architecture(values["model_type"], tokenizer, task)
    if is_classifier:
        move_head_bias(state)
        values["tie_word_embeddings"] = False
    if model.config.positions == "learned" and not model.config.qkv_bias:
        state |= {
            f"trf_blocks.{i}.att.{part}.bias": torch.zeros(model.config.emb_dim)
            for i in range(model.config.n_layers)
            for part in ("W_query", "W_key", "W_value")
        }
    table = GPT2 if values["model_type"] == "gpt2" else LLAMA
    theirs = to_theirs(table, state, model.config.n_layers)
    if is_classifier:
        theirs["score.weight"] = theirs.pop("lm_head.weight")
    with new_folder(target, error=CheckpointError) as partial:
        write_json(partial / "config.json", values, error=CheckpointError)
        save_tensors(partial / "model.safetensors", theirs, metadata={"format": "pt"})
        tokenizer.save(partial / "tokenizer.json")
        write_json(partial / "tokenizer_config.json", _tokenizer_config(model.config, tokenizer, task))
        write_json(partial / "generation_config.json", _token_ids(tokenizer, task), error=CheckpointError)
        if chat_template := chat_template or task.get("chat_template"):
            write_text(partial / TEMPLATE_FILE, chat_template, error=CheckpointError)
        if task := {key: value for key, value in task.items() if key not in USAGE_KEYS}:
            write_json(partial / "task.json", task, error=CheckpointError)
    return target


def _with_zero_biases(
    theirs: Mapping[str, Tensor], table: NameTable, shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, Tensor]:
    """Add zeros for the biases that nanoGPT's `bias=False` removes, LayerNorm's included."""
    if table is LLAMA or any(name.endswith(("ln_f.bias", "c_proj.bias")) for name in theirs):
        return theirs
    zeros = {
        row.theirs: torch.zeros(sum(shapes[name][0] for name in row.ours))
        for row in table.rows(sum(name.endswith("norm1.shift") for name in shapes))
        if row.theirs.endswith(".bias")
    }
    prefix = next((p for p in table.prefixes if f"{p}wte.weight" in theirs), "")
    return ChainMap(dict(theirs), {prefix + name: zero for name, zero in zeros.items()})


def _table(config: GPTConfig, theirs: Mapping[str, Tensor]) -> NameTable:
    if config.positions == "rotary":
        return LLAMA
    first = next((name for name in theirs if name.endswith("h.0.attn.c_attn.weight")), None)
    is_linear = first is not None and tuple(theirs[first].shape) == (3 * config.emb_dim, config.emb_dim)
    return GPT2_LINEAR if is_linear else GPT2


def _task(values: Mapping[str, Any], model: GPTModel, *, where: str) -> dict[str, Any]:
    """The task of a classifier, from its config; {} for a language model."""
    table = JSONTable(values, where=where, error=CheckpointError)
    if not any("SequenceClassification" in name for name in table.texts("architectures")):
        return {}
    n_classes = model.out_head.out_features
    names = table.get("id2label", dict, {})
    classes = [str(names.get(str(i), f"LABEL_{i}")) for i in range(n_classes)]
    return {"kind": "classification", "classes": classes, "max_length": model.config.context_length}


def _architecture(kind: str, tokenizer: Tokenizer, task: Mapping[str, Any]) -> dict[str, Any]:
    name = ARCHITECTURES[kind]
    values = {**_token_ids(tokenizer, task), "dtype": "float32", "torch_dtype": "float32"}
    if task.get("kind") != "classification":
        head = "LMHeadModel" if kind == "gpt2" else "ForCausalLM"
        return {**values, "architectures": [f"{name}{head}"]}
    classes = list(task["classes"])
    return {
        **values,
        "architectures": [f"{name}ForSequenceClassification"],
        "id2label": {str(i): label for i, label in enumerate(classes)},
        "label2id": {label: i for i, label in enumerate(classes)},
        "problem_type": "single_label_classification",
    }


def move_head_bias(state: dict[str, Tensor]) -> None:
    """Move the head's bias into the last norm's shift: head(x) + bias = head(x + d) for a d that head maps to bias."""
    bias = state.pop("out_head.bias", None)
    if bias is None or not bias.any():
        return
    if "final_norm.shift" not in state:
        raise ConfigError(
            "transformers' Llama classifiers have no bias in the head, but this model has one; keep it as a model "
            "folder."
        )
    weight = state["out_head.weight"].cpu().double()  # Apple's GPU has no float64
    # (E,), exact if the classes' rows are independent
    moved = torch.linalg.pinv(weight) @ bias.cpu().double()
    state["final_norm.shift"] = (state["final_norm.shift"].cpu().double() + moved).to(bias.dtype)


def _token_ids(tokenizer: Tokenizer, task: Mapping[str, Any]) -> dict[str, int | list[int]]:
    ends = end_ids(tokenizer, task)
    if not ends:
        return {}
    known, named = tokenizer.special_tokens, task.get("chat_tokens", {})
    start = getattr(tokenizer, "begin_of_text_id", None)
    return {
        "bos_token_id": known.get(named.get("bos_token"), ends[0] if start is None else start),
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends),
        "pad_token_id": known.get(named.get("pad_token"), ends[0]),
    }


def _tokenizer_config(config: GPTConfig, tokenizer: Tokenizer, task: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_length,
        "clean_up_tokenization_spaces": False,
    }
    if named := task.get("chat_tokens"):
        return {**values, **named}
    spelling = {id_: token for token, id_ in tokenizer.special_tokens.items()}
    for name, ids in _token_ids(tokenizer, task).items():
        id_ = ids[0] if isinstance(ids, list) else ids
        if id_ in spelling:
            values[name.removesuffix("_id")] = spelling[id_]
    return values
