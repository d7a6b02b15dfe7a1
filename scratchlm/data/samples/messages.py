"""Text messages, spam and ham, for a model to learn to tell apart."""

from __future__ import annotations

from scratchlm.data.classification import LabelledText
from scratchlm.data.samples.message_texts import labelled_messages


def sample_messages(*, seed: int = 0) -> list[LabelledText]:
    """2,600 messages in random order, 1,000 of them spam; labels are `spam` and `ham`; see `SAMPLE_NOTICE`.

    No text comes twice; a few differ only in digits, case or punctuation, as in real collections.
    Example:
        >>> sample_messages(seed=0) == sample_messages(seed=0)
        True
    """
    return [LabelledText(text=text, label=label) for text, label in labelled_messages(seed)]
