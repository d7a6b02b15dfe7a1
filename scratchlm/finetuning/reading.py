"""How a classifier reads a text: how much of it, padded how, and judged at which token. Saved with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.classification_batches import ClassificationExamples
from scratchlm.finetuning.heads import Position

Padding = Literal["none", "longest", "model"]


@dataclass(frozen=True, kw_only=True)
class TextReading:
    """What training and prediction must do alike.

    With a width, every text is padded to it with end-of-text tokens and the model takes them for text, as in
    the book; without one, padding is hidden. The last real token can be found only where padding is hidden.
    Units: max_length and width are tokens.
    """

    max_length: int  # longer texts are cut
    position: Position = "last-real"
    width: int | None = None

    def examples(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        tokenizer: Tokenizer,
        classes: Sequence[str],
        *,
        ignore_index: int = IGNORE_INDEX,
    ) -> ClassificationExamples:
        """Texts and labels as rows of ids.

        Raises: DataError for an empty text or an unknown label.
        """
        return ClassificationExamples.from_texts(
            texts,
            labels,
            tokenizer,
            max_length=self.max_length,
            classes=classes,
            pad_to=self.width,
            hides_padding=self.width is None or self.position == "last-real",
            ignore_index=ignore_index,
        )

    def to_task(self) -> dict[str, Any]:
        """Its part of `task.json`; what is as usual is left out."""
        task: dict[str, Any] = {"max_length": self.max_length}
        if self.position != "last-real":
            task["position"] = self.position
        if self.width is not None:
            task["width"] = self.width
        return task

    @classmethod
    def from_task(cls, task: Mapping[str, Any]) -> TextReading:
        """From a classifier's `task.json`.

        Raises: CheckpointError for values that no classifier of ours has.
        """
        position, width = task.get("position", "last-real"), task.get("width")
        if (
            not isinstance(task.get("max_length"), int)
            or position not in get_args(Position)
            or not isinstance(width, (int, type(None)))
        ):
            raise CheckpointError(
                f"a classifier's task must name max_length, position and width, found {dict(task)}; save it again."
            )
        return cls(max_length=task["max_length"], position=position, width=width)


def plan_reading(
    lengths: Sequence[int],
    *,
    context_length: int,
    pad: Padding | int = "none",
    position: Position = "last-real",
    max_length: int | None = None,
) -> TextReading:
    """The reading for texts of these lengths (in tokens), as the settings ask.

    `longest` is the width of the longest training text, `model` that of the model's context.
    Raises: ConfigError for a width beyond the model's context, or below 1.
    """
    limit = context_length if max_length is None else min(max_length, context_length)
    if pad == "none":
        return TextReading(max_length=limit, position=position)
    if isinstance(pad, int) and not 1 <= pad <= context_length:
        raise ConfigError(
            f"pad must be longest, model, none or 1 to {context_length} tokens, as many as the model reads, "
            f"got {pad}; choose one."
        )
    widths = {"longest": min(max(lengths), limit), "model": limit}
    width = pad if isinstance(pad, int) else widths[pad]
    return TextReading(max_length=min(limit, width), position=position, width=width)
