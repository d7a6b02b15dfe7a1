"""Start a classifier of random weights as a linear model of its tokens, which a thousand texts suffice to fit.

A new embedding for every token has far more parameters than a small data set can determine, so a network that starts
at random memorises its texts. Logistic regression has one convex loss and one number per token and class. Its solution
becomes the starting point: each embedding holds its token's scores, the last block's attention averages the tokens,
every other sublayer adds nothing, and the output head reads the scores. Training then continues from there.
Source: logistic regression on TF-IDF; starting a network from a linear model as in Wang & Manning 2012.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scratchlm.core.errors import ConfigError
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.bpe_trainer import count_pieces, learn_merges
from scratchlm.tokenizers.huggingface_json import BPEVariant
from scratchlm.tokenizers.normalizers import Lowercase, Normalizer, normalize
from scratchlm.tokenizers.pretokenizer import ByteLevel
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

VOCAB_SIZES = (4096, 16384)  # parts of rare words (better for phone numbers), or nearly every word whole
PENALTIES = tuple(10.0**-k for k in (1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5))  # of squared weights, strongest first
N_FOLDS = 3
MAX_SHARE = 0.5  # of an embedding's length that its token's scores take; the rest is random
AVERAGE = 100.0  # weight of the average of all tokens beside the last token's own state


class LinearModel(NamedTuple):
    """A linear classifier on bags of tokens, and the tokenizer that suits the texts best.

    Shapes: weights (V, C), bias (C,).
    """

    tokenizer: BPETokenizer
    weights: Tensor
    bias: Tensor


def fit_linear_model(texts: Sequence[str], classes: Tensor, *, class_weights: Tensor) -> LinearModel:
    """Choose case, vocabulary size and penalty by cross-validation, then fit all texts.

    Shapes: classes (N,) class numbers, class_weights (C,).
    """
    best: tuple[float, float, BPETokenizer, Tensor, Tensor] | None = None
    for tokenizer in _tokenizers(texts):
        rows = [tokenizer.encode(text) for text in texts]
        idf = inverse_document_frequency(rows, tokenizer.vocab_size)
        bags = bags_of_tokens(rows, idf)
        loss, penalty = _choose_penalty(bags, classes, class_weights)
        if best is None or loss < best[0]:
            best = loss, penalty, tokenizer, idf, bags
    assert best is not None
    _, penalty, tokenizer, idf, bags = best
    weights, bias = logistic_regression(bags, classes, class_weights=class_weights, penalty=penalty)
    return LinearModel(tokenizer, weights * idf[:, None], bias)


def inverse_document_frequency(rows: Sequence[Sequence[int]], vocab_size: int) -> Tensor:
    """The weight of each token: the rarer the texts that contain it, the higher.

    Shapes: -> (V,).
    Source: scikit-learn's `TfidfTransformer` with its default, smooth_idf.
    """
    n_texts = torch.bincount(torch.tensor([id_ for row in rows for id_ in set(row)]), minlength=vocab_size)
    return 1 + torch.log((1 + len(rows)) / (1 + n_texts))


def bags_of_tokens(rows: Sequence[Sequence[int]], idf: Tensor) -> Tensor:
    """Count the tokens of each row, divide the counts by their Euclidean length, and multiply them by idf.

    Shapes: idf (V,) -> sparse (N, V).
    """
    counts = [Counter(row) for row in rows]
    numbers = torch.tensor([i for i, count in enumerate(counts) for _ in count])
    ids = torch.tensor([id_ for count in counts for id_ in count])
    values = (
        torch.cat([F.normalize(torch.tensor([*count.values()]).float(), dim=0) for count in counts])
        * idf[ids]
    )
    places, size = torch.stack([numbers, ids]), (len(rows), len(idf))
    return torch.sparse_coo_tensor(places, values, size, check_invariants=True).coalesce()


def logistic_regression(
    bags: Tensor, classes: Tensor, *, class_weights: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """Minimise mean cross-entropy plus half the penalty times the squared weights, by L-BFGS from zero.

    Shapes: bags (N, V), classes (N,), class_weights (C,) -> weights (V, C), bias (C,).
    """
    weights = torch.zeros(bags.shape[1], len(class_weights), requires_grad=True)
    bias = torch.zeros(len(class_weights), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = torch.sparse.mm(bags, weights) + bias  # (N, C)
        value = F.cross_entropy(logits, classes, weight=class_weights) + penalty / 2 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()


@torch.no_grad()
def start_as_linear_model(model: GPTModel, linear: LinearModel) -> None:
    """Set the weights of a new classifier so that at the last token it decides as the linear model, in place.

    Embeddings have length sqrt(E): the scores along C directions, and a random rest. The average of n tokens is then as
    long as the Euclidean length of their counts over n, and the final norm divides by it, as `bags_of_tokens` does.
    The longer embeddings are, the less a step of a given learning rate changes them.
    Draws from torch's global generator.
    Raises: ConfigError for as many classes as the model is wide, or more.
    """
    width, n_classes = model.config.emb_dim, len(linear.bias)
    if n_classes >= width:
        raise ConfigError(
            f"start=linear needs fewer classes than the width of the model, got {n_classes} classes and emb_dim="
            f"{width}; choose a larger size, or start=random."
        )
    # The final norm subtracts the mean over E, so the directions are orthogonal to a constant vector.
    with_constant = torch.cat([torch.ones(width, 1), torch.randn(width, n_classes)], dim=1)
    used = torch.linalg.qr(with_constant).Q  # (E, 1 + C)
    directions = used[:, 1:]  # (E, C)
    mean = linear.weights.mean(dim=1, keepdim=True)  # (V, 1); a term common to all classes changes nothing
    scores = linear.weights - mean  # (V, C)
    scale = MAX_SHARE / max(scores.norm(dim=1).max().item(), 1e-3)
    rest = torch.randn(len(scores), width)  # (V, E)
    rest = F.normalize(rest - rest @ used @ used.T, dim=1)
    rest_length = (1 - (scale * scores).square().sum(dim=1, keepdim=True)).sqrt()  # (V, 1)
    model.tok_emb.weight.copy_(math.sqrt(width) * (scale * scores @ directions.T + rest_length * rest))
    model.pos_emb.weight.zero_()
    for name, parameter in model.trf_blocks.named_parameters():
        if name.split(".", 1)[1].startswith(("att.out_proj.", "ff.layers.2.")):
            parameter.zero_()
    attention = model.trf_blocks[-1].get_submodule("att")
    attention.get_parameter("W_query.weight").zero_()  # equal scores: attention averages
    for name in ("W_value.weight", "out_proj.weight"):
        attention.get_parameter(name).copy_(math.sqrt(AVERAGE) * torch.eye(width))
    model.out_head.weight.copy_(directions.T / (scale * math.sqrt(width)))
    model.out_head.bias.copy_(linear.bias)


def _tokenizers(texts: Sequence[str]) -> Iterator[BPETokenizer]:
    """Tokenizers with and without upper case, of each vocabulary size; all read a text as if a space preceded it."""
    n_other = 256 + 1  # bytes and end-of-text
    choices: tuple[tuple[Normalizer, ...], ...] = (), (Lowercase(),)
    for normalizers in choices:
        spaced = (f" {normalize(text, normalizers)}" for text in texts)
        pieces = count_pieces(spaced, special_tokens=(END_OF_TEXT,))
        merges = learn_merges(pieces, max(VOCAB_SIZES) - n_other)
        variant = BPEVariant(normalizers=normalizers, steps=(ByteLevel(add_prefix_space=True),))
        for n_merges in sorted({min(size - n_other, len(merges)) for size in VOCAB_SIZES}):
            yield BPETokenizer(merges[:n_merges], special_tokens=(END_OF_TEXT,), variant=variant)


def _choose_penalty(bags: Tensor, classes: Tensor, class_weights: Tensor) -> tuple[float, float]:
    """The lowest mean loss on held-out folds, and the penalty that gives it; weaker ones are tried until it rises."""
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    folds = order.chunk(N_FOLDS)
    splits = [(torch.cat([*folds[:k], *folds[k + 1 :]]), held_out) for k, held_out in enumerate(folds)]
    parts = [[(bags.index_select(0, i), classes[i]) for i in split] for split in splits]
    best = math.inf, PENALTIES[0]
    for penalty in PENALTIES:
        loss_sum = 0.0
        for train, (held_out, expected) in parts:
            weights, bias = logistic_regression(*train, class_weights=class_weights, penalty=penalty)
            logits = torch.sparse.mm(held_out, weights) + bias  # (N, C)
            loss_sum += F.cross_entropy(logits, expected, weight=class_weights, reduction="sum").item()
        loss = loss_sum / class_weights[classes].sum().item()
        if loss > best[0]:
            break
        best = loss, penalty
    return best
