"""Open the named tensors in weight files of other programs, reading one at a time to save memory."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from scratchlm.assets.file_structure import safetensors_header_problem
from scratchlm.checkpoints.lazy_mapping import LazyMapping
from scratchlm.checkpoints.torch.numpy_archive import read_npz
from scratchlm.checkpoints.torch.torch_file import read_torch_file
from scratchlm.core.errors import CheckpointError
from scratchlm.core.json_table import read_json_table

TORCH_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".npz")
MAPPED_BYTES = 32 << 20  # read per mapping: opening a file with many tensors takes longer than reading one
# Keys under which training scripts save the weights beside the optimizer.
_INSIDE = ("model_state_dict", "state_dict", "model", "module", "model_state", "net", "weights")
_MAX_NESTING = 4  # levels of these keys; training scripts do not nest deeper
_WRAPPERS = re.compile(  # parts of names that torch.compile, DDP, FSDP, checkpointing and Fabric add
    r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
# The token embedding, and before it the attribute in which a larger module holds the model.
_TOKENS = re.compile(r"((?:.*?\.)??)(?:tok_emb|(?:transformer\.)?wte|(?:model\.)?embed_tokens)\.weight")
_PACKED = re.compile(r".*\.(?:qweight|weight_packed)")  # several integers in one, as GPTQ and AWQ write them
_SCALES = re.compile(r".*(?:weight_scale|weight_scale_inv|scale_weight|input_scale|activation_scale)")


class SafetensorsFile(LazyMapping[Tensor]):
    """The tensors of a `.safetensors` file by name.

    The file is mapped again after every 32 MB, because pages of an open mapping count as memory of this process, and
    for a tensor that is read a second time, because tensors of one mapping share their memory.
    Raises: CheckpointError when it is missing, truncated or not a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._n_mapped = 0  # bytes read through the open mapping
        self._given: set[str] = set()  # tensors read through it
        try:
            problem = safetensors_header_problem(path)
            names = {} if problem is not None else dict.fromkeys(self._open().keys())
        except (OSError, SafetensorError) as cause:
            raise self._damaged(cause) from cause
        if problem is not None:
            raise self._damaged(problem)
        super().__init__(names, self._read_tensor)

    def _read_tensor(self, name: str) -> Tensor:
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

    def _open(self) -> Any:
        self._file = None  # close the old mapping first
        self._file, self._n_mapped, self._given = safe_open(self.path, framework="pt"), 0, set()
        return self._file

    def _damaged(self, cause: object) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a valid safetensors file: {cause}; fetch it again or use another copy."
        )


def open_shards(index: Path) -> Mapping[str, Tensor]:
    """The tensors of several files, listed in an index such as `model.safetensors.index.json`.

    Raises: CheckpointError when the index is damaged, names a file outside its folder, or lists a weight that its file
        lacks.
    """
    weight_map = read_json_table(index, error=CheckpointError).get("weight_map", dict, {})
    if not weight_map or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index} must map weights to files under weight_map; fetch it again.")
    shards: dict[str, Mapping[str, Tensor]] = {}
    for name in sorted(set(weight_map.values())):
        is_beside = Path(name).name == name and "\\" not in name and 0 < len(name) <= 200
        if not is_beside or name.endswith(".index.json"):  # an index of an index could recurse infinitely
            raise CheckpointError(
                f"{index} must name weight files in its own folder, got {name!r:.200}; use another copy."
            )
        shards[name] = _open(index.parent / name, {})
    for weight, file in weight_map.items():
        if weight not in shards[file]:
            raise CheckpointError(
                f"{index.parent / file} lacks {weight:.200}, which {index.name} lists; fetch the file again."
            )
    return LazyMapping(weight_map, lambda weight: shards[weight_map[weight]][weight])


class Weights(LazyMapping[Tensor]):
    """A model's tensors by the names in its own code, without the prefixes of modules around it.

    `settings` are those that a training script saved beside them, such as nanoGPT's `model_args`; {} for other files.
    Raises: CheckpointError for two tensors of one name, for two models in one file, for quantized tensors that need
        separate scales, and for matrices of integers.
    """

    def __init__(self, source: Mapping[str, Tensor], *, where: Path, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self._source, self._where = source, where
        self._theirs: dict[str, str] = {}  # name in the model's code -> name in the file
        super().__init__(self._theirs, self._read_tensor)
        names = {name: _WRAPPERS.sub("", name) for name in source}
        around = {match[1] for name in names.values() if (match := _TOKENS.fullmatch(name))}
        if len(around) > 1:
            raise CheckpointError(
                f"{where} holds {len(around)} models: {', '.join(sorted(around))!s:.120}; save the state_dict() of "
                "one of them."
            )
        prefix = next(iter(around), "")
        for name, short in names.items():
            first = self._theirs.setdefault(short.removeprefix(prefix), name)
            if first != name:
                raise CheckpointError(
                    f"{where} holds the same weight as {name:.120} and {first:.120}; save one model's state_dict()."
                )
        if packed := next((name for name in source if _PACKED.fullmatch(name)), None):
            raise CheckpointError(
                f"{where} holds {packed:.120}, quantized integers that cannot be read; use a bfloat16 or GGUF version "
                "of the model."
            )
        self._scales = next((name for name in source if _SCALES.fullmatch(name)), None)

    def _read_tensor(self, name: str) -> Tensor:
        tensor = self._source[self._theirs[name]]
        kind = str(tensor.dtype).removeprefix("torch.")
        is_scaled = kind.startswith("float8") and self._scales is not None
        is_packed = name.endswith(".weight") and not (tensor.is_floating_point() or tensor.is_complex())
        if is_scaled or is_packed or tensor.is_complex() or kind in ("float8_e8m0fnu", "float4_e2m1fn_x2"):
            scales = f" with scales in {self._scales:.120}" if is_scaled else ""
            raise CheckpointError(
                f"{self._where} holds {name:.120} as {kind}{scales}, which cannot be read; use a bfloat16 or GGUF "
                "version of the model."
            )
        return tensor


def open_weights(path: Path) -> Weights:
    """Open a `.safetensors`, `.bin`, `.pth`, `.pt`, `.ckpt` or `.npz` file, or an index of several.

    A torch file may hold the weights beside an optimizer, as checkpoints of the book, nanoGPT and Lightning do.
    Raises: CheckpointError for a file that is missing, damaged, of another kind, or holds values other than tensors.
    """
    settings: dict[str, Any] = {}
    return Weights(_open(path, settings), where=path, settings=settings)


def _open(path: Path, settings: dict[str, Any]) -> Mapping[str, Tensor]:
    """The tensors by their names in the file; other values that a training script saved go into `settings`."""
    if path.name.endswith(".index.json"):
        return open_shards(path)
    if not path.is_file():
        raise CheckpointError(f"the weight file {path} does not exist; check the path.")
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
        keys = [key for key in _INSIDE if isinstance(value, dict) and isinstance(value.get(key), dict)]
        if not keys:
            break
        value = value[keys[0]]
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
