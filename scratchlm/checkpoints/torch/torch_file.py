"""Read PyTorch's own files (`.pth`, `.pt`, `pytorch_model.bin`) without running code, and write the book's `.pth`.

Files are read with `torch.load(weights_only=True)`. Its unpickler runs no code, but a small malicious file can still
take unbounded time or memory. So the pickle is checked before loading, and the values are checked after.
"""

import io
import pickletools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scratchlm.assets.archive_members import checked_zip
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import new_file

MAX_PICKLE_BYTES = 8 << 20  # names and shapes only: GPT-2 XL with its optimizer needs 0.2 MB
MAX_STEPS = 400_000  # pickle instructions; one tensor takes about 40, GPT-2 XL with its optimizer 70,000
MAX_ITEMS = 500_000  # items in the value, counting shared parts at each occurrence
MAX_NESTING = 64
MAX_WHOLE_NUMBER = 1 << 64
_LEGACY_PICKLES = 5  # in files before PyTorch 1.6: magic number, version, machine, value, storage keys
_PUSHES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"),
}
_HARMLESS = {  # the instructions of torch.save; none of them creates an object of an arbitrary class
    *_PUSHES,
    *("MARK", "STOP", "REDUCE", "BUILD", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
}
_IN_PLACE = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD")  # change their first operand
_NEWEST_PROTOCOL = 3
_GLOBALS = (
    "collections OrderedDict",
    "torch Size",
    "torch.storage UntypedStorage",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
)
_PLAIN = (str, bytes, bool, int, float, type(None))  # values and dictionary keys


def read_torch_file(path: str | Path) -> Any:
    """Load the value in a file that `torch.save` wrote: dicts, lists, tuples, numbers, text and tensors.

    Tensors are on the CPU. Those of a zip file (PyTorch 1.6 and later) are memory-mapped copy-on-write, so a
    large file takes memory only as it is used. Tensors that shared memory still share it.
    Parameters come back as plain tensors, an OrderedDict as a dict.
    Raises: CheckpointError naming the file and its problem: damaged (zip files have checksums), implausibly
        large, or a pickle that names anything but tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(MAX_PICKLE_BYTES)
    except OSError as cause:
        raise CheckpointError(f"{path} cannot be read: {cause.strerror}; check the path.") from cause
    is_zip = head.startswith(b"PK\x03\x04")
    if not is_zip and not head.startswith(b"\x80"):
        raise CheckpointError(
            f"{path} is not a file of torch.save: it begins with {head[:4]!r}; check what kind of file it is."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pickle, storage_sizes = _contents_of_zip(path) if is_zip else (head, None)
        stream = io.BytesIO(pickle)
        for _ in range(1 if is_zip else _LEGACY_PICKLES):
            _check_pickle(stream, path)
        try:
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except Exception as cause:  # torch raises many kinds of errors for a damaged file
            reason = str(cause).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
            raise _wrong(path, f"makes torch.load report: {reason:.200}") from cause
    return _plain_value(value, path, storage_sizes)


def write_torch_file(path: str | Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a state dict atomically as a `.pth` file, which readers of the book open with torch.load.

    Our own models are safetensors. Only this function writes a pickle, because the book's notebooks read
    nothing else; it contains only tensors, so `torch.load(path, weights_only=True)` reads it.
    Raises: CheckpointError when the disk is full or the folder may not be written.
    """
    state = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    with new_file(path, error=CheckpointError) as partial, partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as cause:  # torch's message for an incomplete write
            raise CheckpointError(f"{path} could not be written: {cause}; free some space.") from cause
    return Path(path)


def _contents_of_zip(path: Path) -> tuple[bytes, set[int]]:
    """The `data.pkl` of torch.save's zip file and the sizes of all members, after a check of their checksums."""
    with checked_zip(path, are_files=False, error=CheckpointError) as archive:
        infos = archive.infolist()
        names = {info.filename for info in infos}
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{path} is a zip file, but not of torch.save: it holds {len(pickles)} data.pkl; check the path."
            )
        if pickles[0].replace("data.pkl", "constants.pkl") in names:
            raise CheckpointError(
                f"{path} is a TorchScript program, not weights; save its state_dict() with torch.save."
            )
        if any(info.file_size != info.compress_size for info in infos):
            raise CheckpointError(
                f"{path} is compressed; save it again with torch.save, which does not compress."
            )
        if archive.getinfo(pickles[0]).file_size > MAX_PICKLE_BYTES:
            raise _wrong(path, f"has more than {MAX_PICKLE_BYTES:,} bytes")
        damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(
                f"{path} is damaged: {damaged!r:.200} differs from its checksum; download it again."
            )
        return archive.read(pickles[0]), {info.file_size for info in infos}


