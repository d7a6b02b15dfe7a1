"""JSON files with a value of the wrong type anywhere are read, or raise one of our errors."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import scratchlm
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import load_tensors, load_training_state, save_model
from scratchlm.checkpoints.tensorflow.openai import config_from_hparams
from scratchlm.core.errors import ScratchLMError
from scratchlm.data.shards import open_tokens, prepare_tokens
from scratchlm.finetuning.heads import replace_head
from scratchlm.finetuning.lora import replace_linear_with_lora
from scratchlm.finetuning.peft import export_peft, import_peft
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.training.progress import Progress
from tests.thorough import THOROUGH
from tests.tiny import LLAMA_LAYERS

WRONG = (None, 1, -1, 1.5, "x", "", [], {}, [1], [None], {"a": 1}, True, 10**30, 1e300, "9" * 50)
SIZES = {"vocab_size": 264, "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "drop_rate": 0.0}
LLAMA = {**LLAMA_LAYERS, "ff_dim": 12, "n_kv_heads": 1}


def changed(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by every wrong one, or removed."""
    yield from WRONG
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: item for name, item in value.items() if name != key}
            yield from ({**value, key: other} for other in changed(inner))
    elif isinstance(value, list) and value and len(value) < 20:
        yield from ([other, *value[1:]] for other in changed(value[0]))


def tokenizer():
    return train_bpe(["the cat sat on the mat " * 20], 264, special_tokens=["<|endoftext|>"])


def a_model(*, n_classes: int = 0, **changes: Any) -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel(GPTConfig(**{**SIZES, **changes})).eval()
    if n_classes:
        replace_head(model, n_classes)
    return model


TASK = {"kind": "classification", "classes": ["ham", "spam"], "max_length": 8, "position": "last-real"}


def use(path: Path) -> None:
    """Open a model and use it, so that all its settings are read."""
    lm = scratchlm.load(path)
    if lm.task.get("kind") == "classification":
        lm.classify(["the cat"])
    else:
        lm.generate("the", max_new_tokens=2)


def their_model(
    folder: Path, name: str, *, n_classes: int = 0, **changes: Any
) -> tuple[Path, Callable[[], object]]:
    task = TASK if n_classes else None
    model = a_model(n_classes=n_classes, **changes)
    theirs = export_huggingface(folder / "hf", model, tokenizer(), task=task)
    (theirs / "task.json").unlink(missing_ok=True)
    config = json.loads((theirs / "config.json").read_text())
    config.pop("scratchlm_config")
    (theirs / "config.json").write_text(json.dumps(config))
    return theirs / name, lambda: use(theirs)


def our_model(folder: Path, name: str, task: dict[str, Any]) -> tuple[Path, Callable[[], object]]:
    ours = save_model(folder / "m", a_model(n_classes=len(task.get("classes", ()))), tokenizer(), task=task)

    def read() -> None:
        if name != "manifest.json":
            manifest = json.loads((ours / "manifest.json").read_text())
            data = (ours / name).read_bytes()
            manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            (ours / "manifest.json").write_text(json.dumps(manifest))
        use(ours)

    return ours / name, read


def a_config(folder: Path) -> tuple[Path, Callable[[], object]]:
    return their_model(folder, "config.json")


def a_llamas_config(folder: Path) -> tuple[Path, Callable[[], object]]:
    path, read = their_model(folder, "config.json", **LLAMA)
    config = json.loads(path.read_text())
    scaling = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 4, "rope_theta": 10000.0}
    path.write_text(json.dumps({**config, "rope_parameters": scaling, "layer_types": ["full_attention"]}))
    return path, read


def a_classifiers_config(folder: Path) -> tuple[Path, Callable[[], object]]:
    return their_model(folder, "config.json", n_classes=2)


def a_generation_config(folder: Path) -> tuple[Path, Callable[[], object]]:
    return their_model(folder, "generation_config.json")


def a_tokenizer_config(folder: Path) -> tuple[Path, Callable[[], object]]:
    return their_model(folder, "tokenizer_config.json")


def an_index(folder: Path) -> tuple[Path, Callable[[], object]]:
    path, read = their_model(folder, "model.safetensors")
    index = path.with_name("model.safetensors.index.json")
    weight_map = dict.fromkeys(list(load_tensors(path)), "part.safetensors")
    index.write_text(json.dumps({"metadata": {"total_size": 5}, "weight_map": weight_map}))
    path.rename(path.with_name("part.safetensors"))
    return index, read


