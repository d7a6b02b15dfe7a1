"""The judge that needs nothing: answers scored by their words beside the reference's."""

from __future__ import annotations

from collections.abc import Callable

from scratchlm.evaluation.judge.grading import Grade
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.text_scores import edit_distance, exact_match, rouge_l, token_f1

OFFLINE = "offline"
MAIN_FIGURE = "token_f1"  # the score is 100 times this: what is partly right gets part of the points
FIGURES: dict[str, Callable[[str, str], float]] = {
    "exact_match": lambda answer, reference: float(exact_match(answer, reference)),
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "edit_distance": edit_distance,  # 0 is the same text, 1 another one; all others the other way round
}
OF_NOTHING = dict.fromkeys(FIGURES, 0.0) | {"edit_distance": 1.0}  # an empty answer's


class OfflineGrader:
    """Grades by overlap of words. The score, 0 to 100, is the token F1; the other figures stand beside it."""

    def grade(self, item: Item, *, ask_if_empty: bool = False) -> Grade:
        """The item's grade; an empty answer has the worst of every figure."""
        figures = OF_NOTHING
        if item.answer.strip():
            figures = {name: score(item.answer, item.reference) for name, score in FIGURES.items()}
        is_empty = item.is_empty and not ask_if_empty
        return Grade(
            status="empty" if is_empty else "scored",
            score=100 * figures[MAIN_FIGURE],
            figures=tuple(figures.items()),
        )
