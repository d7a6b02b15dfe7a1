"""Chapter 5, pre-training: losses, the training loop, sampling, and GPT-2's weights.

The book's loop takes the caller's optimizer, prints its progress, and draws dropout, shuffling and evaluation from
torch's global generator. Every figure of the chapter depends on the order of these draws. The Trainer separates them on
purpose, so the book's loop is implemented here.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scratchlm.book.ch04 import generate_text_simple, next_logits
from scratchlm.book.downloads import download_file
from scratchlm.book.gpt2_weights import (
    assign,
    download_and_load_gpt2,
    load_gpt2_params_from_tf_ckpt,
    load_weights_into_gpt,
)
from scratchlm.book.loops import Loader, loader_functions, say
from scratchlm.book.plots import plot_losses
from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.samplers import apply_temperature, keep_top_k
from scratchlm.model.loss import cross_entropy_sum
from scratchlm.model.modes import evaluation_mode
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

__all__ = [
    "assign",
    "calc_loss_batch",
    "calc_loss_loader",
    "download_and_load_gpt2",
    "download_file",
    "evaluate_model",
    "generate",
    "generate_and_print_sample",
    "load_gpt2_params_from_tf_ckpt",
    "load_weights_into_gpt",
    "plot_losses",
    "text_to_token_ids",
    "token_ids_to_text",
    "train_model_simple",
]

N_SAMPLE_TOKENS = 50  # what the book prints after each epoch


def text_to_token_ids(text: str, tokenizer: Tokenizer) -> Tensor:
    """Encode a text as a batch of one row; `<|endoftext|>` in it is the special token.

    Shapes: -> (1, T).
    """
    ids = tokenizer.encode(text, allowed_special={END_OF_TEXT})
    return torch.tensor(ids, dtype=torch.long).unsqueeze(0)


def token_ids_to_text(token_ids: Tensor, tokenizer: Tokenizer) -> str:
    """Decode a batch of one row.

    Shapes: token_ids (1, T).
    """
    return tokenizer.decode(token_ids.squeeze(0).tolist())


def calc_loss_batch(
    input_batch: Tensor, target_batch: Tensor, model: nn.Module, device: torch.device | str
) -> Tensor:
    """The batch's mean loss, with its gradient.

    Shapes: input_batch, target_batch (B, T) -> a scalar.
    Units: nats per target; targets of -100 are ignored.
    """
    loss_sum, n_targets = cross_entropy_sum(model(input_batch.to(device)), target_batch.to(device))
    return loss_sum / n_targets


calc_loss_loader, evaluate_model = loader_functions(calc_loss_batch)


def generate_and_print_sample(
    model: nn.Module, tokenizer: Tokenizer, device: torch.device | str, start_context: str
) -> None:
    """Print 50 generated tokens after a text, on one line; the model is in training mode afterwards.

    Models without learned positions work too, where the book's function fails.
    """
    config = getattr(model, "config", None)  # a reader's own GPTModel has none
    context_size = config.context_length if config else int(model.get_parameter("pos_emb.weight").shape[0])
    ids = text_to_token_ids(start_context, tokenizer).to(device)
    with evaluation_mode(model):
        ids = generate_text_simple(model, ids, N_SAMPLE_TOKENS, context_size)
    say(token_ids_to_text(ids, tokenizer).replace("\n", " "))
    model.train()


def train_model_simple(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Tokenizer,
) -> tuple[list[float], list[float], list[int]]:
    """Train, print the losses every `eval_freq` steps and a sample after each epoch.

    Step 0 is printed after the first update. Returns the training losses, the validation losses, and the number of
    tokens seen at each of them.
    """
    return run_training(
        model,
        train_loader,
        val_loader,
        optimizer,
        device,
        n_epochs=num_epochs,
        eval_freq=eval_freq,
        eval_iter=eval_iter,
        start_context=start_context,
        tokenizer=tokenizer,
    )


def run_training(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    *,
    n_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Tokenizer,
    step_word: str = "Step",
    before_step: Callable[[int], None] | None = None,
    before_update: Callable[[int], None] | None = None,
) -> tuple[list[float], list[float], list[int]]:
    """The loop of chapter 5 and appendix D; appendix D adds actions before a step and before its update.

    Steps count from 0. See the top of this file for why it is not a Trainer.
    """
    train_losses: list[float] = []
    val_losses: list[float] = []
    tokens_at: list[int] = []
    n_tokens, step = 0, -1
    for epoch in range(1, n_epochs + 1):
        model.train()
        for inputs, targets in train_loader:
            step += 1
            if before_step is not None:
                before_step(step)
            optimizer.zero_grad()
            calc_loss_batch(inputs, targets, model, device).backward()  # type: ignore[no-untyped-call]
            if before_update is not None:
                before_update(step)
            optimizer.step()
            n_tokens += inputs.numel()
            if step % eval_freq == 0:
                train_loss, val_loss = evaluate_model(model, train_loader, val_loader, device, eval_iter)
                train_losses.append(train_loss)
                val_losses.append(val_loss)
                tokens_at.append(n_tokens)
                losses = f"Train loss {train_loss:.3f}, Val loss {val_loss:.3f}"
                say(f"Ep {epoch} ({step_word} {step:06d}): {losses}")
        generate_and_print_sample(model, tokenizer, device, start_context)
    return train_losses, val_losses, tokens_at


def _generate(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    context_size: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    eos_id: int | None = None,
) -> Tensor:
    """Append sampled tokens, or the most likely ones at temperature 0, with draws from torch's global generator.

    Unlike the book's, it works for several rows: a row that has reached `eos_id` is filled with it until all have; a
    single row stops before it, as in the book. Exactly `top_k` tokens are kept even when logits tie; a `top_k` beyond
    the vocabulary keeps all.

    Shapes: idx (B, T) -> (B, T + at most max_new_tokens).
    Raises: ConfigError for a negative temperature, which the book treats as 0.
    """
    if temperature < 0:
        raise ConfigError(
            f"temperature must be at least 0, got {temperature}; 0 selects the most likely token."
        )
    is_finished = torch.zeros(idx.shape[0], dtype=torch.bool, device=idx.device)  # (B,)
    for _ in range(max_new_tokens):
        logits = next_logits(model, idx, context_size)  # (B, V)
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        if temperature > 0:
            # All rows are drawn from the global generator in one call, as in the book.
            probs = apply_temperature(logits, temperature).softmax(dim=-1)  # (B, V)
            chosen = torch.multinomial(probs, num_samples=1).squeeze(1)  # (B,)
        else:
            chosen = logits.argmax(dim=-1)  # (B,)
        if eos_id is not None:
            is_finished |= chosen == eos_id
            if is_finished.all():
                break
            chosen = chosen.masked_fill(is_finished, eos_id)
        idx = torch.cat([idx, chosen[:, None]], dim=1)
    return idx


# Defined under another name: the public `generate` is the one in scratchlm.generation.
_generate.__name__ = _generate.__qualname__ = "generate"
generate = _generate
