"""The input format of a classifier: maximum length, padding, and the position that the head reads."""

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
class InputFormat:
    """The input format of a classifier, the same in training and prediction; saved in `task.json`.

    With a width, every text is padded to it with end-of-text tokens that the model treats as text, as in the book;
    without one, padding is masked. The last real token can be found only where padding is masked.
    Units: max_length and width are tokens.
    """

    max_length: int  # longer texts are truncated
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
        """Encode texts and labels.

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
        """The fields of `task.json`; defaults are left out."""
        task: dict[str, Any] = {"max_length": self.max_length}
        if self.position != "last-real":
            task["position"] = self.position
        if self.width is not None:
            task["width"] = self.width
        return task

    @classmethod
    def from_task(cls, task: Mapping[str, Any]) -> InputFormat:
        """Read the format from a classifier's `task.json`.

        Raises: CheckpointError for values that no classifier of ours has.
        """
        max_length, width = task.get("max_length"), task.get("width")
        position = task.get("position", "last-real")
        if (
            not isinstance(max_length, int)
            or position not in get_args(Position)
            or not isinstance(width, (int, type(None)))
        ):
            raise CheckpointError(
                f"a classifier's task needs valid values of max_length, position and width, got {dict(task)}; save "
                "the model again."
            )
        return cls(max_length=max_length, position=position, width=width)

    @classmethod
    def from_settings(
        cls,
        lengths: Sequence[int],
        *,
        context_length: int,
        pad: Padding | int = "none",
        position: Position = "last-real",
        max_length: int | None = None,
    ) -> InputFormat:
        """Choose the format for training texts of these lengths (in tokens).

        `longest` pads to the longest training text, `model` to the model's context length, a number to that width.
        Raises: ConfigError for a width below 1 or beyond the context length.
        """
        limit = context_length if max_length is None else min(max_length, context_length)
        if pad == "none":
            return cls(max_length=limit, position=position)
        if isinstance(pad, int) and not 1 <= pad <= context_length:
            raise ConfigError(
                f"pad must be none, longest, model, or 1 to {context_length} tokens (the model's context length), "
                f"got {pad}; choose one."
            )
        width = pad if isinstance(pad, int) else min(max(lengths), limit) if pad == "longest" else limit
        return cls(max_length=min(limit, width), position=position, width=width)