def settings_beside_weights(folder: Path) -> tuple[Path, Callable[[], object]]:
    torch.save(a_model().state_dict(), folder / "a.pth")
    tokenizer().save(folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps({**SIZES, "qkv_bias": False}))
    return folder / "config.json", lambda: use(folder / "a.pth")


def our_config(folder: Path) -> tuple[Path, Callable[[], object]]:
    return our_model(folder, "config.json", {})


def a_classifiers_task(folder: Path) -> tuple[Path, Callable[[], object]]:
    return our_model(folder, "task.json", TASK)


def an_assistants_task(folder: Path) -> tuple[Path, Callable[[], object]]:
    return our_model(folder, "task.json", {"kind": "instruction", "template": "alpaca", "system": "Be kind."})


def a_manifest(folder: Path) -> tuple[Path, Callable[[], object]]:
    return our_model(folder, "manifest.json", {})


def a_training_state(folder: Path) -> tuple[Path, Callable[[], object]]:
    save_file({"a": torch.ones(2)}, folder / "training_state.safetensors")
    (folder / "training_state.json").write_text(json.dumps({"step": 3, "trackers": {"loss": 1.5}}))
    return folder / "training_state.json", lambda: load_training_state(folder)


def an_adapters_settings(
    folder: Path, name: str = "adapter_config.json"
) -> tuple[Path, Callable[[], object]]:
    model = a_model(**LLAMA)
    base = export_huggingface(folder / "base", model, tokenizer())
    replace_linear_with_lora(model.trf_blocks, 2, 2)
    adapter = export_peft(folder / "adapter", model)
    config = json.loads((adapter / "adapter_config.json").read_text())
    more = {
        "layers_to_transform": [0],
        "layers_pattern": "layers",
        "exclude_modules": ["x"],
        "modules_to_save": [],
    }
    patterns = {
        "alpha_pattern": {"q_proj": 3},
        "rank_pattern": {"q_proj": 2},
        "trainable_token_indices": None,
    }
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **more, **patterns}))
    return adapter / name, lambda: import_peft(open_model(base).model, adapter)


def an_adapters_base(folder: Path) -> tuple[Path, Callable[[], object]]:
    return an_adapters_settings(folder, "base.json")


def hparams(folder: Path) -> tuple[Path, Callable[[], object]]:
    values = {"n_vocab": 264, "n_ctx": 8, "n_embd": 8, "n_head": 2, "n_layer": 1}
    (folder / "hparams.json").write_text(json.dumps(values))
    return folder / "hparams.json", lambda: config_from_hparams(folder / "hparams.json")


def a_shard_header(folder: Path) -> tuple[Path, Callable[[], object]]:
    (folder / "a.txt").write_text("the cat sat on the mat. " * 50)
    tokens = prepare_tokens(folder / "a.txt", tokenizer(), cache_folder=folder / "cache")
    return tokens.folder / "header.json", lambda: open_tokens(tokens.folder, tokenizer())


FILES = (
    a_config,
    a_llamas_config,
    a_classifiers_config,
    a_generation_config,
    a_tokenizer_config,
    an_index,
    settings_beside_weights,
    our_config,
    a_classifiers_task,
    an_assistants_task,
    a_manifest,
    a_training_state,
    an_adapters_settings,
    an_adapters_base,
    hparams,
    a_shard_header,
)


@pytest.mark.parametrize("every", [17, pytest.param(1 if THOROUGH else 5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_a_value_of_the_wrong_type_is_never_a_foreign_error(tmp_path, make, every):
    path, read = make(tmp_path)
    good = json.loads(path.read_text(encoding="utf-8"))
    read()
    failures: dict[str, str] = {}
    for value in itertools.islice(changed(good), None, None, every):
        path.write_text(json.dumps(value), encoding="utf-8")
        try:
            read()
        except ScratchLMError:
            continue
        except Exception as error:  # noqa: BLE001  (a foreign error is what is looked for)
            is_table = isinstance(value, dict)
            different = {k: v for k, v in value.items() if good.get(k) != v} if is_table else value
            failures.setdefault(f"{type(error).__name__}: {error}"[:160], f"{different!r}"[:160])
    assert failures == {}


@pytest.mark.parametrize("value", [value for value in WRONG if value not in (1, True, -1)], ids=repr)
@pytest.mark.parametrize("name", ["step", "batches", "tokens", "evaluated_step", "elapsed_s", "unknown"])
def test_a_saved_progress_of_the_wrong_type_is_our_error_or_a_number(name, value):
    try:
        progress = Progress.from_saved({"step": 3, name: value})
    except ScratchLMError:
        return
    assert type(getattr(progress, name)) is type(getattr(Progress(), name))