def _check_pickle(stream: io.BytesIO, path: Path) -> None:
    """Read one pickle's instructions without executing them, and reject a pickle that is too costly to load.

    A tuple that occurs twice in the next tuple, nested forty times, is small in memory, but hashing it visits every
    item. So this simulates the unpickler's stack and memo with the pair (number of items, depth) for each value.
    """
    stack: list[tuple[int, int]] = []
    marks: list[int] = []
    memo: dict[Any, tuple[int, int]] = {}
    try:
        for n_steps, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            name = instruction.name
            problem = _instruction_problem(name, argument) if name not in _HARMLESS else None
            if problem is not None or n_steps > MAX_STEPS:
                raise _wrong(path, problem or f"has more than {MAX_STEPS:,} instructions")
            if name in _PUSHES:
                stack.append((1, 1))
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name == "MARK":
                marks.append(len(stack))
            elif instruction.stack_after:
                operands = instruction.stack_before
                start = len(stack) - len(operands)
                if pickletools.markobject in operands:
                    start = marks.pop() - operands.index(pickletools.markobject)
                used = stack[max(0, start) :]
                del stack[max(0, start) :]
                depths = [depth for _, depth in used]
                depth = 1 + max(depths[1:] if name in _IN_PLACE else depths, default=0)
                depth = max(depth, depths[0]) if name in _IN_PLACE else depth
                n_items = 1 + sum(n for n, _ in used)
                if n_items > MAX_ITEMS or depth > MAX_NESTING:
                    raise _wrong(path, "contains a value that is nested too deeply")
                stack.append((n_items, depth))
    except (ValueError, LookupError) as cause:
        if isinstance(cause, CheckpointError):
            raise
        raise _wrong(path, f"is damaged ({cause!s:.200})") from cause


def _instruction_problem(name: str, argument: Any) -> str | None:
    """The reason why an instruction does not belong in the pickle of a state dict, or None if it does."""
    if name == "PROTO":
        has_newer = argument > _NEWEST_PROTOCOL
        problem = f"has protocol {argument}; torch.load reads {_NEWEST_PROTOCOL}, its default is 2"
        return problem if has_newer else None
    if name != "GLOBAL":
        return f"could run code: it holds the instruction {name}"
    module, _, attribute = argument.partition(" ")
    is_type = module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    is_storage = module == "torch" and attribute.isalnum() and attribute.endswith("Storage")
    is_tensor_part = is_type or is_storage or argument in _GLOBALS
    return None if is_tensor_part else f"would run code: it names {f'{module}.{attribute}'!r:.200}"


def _plain_value(value: Any, path: Path, storage_sizes: set[int] | None) -> Any:
    """Copy the containers, and check that no tensor claims more values than its storage has.

    storage_sizes: bytes of the members of a zip file; a storage has the size of one of them.
    """
    n_items = 0

    def copy(item: Any, depth: int) -> Any:
        nonlocal n_items
        n_items += 1
        if n_items > MAX_ITEMS or depth > MAX_NESTING:
            raise _wrong(path, "contains a value that is nested too deeply")
        if isinstance(item, dict):
            pairs = dict.items(item)  # a file can give an OrderedDict an attribute named `items`
            if not all(isinstance(key, _PLAIN) for key, _ in pairs):
                raise _wrong(path, "has a dictionary key that is neither text nor a number")
            return {key: copy(inner, depth + 1) for key, inner in pairs}
        if isinstance(item, (list, tuple)):
            items = [copy(inner, depth + 1) for inner in item]
            return items if isinstance(item, list) else tuple(items)
        if isinstance(item, Tensor):
            n_bytes = item.untyped_storage().nbytes()
            is_member = storage_sizes is None or n_bytes == 0 or n_bytes in storage_sizes
            if item.nbytes > n_bytes or not is_member:
                raise _wrong(path, f"claims more numbers than are there for the shape {tuple(item.shape)}")
            return item.detach()
        if not isinstance(item, (*_PLAIN, torch.dtype)):
            raise _wrong(path, f"holds a {type(item).__name__}")
        if isinstance(item, int) and abs(item) >= MAX_WHOLE_NUMBER:
            raise _wrong(path, "has an integer of more than 64 bits")
        return item

    return copy(value, 0)


def _wrong(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{path} must hold tensors and plain values, but its pickle {problem}; get the weights as safetensors, or save "
        "model.state_dict() again."
    )
