"""Texts generated in batches are the same as alone, and in the order of the prompts."""

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids, generate_texts

CONFIG = GenerationConfig(max_new_tokens=4)


def test_each_prompt_gets_what_it_gets_alone_in_its_place(tiny_model):
    prompts = [[1, 2, 3, 4, 5], [6], [7, 8], [9, 1, 2], [3]]
    tokenizer = Spelling()
    alone = [generate_ids(tiny_model, [ids], CONFIG, tokenizer=tokenizer)[0].text for ids in prompts]
    seen = []
    for size in (1, 2, 5):
        found = generate_texts(
            tiny_model, prompts, CONFIG, tokenizer=tokenizer, batch_size=size,
            progress=lambda done, total: seen.append((done, total)),
        )  # fmt: skip
        assert list(found) == alone
    assert seen == [(n, 5) for _ in range(3) for n in (1, 2, 3, 4, 5)]


def test_a_text_is_there_before_later_ones_are_finished(tiny_model):
    n_finished = []
    texts = generate_texts(
        tiny_model, [[1], [2], [3], [4]], CONFIG, tokenizer=Spelling(), batch_size=1,
        progress=lambda done, total: n_finished.append(done),
    )  # fmt: skip
    next(texts)
    assert n_finished == [1]
    texts.close()  # the others are not asked for


def test_no_prompts_give_no_texts_and_a_batch_size_of_zero_is_an_error(tiny_model):
    assert list(generate_texts(tiny_model, [], CONFIG, tokenizer=Spelling(), batch_size=3)) == []
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        next(generate_texts(tiny_model, [[1]], CONFIG, tokenizer=Spelling(), batch_size=0))


class Spelling:
    """Ids as words, so that every difference shows."""

    end_of_text_id = None
    vocab_size = 61

    def decode(self, ids):
        return "".join(f" {token}" for token in ids)
