"""Convert a model to another format: write it beside the target, read it back, compare logits, then rename it."""

import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from scratchlm.checkpoints.book import book_state_dict
from scratchlm.checkpoints.comparison import (
    HUGGING_FACE,
    OutsideLogits,
    compare,
    n_classes,
    outside_logits,
    prompts,
)
from scratchlm.checkpoints.gguf.modelfile import PromptFrame, chat_template, modelfile
from scratchlm.checkpoints.gguf.writer import GGUFType, export_gguf
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.onnx import ONNXModel, export_onnx
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import MANIFEST, MODEL_FOLDER_FILES, LoadedModel, save_model
from scratchlm.checkpoints.torch.torch_file import write_torch_file
from scratchlm.checkpoints.weight_files import SUFFIXES
from scratchlm.core.atomic_replace import remove_partials, standing
from scratchlm.core.config import to_dict
from scratchlm.core.errors import CheckpointError, ConfigError, writing_advice
from scratchlm.core.files import as_json, check_replaceable, new_files, new_folder, write_text
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import dense_model
from scratchlm.tokenizers.special_tokens import end_ids

ExportFormatName = Literal["native", "hf", "gguf", "book", "onnx"]
DType = GGUFType  # all that any format supports
MODEL_FOLDER_MARKS = ("manifest.json", "config.json")  # files that a folder must contain to be replaced
_TORCH_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The result of a conversion."""

    out: Path
    max_logit_difference: float | None  # between the logits of source and written model; None = not compared
    compared_with: str | None = None  # programs whose logits were compared, or why only ours
    others: tuple[Path, ...] = ()  # files written beside it


class _ExportFormat(NamedTuple):
    """The functions that write a format and read the result back."""

    write: Callable[[Path, LoadedModel, DType | None, PromptFrame], None]
    is_folder: bool = False
    suffix: str = ""  # suffixes of the target's name; "" = any
    beside: Callable[[LoadedModel, Path, PromptFrame], Mapping[Path, str]] = lambda *_: {}  # text files
    read: Callable[[Path, LoadedModel], LoadedModel] = lambda path, _source: open_model(path)


def convert(
    source: LoadedModel,
    target: str | Path,
    *,
    to: ExportFormatName,
    dtype: DType | None = None,
    frame: PromptFrame | None = None,
    verify: bool = True,
    overwrite: bool = False,
    outside: Callable[[Tensor], OutsideLogits] | None = None,
) -> Conversion:
    """Write a model in another format, read it back, and compare its logits with those of the source.

    Where transformers is installed, its logits of a Hugging Face folder, source or result, are compared too.
    `outside` computes those of another kind of source, such as peft's of an adapter.
    dtype: number type to store; by default the source's, in GGUF f32. `frame` goes into the chat template and GGUF's
        Modelfile.
    Raises: ConfigError when the format cannot hold that model or dtype, or the target's name does not fit;
        CheckpointError when the target exists, cannot be written, or reads back as another model.
    """
    if to not in EXPORT_FORMATS:
        raise ConfigError(f"--to must be one of {', '.join(EXPORT_FORMATS)}, got {to!r}; choose one.")
    export_format, target = EXPORT_FORMATS[to], Path(target)
    if to != "gguf" and dtype is not None and dtype not in _TORCH_DTYPES:
        raise ConfigError(
            f"--to {to} supports --dtype {', '.join(_TORCH_DTYPES)}, got {dtype}; choose one, or use --to gguf."
        )
    if target.suffix != export_format.suffix and export_format.suffix:
        raise ConfigError(
            f"the target of --to {to} must end in {export_format.suffix}, got {target}; rename it."
        )
    frame = frame or PromptFrame()
    remove_partials(target.parent, of=target.name)  # left by a killed conversion
    check_target(source, standing(target), is_folder=export_format.is_folder, overwrite=overwrite)
    beside = export_format.beside(source, target, frame)
    for other, text in beside.items():
        if not (other.is_file() and other.read_bytes() == text.encode("utf-8")):
            check_target(source, other, is_folder=False, overwrite=overwrite)
            if to == "book":
                _check_readers(other, target)
    if to == "book" and not source.task and target.with_name("task.json").exists():
        raise CheckpointError(
            f"{target.with_name('task.json')} belongs to another model and would be read with {target.name}; choose "
            "another folder."
        )
    difference, compared_with = None, None
    theirs: list[OutsideLogits] = []
    if outside is None and source.manifest.get("format") == HUGGING_FACE:
        outside = functools.partial(outside_logits, source.folder, n_classes=n_classes(source.model))
    ids = prompts(source.config)
    if verify and outside is not None:
        theirs.append(outside(ids))
    with (new_folder if export_format.is_folder else new_files)(target, error=CheckpointError) as partial:
        place = partial if export_format.is_folder else partial / target.name
        export_format.write(place, source, dtype, frame)
        for other, text in beside.items():
            write_text(partial / other.name, text, error=CheckpointError)
        if verify:
            if to == "hf":
                theirs.append(outside_logits(place, ids, n_classes=n_classes(source.model)))
            written = export_format.read(place, source)
            model = written.model
            difference, compared_with = compare(source.model, model, theirs, where=target, dtype=dtype)
            _check_tokenizer(source, written, where=target)
    return Conversion(
        out=target, max_logit_difference=difference, compared_with=compared_with, others=tuple(beside)
    )


def _check_tokenizer(source: LoadedModel, written: LoadedModel, *, where: Path) -> None:
    fingerprints = [getattr(loaded.tokenizer, "fingerprint", None) for loaded in (source, written)]
    if fingerprints[0] != fingerprints[1]:
        raise CheckpointError(
            f"{where} reads back with another tokenizer than its source's; nothing was written."
        )


def check_target(source: LoadedModel, target: Path, *, is_folder: bool, overwrite: bool) -> None:
    """Check that a conversion may write its target.

    Raises: ConfigError for the source or a part of it; CheckpointError for a target that may not be replaced.
    """
    if target.name in ("", ".."):
        raise ConfigError(f"the target must have a name of its own, got {target}; choose a name.")
    here, there = source.folder.resolve(), target.resolve()
    files = [Path(file).resolve() for file in source.manifest.get("weights", ())]
    if there in (here, *here.parents, *files):
        raise ConfigError(f"the target {target} is the source or contains it; choose another name.")
    is_one_file = source.manifest.get("format") in ("GGUF", "weights file")  # its folder may hold other files
    if is_folder and not is_one_file and here in there.parents:
        raise ConfigError(
            f"the target {target} lies inside the source folder, which may be replaced or deleted as a whole; choose a "
            "path outside it."
        )
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise CheckpointError(
            f"{target} already exists as {'a folder' if target.is_dir() else 'a file'}; choose another name, or "
            "replace it with --overwrite."
        )
    if is_folder:
        check_replaceable(
            target, MODEL_FOLDER_FILES, kind="model folder", marks=MODEL_FOLDER_MARKS, error=CheckpointError
        )
    elif target.is_dir():
        raise CheckpointError(f"{target} is a folder, which a file cannot replace; choose another name.")


def _check_readers(settings: Path, target: Path) -> None:
    """Refuse to write settings beside other weights, since they would be read with those weights."""
    files = settings.parent.iterdir() if settings.parent.is_dir() else ()
    readers = [file.name for file in files if file.suffix in SUFFIXES or file.name == MANIFEST]
    others = sorted(name for name in readers if name != target.name)
    if others:
        raise CheckpointError(
            f"{settings} would also be read with {', '.join(others[:3])!s:.120} beside it, but belongs to "
            f"{target.name}; choose another folder."
        )


def _modelfile_beside(source: LoadedModel, target: Path, frame: PromptFrame) -> Mapping[Path, str]:
    stops = [source.tokenizer.decode([end]) for end in end_ids(source.tokenizer, source.task)]
    own_template = "chat_template" in source.task and frame == PromptFrame()
    context_length, frame_or_none = source.config.context_length, None if own_template else frame
    text = modelfile(target.name, frame=frame_or_none, context_length=context_length, stops=stops)
    place = target.with_name("Modelfile")
    written = place.read_text(encoding="utf-8", errors="replace") if place.is_file() else text
    is_of_another = written.partition("\n")[0] != text.partition("\n")[0]
    return {place.with_name(f"Modelfile.{target.stem}") if is_of_another else place: text}


def _settings_beside(source: LoadedModel, target: Path, _frame: PromptFrame) -> Mapping[Path, str]:
    """The files that a reader of a weight file looks for beside it: config, tokenizer and task."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            source.tokenizer.save(Path(folder) / "tokenizer.json")
            tokenizer = (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
    except OSError as cause:
        raise CheckpointError(
            f"the tokenizer could not be written: {cause.strerror}; {writing_advice(cause)}."
        ) from cause
    texts = {"config.json": as_json(to_dict(source.config)), "tokenizer.json": tokenizer}
    if source.task:
        texts["task.json"] = as_json(dict(source.task))
    return {target.with_name(name): text for name, text in texts.items()}


def _stored_as(model: GPTModel, dtype: DType | None) -> GPTModel:
    wanted = None if dtype is None else _TORCH_DTYPES[dtype]
    model = model if wanted is None else dense_model(model)
    if wanted is None or all(parameter.dtype == wanted for parameter in model.parameters()):
        return model
    stored = copy.deepcopy(model).to(wanted)
    for name, parameter in stored.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ConfigError(f"{name} has weights beyond the range of {dtype}; choose another --dtype.")
    return stored


def _write_native(path: Path, source: LoadedModel, dtype: DType | None, _frame: PromptFrame) -> None:
    is_ours = "format_version" in source.manifest
    own = ("format", "format_version", "versions", "files")
    facts = {key: value for key, value in source.manifest.items() if is_ours and key not in own}
    save_model(path, _stored_as(source.model, dtype), source.tokenizer, task=source.task, facts=facts)


def _write_huggingface(path: Path, source: LoadedModel, dtype: DType | None, frame: PromptFrame) -> None:
    export_huggingface(path, _stored_as(source.model, dtype), source.tokenizer, **_usage(source, frame))


def _write_gguf(path: Path, source: LoadedModel, dtype: DType | None, frame: PromptFrame) -> None:
    export_gguf(path, source.model, source.tokenizer, dtype=dtype or "f32", **_usage(source, frame))


def _usage(source: LoadedModel, frame: PromptFrame) -> dict[str, Any]:
    """For programs without our templates: the task with the end of an answer among its stop ids, and Jinja's template.

    Without a frame the template is None, which stands for the task's own.
    """
    mark, ends = source.tokenizer.special_tokens.get(frame.answer_end), end_ids(source.tokenizer, source.task)
    task = source.task if mark is None or mark in ends else {**source.task, "stop_ids": [mark, *ends]}
    return {"task": task, "chat_template": None if frame == PromptFrame() else chat_template(frame)}


def _write_book(path: Path, source: LoadedModel, dtype: DType | None, _frame: PromptFrame) -> None:
    write_torch_file(path, book_state_dict(_stored_as(source.model, dtype)))


def _write_onnx(path: Path, source: LoadedModel, dtype: DType | None, _frame: PromptFrame) -> None:
    if dtype not in (None, "f32"):
        raise ConfigError(f"ONNX is written as f32, got --dtype {dtype}; omit it.")
    export_onnx(path, source.model)


def _read_onnx(path: Path, source: LoadedModel) -> LoadedModel:
    """Read an ONNX file, which has only graph and weights; everything else is taken from the source."""
    model = cast(GPTModel, ONNXModel(path, source.config))
    return dataclasses.replace(source, model=model, folder=path)


EXPORT_FORMATS: dict[str, _ExportFormat] = {
    "native": _ExportFormat(_write_native, is_folder=True),
    "hf": _ExportFormat(_write_huggingface, is_folder=True),
    "gguf": _ExportFormat(_write_gguf, suffix=".gguf", beside=_modelfile_beside),
    "book": _ExportFormat(_write_book, suffix=".pth", beside=_settings_beside),
    "onnx": _ExportFormat(_write_onnx, suffix=".onnx", read=_read_onnx),
}
