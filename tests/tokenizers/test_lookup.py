"""Ids of any library, and ids that do not exist."""

import numpy as np
import pytest

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.lookup import look_up

TABLE = {0: "a", 1: "b"}


class Index:
    """Stands for a whole number of another library, such as a torch scalar: it has an index only."""

    def __index__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "ids", [[0, 1], (0, 1), iter([0, 1]), np.array([0, 1], dtype=np.uint16), [0, Index()]]
)
def test_whole_numbers_of_any_library_are_ids(ids):
    assert look_up(TABLE, ids) == ["a", "b"]


@pytest.mark.parametrize("bad", [2, -1, 10**30, "1", None, [0]])
def test_an_id_that_stands_for_nothing_is_named_with_its_position(bad):
    with pytest.raises(TokenizerError, match=r"from 0 to 1, found .* at position 1"):
        look_up(TABLE, [0, bad])
