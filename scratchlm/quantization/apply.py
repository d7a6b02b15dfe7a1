"""Quantize a model: replace its linear layers and its token embedding by quantized ones."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError
from scratchlm.model.gpt import GPTModel
from scratchlm.model.linear import build_linear
from scratchlm.model.modes import evaluation_mode
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.quantization.gptq import input_products, round_with_gptq, sum_of_products
from scratchlm.quantization.grids import round_to_nearest
from scratchlm.quantization.layers import QuantizedEmbedding, QuantizedLinear, QuantizedWeight
from scratchlm.quantization.matrix import QuantizedMatrix

Report = Callable[[int, int], None]


def quantize_model(
    model: GPTModel,
    config: QuantizationConfig,
    *,
    calibration: Tensor | None = None,
    progress: Report | None = None,
) -> list[str]:
    """Quantize the weight matrices of a model in place; returns the names of those that stay in floating point.

    Those are matrices whose rows no group size divides, the head of a classifier, and with `skip_head` the token
    embedding and the output head. Position embeddings, norms and biases are never quantized; all that stays becomes
    float32.

    A head tied to the token embedding shares the quantized matrix, which is rounded to nearest: GPTQ would improve
    the head at the expense of the embedding.

    Shapes: calibration (N, T) token ids, for gptq.
    Units: progress(done, total) counts matrices.
    Raises: ConfigError when the model is quantized already, when no matrix can be quantized, and when gptq has no
        calibration ids or another kind has some.
    """
    check_dense(model)
    if (config.kind == "gptq") != (calibration is not None):
        problem = "needs a calibration text, got none" if calibration is None else "uses no calibration text"
        raise ConfigError(f"the kind {config.kind} {problem}; gptq alone is calibrated.")
    widths = {layer.in_features for layer in model.trf_blocks.modules() if isinstance(layer, nn.Linear)}
    if not any(config.group_size_of(width) for width in widths):
        raise ConfigError(
            f"no matrix of the model can be quantized to {config.bits} bits: no group size divides rows of "
            f"{' or '.join(map(str, sorted(widths)))} weights; use 8 bits without a group size."
        )
    model.float()  # norms and biases of 16 bits would make states of other types than the quantized layers do
    run = _Run(model, config, progress)
    with evaluation_mode(model):
        if calibration is None:
            run.rounded()
        else:
            run.calibrated(calibration)
    return run.dense


def check_dense(model: nn.Module) -> None:
    """Check that no matrix of a model, which is about to be quantized, is quantized already.

    Raises: ConfigError.
    """
    if is_quantized(model):
        raise ConfigError("the model is quantized already; quantize the original in floating point.")


def is_quantized(model: nn.Module) -> bool:
    """Whether any matrix of the model is quantized."""
    return any(isinstance(module, QuantizedWeight) for module in model.modules())


def quantized_layers(model: nn.Module) -> dict[str, QuantizedWeight]:
    """The quantized layers of a model by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedWeight)}


def dequantize_model(model: GPTModel) -> GPTModel:
    """Replace quantized layers by float32 ones with the same weights, in place; returns the model."""
    is_tied = model.has_tied_head()
    for name, layer in quantized_layers(model).items():
        if not (is_tied and name == "out_head"):
            model.set_submodule(name, layer.as_dense())
    if is_tied:
        config = model.config
        model.out_head = build_linear(config.emb_dim, config.vocab_size, bias=False, device="meta")
        model.tie_weights()
    return model


def dense_model(model: GPTModel) -> GPTModel:
    """A dequantized copy of a quantized model; any other model itself."""
    return dequantize_model(copy.deepcopy(model)) if is_quantized(model) else model


def check_trainable(module: nn.Module) -> None:
    """Check that a part of a model, which is about to be trained, has no quantized weights.

    Raises: ConfigError naming the layers.
    """
    if names := list(quantized_layers(module)):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ConfigError(
            f"the weights of {names[0]}{more} are quantized and cannot be trained; train adapters beside them (LoRA), "
            "or write a model in floating point first: scratchlm convert MODEL FOLDER --to native --dtype f32."
        )


class _Run:
    """The quantization of one model."""

    def __init__(self, model: GPTModel, config: QuantizationConfig, progress: Report | None) -> None:
        self.model, self.config, self.progress = model, config, progress
        self.dense: list[str] = []  # names of the matrices that stay in floating point
        self.n_done = 0
        self.n_matrices = len(_linears(model)) + 1 - model.has_tied_head()

    def rounded(self) -> None:
        """Round every matrix to nearest."""
        self._embedding()
        for name in _linears(self.model.trf_blocks):
            self._linear(f"trf_blocks.{name}", None, self.config)
        self._head(None)

    def calibrated(self, ids: Tensor) -> None:
        """Quantize block after block with GPTQ, each with the inputs that the quantized ones below it compute.

        Shapes: ids (N, T).
        """
        self._embedding()
        context = self.model.embed(ids[:1])[1]
        states = [self.model.embed(row)[0] for row in torch.split(ids, 1)]  # (1, T, E) each
        for i, block in enumerate(self.model.trf_blocks):
            with input_products(block) as products:
                for x in states:
                    block(x, context)
            for name in _linears(block):
                self._linear(f"trf_blocks.{i}.{name}", products[name], self.config)
            states = [block(x, context) for x in states]
        self._head(sum_of_products(self.model.final_norm(x) for x in states))

    def _embedding(self) -> None:
        weight = self.model.tok_emb.weight
        is_tied = self.model.has_tied_head()
        # Rounded embeddings do little harm: alone, in 4 bits, they raise SmolLM2's loss by 0.09 %, the head by 2.2 %.
        own = None if self.config.skip_head else self.config
        matrix = self._quantized("tok_emb", weight, None, self.config.head() if is_tied else own)
        if matrix is not None:
            self.model.set_submodule("tok_emb", QuantizedEmbedding(matrix))
            if is_tied:
                self.model.set_submodule("out_head", QuantizedLinear(matrix))

    def _head(self, products: Tensor | None) -> None:
        """Quantize a language model's head that is not tied to the embedding."""
        if self.model.has_tied_head():
            return
        is_language_head = self.model.out_head.out_features == self.model.config.vocab_size
        self._linear("out_head", products, self.config.head() if is_language_head else None)

    def _linear(self, name: str, products: Tensor | None, config: QuantizationConfig | None) -> None:
        layer = self.model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        matrix = self._quantized(name, layer.weight, products, config)
        if matrix is not None:
            self.model.set_submodule(name, QuantizedLinear(matrix, layer.bias))

    def _quantized(
        self, name: str, weight: Tensor, products: Tensor | None, config: QuantizationConfig | None
    ) -> QuantizedMatrix | None:
        """Quantize one matrix; None if it stays in floating point, as it does without a config."""
        group_size = None if config is None else config.group_size_of(weight.shape[1])
        self.n_done += 1
        if self.progress is not None:
            self.progress(self.n_done, self.n_matrices)
        if config is None or group_size is None:
            self.dense.append(name)
            return None
        if products is None:
            return round_to_nearest(weight, config.grid(), group_size=group_size)
        return round_with_gptq(weight, products, config.grid(), group_size=group_size)


def _linears(module: nn.Module) -> list[str]:
    """The names of the linear layers in a module."""
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
