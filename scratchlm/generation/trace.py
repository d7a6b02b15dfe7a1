"""Record how each token was chosen: its candidates, and what each step of the chain removed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.token_bytes import text_of_token

N_CANDIDATES = 20  # candidates that a step of the trace lists


@dataclass
class RowTrace:
    """The steps of one text as plain data, which `json.dumps` can write.

    A step has `candidates` (the most likely tokens with `prob`, the model's own probability, and `chosen_with`, the one
    after the chain), `entropy` and `entropy_after` (nats), `removed` (for each step of the chain that excluded tokens
    their number, their total probability, and those among the candidates), and the chosen `id`.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    n_candidates: int = N_CANDIDATES

    def begin(self, scores: Tensor) -> None:
        """Note the model's scores. Shapes: (V,)."""
        self._probs = scores.softmax(dim=-1)  # (V,)
        self._scores = scores
        self._removed: list[dict[str, Any]] = []
        self._top = self._probs.topk(min(self.n_candidates, len(scores))).indices

    def after(self, name: str, scores: Tensor) -> None:
        """Note the scores after a step of the chain. Shapes: (V,)."""
        is_removed = self._scores.isfinite() & scores.isneginf()  # (V,)
        n_removed = int(is_removed.sum())
        if n_removed:
            self._removed.append(
                {
                    "step": name,
                    "n": n_removed,
                    "prob": float(self._probs[is_removed].sum()),
                    "ids": self._top[is_removed[self._top]].tolist(),
                }
            )
        self._scores = scores

    def chose(self, token_id: int) -> None:
        """End the step with its chosen token."""
        after = self._scores.softmax(dim=-1)  # (V,)
        shown = self._top if token_id in self._top else torch.cat([self._top, torch.tensor([token_id])])
        self.steps.append(
            {
                "id": token_id,
                "entropy": entropy(self._probs),
                "entropy_after": entropy(after),
                "candidates": [
                    {"id": i, "prob": float(self._probs[i]), "chosen_with": float(after[i])}
                    for i in shown.tolist()
                ],
                "removed": self._removed,
            }
        )


def entropy(probs: Tensor) -> float:
    """Entropy of a distribution: 0 when one token is certain, log V when all are equally likely.

    Shapes: probs (V,). Units: nats.
    """
    return float(torch.special.entr(probs).sum())


def with_texts(steps: Sequence[dict[str, Any]], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Steps of a trace with the `text` of each token and of each candidate."""
    return [
        {
            "text": text_of_token(tokenizer, step["id"]),
            **step,
            "candidates": [{"text": text_of_token(tokenizer, c["id"]), **c} for c in step["candidates"]],
        }
        for step in steps
    ]
