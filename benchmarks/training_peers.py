"""The training steps of other programs, for `train_speed`: each as its own training script does them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.checkpoints.names import GPT2, GPT2_LINEAR, to_theirs
from scratchlm.checkpoints.store import own_weights
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.training.config import TrainingConfig

Step = Callable[[Tensor, Tensor], float]  # inputs and targets (B, T) -> the loss before the update


def peer_step(name: str, path: str, config: GPTConfig, training: TrainingConfig, weights: GPTModel) -> Step:
    """The training step of a peer; GPT-2's architecture begins with the weights of our model."""
    model, loss_of, optimizer = PEERS[name](Path(path), config, training, weights)
    model.train()

    def step(inputs: Tensor, targets: Tensor) -> float:
        loss = loss_of(inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


Peer = tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], torch.optim.Optimizer]


def _transformers(path: Path, config: GPTConfig, training: TrainingConfig, weights: GPTModel) -> Peer:  # noqa: ARG001
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size, n_positions=config.context_length, n_embd=config.emb_dim,
            n_layer=config.n_layers, n_head=config.n_heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            use_cache=False, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    theirs = to_theirs(GPT2, own_weights(weights), config.n_layers)
    _load(model, theirs)

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        logits = model(input_ids=inputs).logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return model, loss_of, _adamw(model, training)


def _nanogpt(path: Path, config: GPTConfig, training: TrainingConfig, weights: GPTModel) -> Peer:
    module: Any = _module(path / "model.py", "nanogpt_model")
    theirs = module.GPTConfig(
        block_size=config.context_length, vocab_size=config.vocab_size, n_layer=config.n_layers,
        n_head=config.n_heads, n_embd=config.emb_dim, dropout=0.0, bias=True,
    )  # fmt: skip
    model = module.GPT(theirs)
    _load(model, to_theirs(GPT2_LINEAR, own_weights(weights), config.n_layers))
    betas = (training.beta1, training.beta2)
    optimizer = model.configure_optimizers(training.weight_decay, training.learning_rate, betas, "cpu")
    return model, lambda inputs, targets: model(inputs, targets)[1], optimizer


def _nanogpt_compiled(path: Path, config: GPTConfig, training: TrainingConfig, weights: GPTModel) -> Peer:
    model, _, optimizer = _nanogpt(path, config, training, weights)
    compiled = torch.compile(model)
    return model, lambda inputs, targets: compiled(inputs, targets)[1], optimizer


def _book(path: Path, config: GPTConfig, training: TrainingConfig, weights: GPTModel) -> Peer:
    """The book's GPTModel, from its gpt.py or previous_chapters.py; the output head is not tied."""
    file = next(path / name for name in ("gpt.py", "previous_chapters.py") if (path / name).exists())
    fields = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "drop_rate", "qkv_bias")
    model = _module(file, "book_gpt").GPTModel({name: getattr(config, name) for name in fields})
    _load(model, weights.state_dict())

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    return model, loss_of, optimizer


def _litgpt(path: Path, config: GPTConfig, training: TrainingConfig, weights: GPTModel) -> Peer:  # noqa: ARG001
    """litgpt's GPT of the same sizes; it has rotary positions, and weights of its own."""
    sys.path.insert(0, str(path))
    litgpt: Any = importlib.import_module("litgpt")
    theirs = litgpt.Config(
        block_size=config.context_length, vocab_size=config.vocab_size, padded_vocab_size=config.vocab_size,
        n_layer=config.n_layers, n_head=config.n_heads, n_embd=config.emb_dim, bias=True, parallel_residual=False,
        mlp_class_name="GptNeoxMLP", gelu_approximate="tanh",
    )  # fmt: skip
    model = litgpt.GPT(theirs)

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    return model, loss_of, _adamw(model, training)


PEERS: dict[str, Callable[[Path, GPTConfig, TrainingConfig, GPTModel], Peer]] = {
    "transformers": _transformers,
    "nanogpt": _nanogpt,
    "nanogpt-compiled": _nanogpt_compiled,
    "book": _book,
    "litgpt": _litgpt,
}


def _adamw(model: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    betas = (training.beta1, training.beta2)
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=betas, fused=True)


def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights by name; every trainable parameter of the model must be among them."""
    found = model.load_state_dict(weights, strict=False)
    named = {name for name, _ in model.named_parameters()}
    missing = [name for name in found.missing_keys if name in named]
    assert not missing, f"no weights for {missing}"
    assert not found.unexpected_keys, found.unexpected_keys


def _module(file: Path, name: str) -> Any:
    """Import a file of a local checkout under a name of its own."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
