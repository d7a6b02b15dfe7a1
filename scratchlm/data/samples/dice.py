"""Draw random choices that are the same on every Python version, so that sample data has a fixed sha256.

`random.Random` guarantees only that `random()` stays the same between Python versions; `choice`, `sample` and
`shuffle` may change. `Dice` is the splitmix64 generator, with integers only.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

_MASK = (1 << 64) - 1


class Dice:
    """A stream of random choices that depends only on its seeds.

    Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators" (splitmix64).
    Example:
        >>> Dice(0, "stories").pick("abcdef") == Dice(0, "stories").pick("abcdef")
        True
    """

    def __init__(self, *seeds: int | str) -> None:
        name = "/".join(str(seed) for seed in seeds)
        self._state = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        bits = self._state
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((bits ^ (bits >> 31)) * n) >> 64

    def chance(self, percent: int) -> bool:
        """True with this probability in percent."""
        return self.below(100) < percent

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[Item], n: int) -> list[Item]:
        """n items from different positions, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(n)]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All items in random order, as a new list."""
        return self.sample(items, len(items))
