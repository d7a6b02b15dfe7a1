"""Named tensors in the files of others, read one at a time so that memory holds each once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from scratchlm.assets.file_structure import safetensors_header_problem
from scratchlm.checkpoints.torch.numpy_archive import read_npz
from scratchlm.checkpoints.torch.torch_file import read_torch_file
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import read_json

TORCH_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".npz")
MAPPED_BYTES = 32 << 20  # opening a file of many tensors takes longer than reading one of them
_INSIDE = (  # where training scripts keep the weights beside the optimizer
    "model_state_dict",
    "state_dict",
    "model",
    "module",
    "model_state",
    "net",
    "weights",
)
_MAX_NESTING = 4  # of these keys: {"checkpoint": {"model": {"state_dict": ...}}} is no training script's
_WRAPPERS = re.compile(  # parts of names that torch.compile, DDP, FSDP, checkpointing and Fabric put in
    r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
_TOKENS = re.compile(  # the token embedding, and the attribute in which a larger module holds the model
    r"((?:.*?\.)??)(?:tok_emb|(?:transformer\.)?wte|(?:model\.)?embed_tokens)\.weight"
)
_SCALES = re.compile(r".*(?:weight_scale|weight_scale_inv|scale_weight|input_scale|activation_scale)")


class SafetensorsFile(Mapping[str, Tensor]):
    """The tensors of a `.safetensors` file by name.

    The file is mapped anew after every 32 MB: pages of a mapping that stays count as this process's memory. It is
    mapped anew too for a tensor that is asked for again, since tensors of one mapping share their numbers.

    Raises: CheckpointError when it is missing, truncated or no safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._n_mapped = 0  # bytes read through the mapping that is open
        self._given: set[str] = set()  # tensors of that mapping
        try:
            problem = safetensors_header_problem(path)
            self._names = {} if problem is not None else dict.fromkeys(self._open().keys())
        except (OSError, SafetensorError) as cause:
            raise self._damaged(cause) from cause
        if problem is not None:
            raise self._damaged(problem)

    def __getitem__(self, name: str) -> Tensor:
        try:
            if self._file is None or name in self._given:
                self._open()
            tensor: Tensor = self._file.get_tensor(name)
        except (OSError, SafetensorError) as cause:
            raise self._damaged(cause) from cause
        self._given.add(name)
        self._n_mapped += tensor.nbytes
        if self._n_mapped >= MAPPED_BYTES:
            self._file = None
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _open(self) -> Any:
        self._file = None  # before the next is mapped
        self._file, self._n_mapped, self._given = safe_open(self.path, framework="pt"), 0, set()
        return self._file

    def _damaged(self, cause: object) -> CheckpointError:
        return CheckpointError(
            f"{self.path} must be a safetensors file, got: {cause}; fetch it again or use another copy."
        )


