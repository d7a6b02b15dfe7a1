"""Split labelled texts into training, validation and test, keeping near-duplicates together.

Every decision depends on a hash of the text and a seed, so it does not change with the Python version, the
order of the rows, or rows that are added later. `book_split` is the book's own split, which ignores
duplicates.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.order import sample_order

Indices = NDArray[np.int64]
TRAIN_SHARE, VAL_SHARE = 0.7, 0.1  # as in the book; the rest is for the test


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSplit:
    """Row numbers for training, validation and test, and the number of dropped rows by reason."""

    train: Indices
    val: Indices
    test: Indices
    left_out: dict[str, int] = field(default_factory=dict)


DUPLICATES, BALANCE = "near-duplicates of another held-out text", "balancing the classes"  # reasons


def leak_free_split(
    texts: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    seed: int = 123,
    is_balanced: bool = False,
) -> LabelSplit:
    """Assign whole groups to the parts; of a group for validation or test, keep only the first text.

    So the test texts differ from each other and from all training texts. is_balanced keeps as many validation and
    test texts of each class as the smallest class has. Dropped rows are counted.
    Raises: DataError when a part lacks a class.
    """
    whole = split_by_group(groups, labels, seed=seed)
    val, test = (_one_per_group(side.tolist(), texts, labels, groups) for side in (whole.val, whole.test))
    n_held_out = len(whole.val) + len(whole.test)
    left_out = {DUPLICATES: n_held_out - len(val) - len(test)}
    for name, side in (("val", val), ("test", test)):
        _check_classes(labels, side, name, n_groups=len(set(groups)))
    if is_balanced:
        n_distinct = len(val) + len(test)
        val, test = (balance(labels, side, seed=seed, keys=texts) for side in (val, test))
        left_out[BALANCE] = n_distinct - len(val) - len(test)
    return LabelSplit(train=whole.train, val=val, test=test, left_out=left_out)


def describe_split(split: LabelSplit) -> str:
    """Describe the sizes of the parts and the number of dropped rows in a sentence."""
    reasons = [f"{n:,} for {reason}" for reason, n in split.left_out.items() if n]
    n_left_out = sum(split.left_out.values())
    why = f" ({', '.join(reasons)})" if reasons else ""
    sides = f"{len(split.train):,} train, {len(split.val):,} validate, {len(split.test):,} test"
    return f"{sides}, {n_left_out:,} left out{why}"


def split_figures(split: LabelSplit) -> dict[str, Any]:
    """The sizes of the parts, the number of dropped rows by reason, and the description, for `--json`."""
    sizes = {f"{name}_n": len(getattr(split, name)) for name in ("train", "val", "test")}
    return {**sizes, "left_out": dict(split.left_out), "split": describe_split(split)}


def _one_per_group(
    indices: Sequence[int], texts: Sequence[str], labels: Sequence[str], groups: Sequence[str]
) -> Indices:
    first: dict[str, int] = {}
    for i in sorted(indices, key=lambda i: (texts[i], labels[i])):  # independent of row order
        first.setdefault(groups[i], int(i))
    return np.array(sorted(first.values()), dtype=np.int64)


def _check_classes(labels: Sequence[str], indices: Indices, name: str, *, n_groups: int) -> None:
    missing = sorted(set(labels) - {labels[int(i)] for i in indices})
    if missing:
        raise DataError(
            f"the split has no rows of class {missing[0]!r} in {name} "
            f"({len(indices)} rows, {n_groups} groups in all); give more data of that class, or another seed"
            " (--split-seed)."
        )


def split_by_group(groups: Sequence[str], labels: Sequence[str], *, seed: int = 123) -> LabelSplit:
    """Assign every whole group to one part, by a hash of its name and the seed.

    The parts' sizes are near 70, 10 and 20 %, not equal to them, so that groups stay in their part when rows are
    added. If a part has no group of a class, the class's group nearest to that part moves there. `groups` are the
    names from `group_near_duplicates`.
    Raises: DataError when a class has too few groups for three parts.
    """
    if len(groups) != len(labels):
        raise DataError(
            f"each row needs a group and a label, got {len(groups)} groups and {len(labels)} labels."
        )
    part_of = _parts_of_groups(groups, labels, seed)
    parts = np.array([part_of[group] for group in groups])
    train, val, test = (np.flatnonzero(parts == part) for part in range(3))
    for name, indices in (("train", train), ("val", val), ("test", test)):
        _check_classes(labels, indices, name, n_groups=len(set(groups)))
    return LabelSplit(train=train, val=val, test=test)


def _parts_of_groups(groups: Sequence[str], labels: Sequence[str], seed: int) -> dict[str, int]:
    """The part (0, 1 or 2) of each group: by its hash, or moved to a part that lacks its class."""
    bounds = (0.0, TRAIN_SHARE, TRAIN_SHARE + VAL_SHARE, 1.0)
    place_of = {group: hash_place(group, seed) for group in set(groups)}
    part_of = {
        group: min(2, sum(place >= bound for bound in bounds[1:3])) for group, place in place_of.items()
    }
    groups_of: dict[str, set[str]] = {}
    for group, label in zip(groups, labels):
        groups_of.setdefault(label, set()).add(group)
    for _, own in sorted(groups_of.items()):
        for part in range(3):
            counts = Counter(part_of[group] for group in own)
            if counts[part]:
                continue
            spare = [group for group in own if counts[part_of[group]] > 1]
            low, high = bounds[part], bounds[part + 1]
            distances = [(max(low - place_of[g], place_of[g] - high, 0.0), g) for g in spare]
            if distances:
                part_of[min(distances)[1]] = part
    return part_of


def balance(
    labels: Sequence[str],
    indices: Sequence[int] | Indices,
    *,
    seed: int = 123,
    keys: Sequence[str] | None = None,
) -> Indices:
    """Keep as many rows of each class as the smallest class has among `indices`, in their order.

    A hash of the key (best: the text) and the seed decides which rows of a larger class stay; without keys the row
    number is hashed, and then adding rows may change the choice.
    Raises: DataError when a class has no row among the indices.
    """
    indices = np.asarray(indices, dtype=np.int64)
    counts = class_counts(labels, indices)
    missing = sorted(set(labels) - counts.keys())
    if missing or not counts:
        of_class = f" of class {missing[0]!r}" if missing else ""
        raise DataError(f"there are no rows{of_class} to balance; give more data.")
    n_each = min(counts.values())
    by_hash = sorted(indices, key=lambda i: (hash_place(keys[i] if keys is not None else str(i), seed), i))
    taken: Counter[str] = Counter()
    kept = []
    for i in by_hash:
        taken[labels[i]] += 1
        if taken[labels[i]] <= n_each:
            kept.append(i)
    keep = set(kept)
    return np.array([i for i in indices if i in keep], dtype=np.int64)


def repeat_to_balance(labels: Sequence[str], indices: Sequence[int] | Indices) -> Indices:
    """Repeat the rows of smaller classes in turn until every class has as many rows as the largest.

    Raises: DataError for no rows.
    """
    indices = np.asarray(indices, dtype=np.int64)
    counts = class_counts(labels, indices)
    if not counts:
        raise DataError("there are no rows to balance; give more data.")
    most = max(counts.values())
    repeated = [
        np.resize(np.array([i for i in indices if labels[i] == label], dtype=np.int64), most)
        for label in counts
    ]
    return np.sort(np.concatenate(repeated), kind="stable")


def share_of(
    labels: Sequence[str],
    indices: Sequence[int] | Indices,
    share: float,
    *,
    seed: int = 123,
    keys: Sequence[str],
) -> Indices:
    """Choose a share of each class's rows, at least one; a larger share includes the rows of a smaller one.

    Raises: ConfigError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ConfigError(f"a share of the rows must be above 0 and at most 1, got {share}.")
    indices = np.asarray(indices, dtype=np.int64)
    kept = []
    for label in class_counts(labels, indices):
        rows = sorted(
            (i for i in indices if labels[i] == label), key=lambda i: (hash_place(keys[i], seed), i)
        )
        kept += rows[: max(1, round(share * len(rows)))]
    return np.array(sorted(kept), dtype=np.int64)


