import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.data.augmentation import QUESTIONS, REQUESTS, augment
from scratchlm.data.instruction_rows import Instruction

ENTRIES = [
    Instruction(instruction="Name the opposite.", input="hot", output="cold"),
    Instruction(instruction="What is the capital of France?", input="", output="Paris."),
]


def test_copies_follow_the_entries_and_keep_input_and_answer():
    found = augment(ENTRIES, 3, seed=5)
    assert found[:2] == ENTRIES
    assert len(found) == 8
    assert [(e.input, e.output) for e in found[2:]] == [("hot", "cold")] * 3 + [("", "Paris.")] * 3
    assert len({e.instruction for e in found}) == 8
    assert all(e.instruction.endswith("ame the opposite.") for e in found[2:5])
    assert all(e.instruction.endswith("What is the capital of France?") for e in found[5:])


def test_seed_and_texts_decide_and_nothing_else():
    assert augment(ENTRIES, 2, seed=1) == augment(ENTRIES, 2, seed=1)
    assert augment(ENTRIES, 2, seed=1)[2:4] == augment(ENTRIES[:1], 2, seed=1)[1:]
    assert len({tuple(augment(ENTRIES, 2, seed=seed)) for seed in range(10)}) > 5


def test_none_is_none_and_too_many_are_refused():
    assert augment(ENTRIES, 0, seed=1) == ENTRIES
    assert len(augment(ENTRIES, len(REQUESTS), seed=1)) == 2 + 2 * len(REQUESTS)
    for n_copies in (-1, 1 + min(len(REQUESTS), len(QUESTIONS))):
        with pytest.raises(ConfigError, match="must be between 0 and 8 copies"):
            augment(ENTRIES, n_copies, seed=1)
