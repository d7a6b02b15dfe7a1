"""Nearest tokens in embedding space: tokens that the model treats alike have similar vectors."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from scratchlm.model.gpt import GPTModel

ROWS_AT_ONCE = 8192  # of the embedding matrix; bounds memory for large vocabularies


def nearest_tokens(model: GPTModel, ids: Sequence[int], *, n: int = 5) -> list[list[tuple[int, float]]]:
    """The n tokens whose embeddings have the highest cosine similarity to each token's, best first.

    Shapes: N ids -> N lists of (id, similarity); the token itself is left out.
    """
    device = next(model.parameters()).device
    wanted = torch.tensor(list(ids), device=device)  # (N,)
    n = min(n, model.config.vocab_size - 1)
    with torch.no_grad():
        queries = F.normalize(model.tok_emb(wanted), dim=-1)  # (N, E)
        parts = torch.split(torch.arange(model.config.vocab_size, device=device), ROWS_AT_ONCE)
        rows = [queries @ F.normalize(model.tok_emb(some), dim=-1).T for some in parts]
        similarity = torch.cat(rows, dim=1)  # (N, V)
    best = similarity.scatter(1, wanted[:, None], -torch.inf).topk(n, dim=1)
    return [
        list(zip(*row, strict=True)) for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