def split_fingerprint(texts: Sequence[str], labels: Sequence[str], split: LabelSplit) -> str:
    """Hash which labelled texts are in which part, independent of the order of the rows."""
    lines = sorted(
        f"{name}\t{labels[i]}\t{texts[i]}"
        for name, rows in (("train", split.train), ("val", split.val), ("test", split.test))
        for i in rows
    )
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def class_counts(labels: Sequence[str], indices: Sequence[int] | Indices | None = None) -> dict[str, int]:
    """The number of rows of each class, in alphabetical order."""
    chosen: Any = range(len(labels)) if indices is None else indices
    return dict(sorted(Counter(labels[i] for i in chosen).items()))


def hash_place(key: str, seed: int) -> float:
    """A number in [0, 1) that depends only on key and seed."""
    return share_of_digest(hashlib.sha256(f"{seed} {key}".encode("utf-8", "surrogatepass")).digest())


def share_of_digest(digest: bytes) -> float:
    """The first 53 bits of a digest as a number in [0, 1)."""
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def book_split(labels: Sequence[str], *, seed: int = 123) -> LabelSplit:
    """Balance the classes, shuffle the rows and split them in three, ignoring duplicates.

    Copies of a message can be in two parts, so this is only for comparison with the book's accuracies. The
    sizes are the book's (1,494 SMS rows give 1,045, 149 and 300); the rows are not, since the book draws them
    with pandas.
    Source: the book's create_balanced_dataset and random_split, chapter 6.
    """
    balanced = balance(labels, range(len(labels)), seed=seed)
    shuffled = balanced[sample_order(len(balanced), seed=seed, epoch=0)]
    train_end = int(len(shuffled) * TRAIN_SHARE)
    val_end = train_end + int(len(shuffled) * VAL_SHARE)
    return LabelSplit(train=shuffled[:train_end], val=shuffled[train_end:val_end], test=shuffled[val_end:])
