"""Write a model as ONNX for onnxruntime and other engines: ids in, logits out, no key-value cache."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.store import build_model, own_weights
from scratchlm.core.errors import CheckpointError, ConfigError, optional_import
from scratchlm.core.files import new_file
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import dense_model

MAX_BYTES = 2_000_000_000  # of weights; a protobuf message is limited to 2 GB


class ONNXModel(nn.Module):
    """Runs an ONNX file with onnxruntime, to compare it with the model it was written from.

    Shapes: ids (B, T) -> logits (B, T, V).
    Raises: CheckpointError for a file that onnxruntime cannot load; MissingDependencyError without it.
    """

    def __init__(self, path: str | Path, config: GPTConfig) -> None:
        super().__init__()
        runtime = _onnx_packages()
        self.config = config
        try:
            graph = Path(path).read_bytes()
            self._session = runtime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        except _load_errors(runtime) as cause:
            raise CheckpointError(
                f"{path} cannot be loaded as ONNX: {str(cause)[:300]}; convert it again."
            ) from cause

    def forward(self, ids: Tensor) -> Tensor:
        """Run the graph of the file."""
        (logits,) = self._session.run(None, {"ids": ids.numpy()})
        return torch.from_numpy(logits)


def export_onnx(path: str | Path, model: GPTModel) -> Path:
    """Write the model's graph and weights as one file, for any batch size and any length up to its context.

    Raises: ConfigError for a model of more than 2 GB, which one file cannot hold, and for a context of one
        token; MissingDependencyError without the `onnx` packages; CheckpointError when the disk is full.
    """
    _onnx_packages()
    own = own_weights(dense_model(model))
    weights = {name: tensor.detach().float().cpu() for name, tensor in own.items()}
    n_bytes = sum(4 * tensor.numel() for tensor in weights.values())
    context_length = model.config.context_length
    if n_bytes > MAX_BYTES or context_length < 2:
        raise ConfigError(
            f"ONNX holds models of at most {MAX_BYTES:,} bytes with a context of 2 tokens or more, got "
            f"{n_bytes:,} bytes and {context_length}; use --to gguf or hf."
        )
    # The fused kernel branches on the number of tokens, which the exporter cannot trace.
    config = dataclasses.replace(model.config, attention="manual")
    plain = build_model(config, weights, where=Path("the model")).eval()
    example = torch.zeros(2, 2, dtype=torch.long)
    sizes = {"ids": {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=context_length)}}
    with new_file(path, error=CheckpointError) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's internals
        program = torch.onnx.export(
            plain,
            (example,),
            dynamo=True,
            input_names=["ids"],
            output_names=["logits"],
            dynamic_shapes=sizes,
            verbose=False,
        )
        assert program is not None
        program.save(str(partial))
    return Path(path)


def _load_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """The errors that onnxruntime raises for damaged files; they have no common base class."""
    names = "Fail InvalidArgument InvalidGraph InvalidProtobuf NotImplemented RuntimeException"
    state = runtime.capi.onnxruntime_pybind11_state
    return (OSError, RuntimeError, ValueError, *(getattr(state, name) for name in names.split()))


def _onnx_packages() -> Any:
    with optional_import("ONNX files need onnx, onnxscript and onnxruntime", extra="onnx"):
        import onnx  # noqa: F401  (used by torch.onnx)
        import onnxruntime
        import onnxscript  # noqa: F401
    return onnxruntime
