"""Generate instructions for two dozen skills that a small model can learn in a minute or two, for training and test.

Two kinds of test entries are held out from training. `entry`: this exact question is new. For a rule
(sorting, rewriting, reading) its argument is new in every wording; a fact (the opposite of big, what a cow
eats) occurs in training in another wording, since it cannot be inferred. `word`: the word itself, or the pair
of name and place, never occurs in that skill's training, so only the rule gives the answer.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.samples import skills_reading, skills_sentences, skills_words, skills_world
from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.skill import Exercise

HeldOut = Literal["entry", "word"]


def _by_name(
    *skills: Callable[[Dice], Iterator[Exercise]],
) -> dict[str, Callable[[Dice], Iterator[Exercise]]]:
    return {skill.__name__: skill for skill in skills}


SKILLS: dict[str, Callable[[Dice], Iterator[Exercise]]] = {
    **_by_name(
        skills_words.opposite, skills_words.plural, skills_words.past_tense, skills_words.a_or_an,
        skills_words.sort_words, skills_words.next_in_list, skills_words.category, skills_words.compare_sizes,
    ),
    **skills_world.FACT_SKILLS,
    **_by_name(
        skills_world.colour, skills_world.true_or_not,
        skills_sentences.make_question, skills_sentences.make_negative, skills_sentences.make_polite,
        skills_sentences.he_to_she, skills_sentences.capital_letter, skills_sentences.first_word,
        skills_sentences.last_word, skills_sentences.count_words,
        skills_reading.where_to, skills_reading.who_went, skills_reading.what_wanted,
        skills_reading.what_colour, skills_reading.yes_or_no,
    ),
}  # fmt: skip
HELD_OUT_PERCENT = 15  # of words, and of arguments or wordings
# entries per skill; all facts are trained on, since a missing one cannot be inferred
MAX_TRAIN, MAX_TEST = (140, 24)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleInstructions:
    """Training entries, test entries, and the way in which each test entry is new (in the same order)."""

    train: list[Instruction]
    test: list[Instruction]
    held_out: list[HeldOut]


def sample_instructions(*, seed: int = 0) -> SampleInstructions:
    """Instructions for training and test, both in random order; see `SAMPLE_NOTICE`.

    Example:
        >>> sample = sample_instructions(seed=0)
        >>> len(sample.test) == len(sample.held_out), len({entry.skill for entry in sample.test})
        (True, 27)
    """
    train: list[Instruction] = []
    test: list[tuple[Instruction, HeldOut]] = []
    for skill, exercises in SKILLS.items():
        dice = Dice(seed, "instructions", skill)
        practice, exam = _split(skill, _distinct(exercises(dice)), seed)
        train += [_entry(skill, exercise) for exercise in _pick_training(practice, dice)]
        for held_out, found in exam.items():
            chosen = dice.shuffled(found)[: MAX_TEST // 2 if len(exam) == 2 else MAX_TEST]
            test += [(_entry(skill, exercise), held_out) for exercise in chosen]
    dice = Dice(seed, "instructions")
    test = dice.shuffled(test)
    return SampleInstructions(
        train=dice.shuffled(train),
        test=[entry for entry, _ in test],
        held_out=[held_out for _, held_out in test],
    )


def _entry(skill: str, exercise: Exercise) -> Instruction:
    return Instruction(
        instruction=exercise.instruction, input=exercise.input, output=exercise.output, skill=skill
    )


def _distinct(exercises: Iterator[Exercise]) -> list[Exercise]:
    """The exercises without repeated questions."""
    return list({(exercise.instruction, exercise.input): exercise for exercise in exercises}.values())


def _split(
    skill: str, exercises: list[Exercise], seed: int
) -> tuple[list[Exercise], dict[HeldOut, list[Exercise]]]:
    """Training exercises, and test exercises grouped by the way in which they are new."""
    practice: list[Exercise] = []
    exam: dict[HeldOut, list[Exercise]] = defaultdict(list)
    wordings_left = Counter(exercise.argument for exercise in exercises)
    for exercise in exercises:
        if exercise.keep_out and _is_held_out(f"{seed} {skill} word {exercise.keep_out}"):
            exam["word"].append(exercise)
        elif not exercise.is_fact and _is_held_out(f"{seed} {skill} {exercise.argument}"):
            exam["entry"].append(exercise)
        elif (
            exercise.is_fact
            and wordings_left[exercise.argument] >= 3
            and _is_held_out(f"{seed} {skill} {exercise.instruction} {exercise.input}")
        ):
            wordings_left[exercise.argument] = 0  # test one wording of a fact; the others are trained on
            exam["entry"].append(exercise)
        else:
            practice.append(exercise)
    return practice, exam


def _is_held_out(name: str) -> bool:
    digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT


def _pick_training(practice: list[Exercise], dice: Dice) -> list[Exercise]:
    """All facts, and other exercises up to the maximum per skill."""
    facts = [exercise for exercise in practice if exercise.is_fact]
    rest = [exercise for exercise in practice if not exercise.is_fact]
    return facts + dice.shuffled(rest)[: max(MAX_TRAIN - len(facts), MAX_TRAIN // 2)]
