"""The judge that needs nothing: answers scored by their words beside the reference's."""

from __future__ import annotations

from collections.abc import Callable

from scratchlm.evaluation.judging.grading import Grade
from scratchlm.evaluation.judging.items import Item
from scratchlm.evaluation.text_scores import exact_match, token_f1

OFFLINE = "offline"
MAIN_FIGURE = (
    "token_f1"  # the score is 100 times this one: an answer that is partly right gets part of the points
)
FIGURES: dict[str, Callable[[str, str], float]] = {
    "exact_match": lambda answer, reference: float(exact_match(answer, reference)),
    "token_f1": token_f1,
}


class OfflineGrader:
    """Grades by overlap of words. The score, 0 to 100, is the token F1; the other figures stand beside it."""

    def grade(self, item: Item, *, ask_if_empty: bool = False) -> Grade:
        """The item's grade; an empty answer scores 0 in every figure."""
        figures = tuple(
            (name, float(score(item.answer, item.reference))) if item.answer.strip() else (name, 0.0)
            for name, score in FIGURES.items()
        )
        is_empty = item.is_empty and not ask_if_empty
        return Grade(
            status="empty" if is_empty else "scored", score=100 * dict(figures)[MAIN_FIGURE], figures=figures
        )