class ShardedWeights(Mapping[str, Tensor]):
    """The tensors of several files, told by an index such as `model.safetensors.index.json`.

    Raises: CheckpointError when the index is damaged, names a file outside its folder, or a file lacks what the
        index says it holds.
    """

    def __init__(self, index: Path) -> None:
        value = read_json(index, error=CheckpointError)
        weight_map = value.get("weight_map") if isinstance(value, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
            raise CheckpointError(
                f"{index} must map weights to files under weight_map, found none; fetch it again."
            )
        self.files = sorted(set(weight_map.values()))
        for name in self.files:
            is_beside = Path(name).name == name and "\\" not in name and 0 < len(name) <= 200
            if not is_beside or name.endswith(".index.json"):  # an index of an index could go on forever
                raise CheckpointError(
                    f"{index} must name files of weights beside it, found {name!r:.200}; take another copy."
                )
        shards = {name: _open(index.parent / name, {}) for name in self.files}
        for weight, file in weight_map.items():
            if weight not in shards[file]:
                raise CheckpointError(
                    f"{index.parent / file} must hold {weight:.200}, as {index.name} says, found it missing; "
                    "fetch the file again."
                )
        self._shard_of = {weight: shards[file] for weight, file in weight_map.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._shard_of[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)


class Weights(Mapping[str, Tensor]):
    """A model's tensors by the names that its own code gives them, without those of the modules around it.

    `settings` is what a training script saved beside them, such as nanoGPT's `model_args`; {} for other files.
    Raises: CheckpointError for two tensors of one name, for two models in one file, and for a tensor whose
        numbers mean nothing without scales that lie elsewhere.
    """

    def __init__(self, source: Mapping[str, Tensor], *, where: Path, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self._source, self._where = source, where
        names = {name: _WRAPPERS.sub("", name) for name in source}
        around = {match[1] for name in names.values() if (match := _TOKENS.fullmatch(name))}
        if len(around) > 1:
            raise CheckpointError(
                f"{where} must hold one model, got {len(around)}: {', '.join(sorted(around))!s:.120}; save the "
                "state_dict() of one of them."
            )
        prefix = next(iter(around), "")
        self._theirs: dict[str, str] = {}
        for name, short in names.items():
            if self._theirs.setdefault(short.removeprefix(prefix), name) != name:
                raise CheckpointError(
                    f"{where} must hold each weight once, got {name:.120} and "
                    f"{self._theirs[short.removeprefix(prefix)]:.120}; save the state_dict() of one model."
                )
        self._scales = next((name for name in source if _SCALES.fullmatch(name)), None)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._source[self._theirs[name]]
        kind = str(tensor.dtype).removeprefix("torch.")
        is_scaled = kind.startswith("float8") and self._scales is not None
        if is_scaled or tensor.is_complex() or kind in ("float8_e8m0fnu", "float4_e2m1fn_x2"):
            scales = f" with scales in {self._scales:.120}" if is_scaled else ""
            raise CheckpointError(
                f"{self._where} holds {name:.120} as {kind}{scales}, which cannot be read; take a bfloat16 or GGUF "
                "version of the model."
            )
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._theirs

    def __iter__(self) -> Iterator[str]:
        return iter(self._theirs)

    def __len__(self) -> int:
        return len(self._theirs)


def open_weights(path: Path) -> Weights:
    """The named tensors of a `.safetensors`, `.bin`, `.pth`, `.pt`, `.ckpt` or `.npz` file, or of an index of several.

    A torch file may hold the weights beside an optimizer, as the book's, nanoGPT's and Lightning's checkpoints do.
    Raises: CheckpointError for a file that is missing, damaged, of another kind, or holds anything but tensors
        under its names.
    """
    settings: dict[str, Any] = {}
    return Weights(_open(path, settings), where=path, settings=settings)


def _open(path: Path, settings: dict[str, Any]) -> Mapping[str, Tensor]:
    """The tensors under the names in the file; what else a training script saved goes into `settings`."""
    if path.name.endswith(".index.json"):
        return ShardedWeights(path)
    if not path.is_file():
        raise CheckpointError(f"{path} must be a file of weights, found no such file; check the path.")
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix in TORCH_SUFFIXES:
        value = read_torch_file(path)
        state = _state_dict(value, path)
        if state is not value:
            settings.update(value)
        return state
    raise CheckpointError(
        f"{path} must be one of {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}; rename or convert it."
    )


def _state_dict(value: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(_MAX_NESTING):
        inner = [
            value[key] for key in _INSIDE if isinstance(value, dict) and isinstance(value.get(key), dict)
        ]
        if not inner:
            break
        value = inner[0]
    if not isinstance(value, dict) or not value:
        raise CheckpointError(
            f"{path} must hold a state dict, got {type(value).__name__}; save model.state_dict(), not the model."
        )
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path} must hold tensors by name, got {type(tensor).__name__} under {name!r:.80}; "
                "save model.state_dict() alone."
            )
    return value
