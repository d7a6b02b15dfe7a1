"""The SMS Spam Collection as the book uses it: ham cut down to spam's number, then shuffled and cut 70/10/20.

That split puts copies of a message on both sides; `label_split.split_by_group` is the one that does not. This
one is kept for comparison with the book's accuracies.
"""

from __future__ import annotations

from collections.abc import Sequence

from scratchlm.data.label_split import LabelSplit, balance, check_fractions
from scratchlm.data.loaders import sample_order

SMS_SPAM_ASSET = "sms_spam_collection/SMSSpamCollection"
SMS_SPAM_ROWS = 5574  # 4,827 ham and 747 spam, quoting off; UCI data set 228
SMS_SPAM_CLASSES = ("ham", "spam")


def book_split(
    labels: Sequence[str], *, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 123
) -> LabelSplit:
    """Balance the classes, shuffle the rows and cut them in three, without a look at duplicates.

    The sizes are the book's (1,494 SMS rows give 1,045, 149 and 300); the rows are not, since pandas drew its
    own.
    Raises: ConfigError for fractions that are no split.
    Source: the book's create_balanced_dataset and random_split, chapter 6.
    """
    check_fractions(fractions)
    balanced = balance(labels, range(len(labels)), seed=seed)
    shuffled = balanced[sample_order(len(balanced), seed=seed, epoch=0)]
    train_end = int(len(shuffled) * fractions[0])
    val_end = train_end + int(len(shuffled) * fractions[1])
    return LabelSplit(train=shuffled[:train_end], val=shuffled[train_end:val_end], test=shuffled[val_end:])
