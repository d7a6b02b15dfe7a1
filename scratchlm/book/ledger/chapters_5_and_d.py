"""Recompute the figures of chapter 5 and appendix D: losses before and after training, and samples."""

import contextlib
import functools
import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from scratchlm.book import appendix_d, ch02, ch05
from scratchlm.book.ledger.chapters_2_to_4 import SEED, gpt2_bpe, the_verdict, untrained_model
from scratchlm.checkpoints.open_model import open_model
from scratchlm.generation.samplers import keep_top_k
from scratchlm.model.gpt import GPTModel

CONTEXT = 256  # tokens; the chapter shortens GPT-2's 1,024 so that a laptop can train
EFFORT = "Every effort moves you"
TRAIN_SHARE = 0.9  # of the story's characters
WORDS = ("closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you")
WORD_LOGITS = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
CPU = torch.device("cpu")


def story_loaders() -> tuple[Any, Any]:
    """The chapter's training and validation loaders."""
    cut = int(TRAIN_SHARE * len(the_verdict()))
    sizes = {"batch_size": 2, "max_length": CONTEXT, "stride": CONTEXT}
    torch.manual_seed(SEED)
    return (
        ch02.create_dataloader_v1(the_verdict()[:cut], **sizes, drop_last=True, shuffle=True),
        ch02.create_dataloader_v1(the_verdict()[cut:], **sizes, drop_last=False, shuffle=False),
    )


def n_tokens() -> list[int]:
    """Number of tokens in each of the two loaders."""
    return [sum(inputs.numel() for inputs, _ in loader) for loader in story_loaders()]


def toy_loss() -> list[float]:
    """Loss and perplexity of the untrained model on "every effort moves you" and "I really like chocolate"."""
    inputs = torch.tensor([[16833, 3626, 6100], [40, 1107, 588]])
    targets = torch.tensor([[3626, 6100, 345], [1107, 588, 11311]])
    loss = ch05.calc_loss_batch(inputs, targets, untrained_model(CONTEXT), CPU).detach()
    return [round(loss.item(), 4), round(loss.exp().item(), 2)]


def untrained_sample() -> str:
    """Ten tokens of the untrained model."""
    ids = ch05.text_to_token_ids(EFFORT, gpt2_bpe())
    return str(ch05.token_ids_to_text(ch05.generate(untrained_model(CONTEXT), ids, 10, CONTEXT), gpt2_bpe()))


def losses(model: GPTModel) -> list[float]:
    """Training and validation loss on the story, as in section 5.1."""
    loaders = story_loaders()
    torch.manual_seed(SEED)
    with torch.no_grad():
        return [round(float(ch05.calc_loss_loader(loader, model, CPU)), 4) for loader in loaders]


@functools.cache
def losses_after_training() -> tuple[float, float]:
    """The last losses of `train_model_simple` after ten epochs."""
    train_loader, val_loader = story_loaders()
    model = untrained_model(CONTEXT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0004, weight_decay=0.1)
    with contextlib.redirect_stdout(io.StringIO()):
        train_losses, val_losses, _ = ch05.train_model_simple(
            model, train_loader, val_loader, optimizer, CPU,
            num_epochs=10, eval_freq=5, eval_iter=5, start_context=EFFORT, tokenizer=gpt2_bpe(),
        )  # fmt: skip
    return train_losses[-1], val_losses[-1]


@functools.cache
def losses_after_appendix_d() -> tuple[float, float]:
    """The last losses of the appendix's `train_model` after fifteen epochs."""
    train_loader, val_loader = story_loaders()
    model = untrained_model(CONTEXT)
    n_epochs, peak = 15, 0.001
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.1)
    with contextlib.redirect_stdout(io.StringIO()):
        train_losses, val_losses, _, _ = appendix_d.train_model(
            model, train_loader, val_loader, optimizer, CPU,
            n_epochs=n_epochs, eval_freq=5, eval_iter=1, start_context=EFFORT, tokenizer=gpt2_bpe(),
            warmup_steps=int(0.2 * n_epochs * len(train_loader)), initial_lr=1e-5, min_lr=1e-5,
        )  # fmt: skip
    return train_losses[-1], val_losses[-1]


def toy_counts(temperature: float) -> Counter[str]:
    """How often each word occurs in a thousand draws."""
    probs = (WORD_LOGITS / temperature).softmax(dim=0)
    torch.manual_seed(SEED)
    return Counter(WORDS[int(torch.multinomial(probs, num_samples=1))] for _ in range(1000))


def toy_top_3() -> list[float]:
    """The probabilities of the three most likely words after top-k filtering with k = 3."""
    probs = keep_top_k(WORD_LOGITS[None], 3).softmax(dim=-1)[0]
    return [round(p, 4) for p in probs.tolist() if p > 0]


@functools.lru_cache(maxsize=1)  # one at a time: the largest takes 6 GB
def openai_model(size: str) -> GPTModel:
    """OpenAI's weights, in either of their two formats."""
    return open_model(size).model


def openai_sample() -> str:
    """Twenty-five tokens sampled from OpenAI's small model."""
    ids = ch05.text_to_token_ids(EFFORT, gpt2_bpe())
    torch.manual_seed(SEED)
    ids = ch05.generate(openai_model("124M"), ids, 25, 1024, temperature=1.5, top_k=50)
    return str(ch05.token_ids_to_text(ids, gpt2_bpe()))


FIGURES: dict[str, Callable[[], Any]] = {
    "ch05.tokens": n_tokens,
    "ch05.batches": lambda: [len(loader) for loader in story_loaders()],
    "ch05.toy-loss": toy_loss,
    "ch05.untrained-sample": untrained_sample,
    "ch05.losses-before": lambda: losses(untrained_model(CONTEXT)),
    "ch05.train-loss-after": lambda: losses_after_training()[0],
    "ch05.val-loss-after": lambda: losses_after_training()[1],
    "ch05.train-loss-band": lambda: losses_after_training()[0],
    "ch05.val-loss-band": lambda: losses_after_training()[1],
    "ch05.toy-counts": lambda: [toy_counts(1.0)[w] for w in ("forward", "toward", "closer", "inches")],
    "ch05.toy-counts-cold": lambda: [n for _, n in toy_counts(0.1).most_common()],
    "ch05.toy-counts-hot": lambda: [n for _, n in toy_counts(5.0).most_common()],
    "ch05.toy-pizza": lambda: round((WORD_LOGITS / 5).softmax(dim=0)[WORDS.index("pizza")].item(), 4),
    "ch05.toy-top-3": toy_top_3,
    "ch05.gpt2-sample": openai_sample,
    "ch05.gpt2-losses": lambda: losses(openai_model("124M")),
    "ch05.gpt2-xl-losses": lambda: losses(openai_model("1558M")),
    "appendix-d.train-loss-after": lambda: losses_after_appendix_d()[0],
    "appendix-d.val-loss-after": lambda: losses_after_appendix_d()[1],
}
