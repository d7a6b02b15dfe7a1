"""Scores of tasks: right by construction, right against sums by hand."""

import math
from decimal import Decimal

import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.evaluation.likelihood import continuation_likelihoods, encode_pair
from scratchlm.evaluation.task_items import ChoiceItem, ClozeItem, GenerationItem
from scratchlm.evaluation.tasks import score_choices, score_cloze, score_generation
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers.word import WordTokenizer

CONTEXTS = [
    "The cat sat",
    "the dog and",
    "on the log.",
    "The mat",
    "sat on the mat and the dog sat on the log",
]
CHOICES = ("on", "the mat and the dog", "été", "log. The cat")


@pytest.fixture(scope="module")
def model(tiny_tokenizer):
    torch.manual_seed(3)
    size = {"context_length": 40, "emb_dim": 32, "n_heads": 2, "n_layers": 2}
    return GPTModel(GPTConfig(vocab_size=tiny_tokenizer.vocab_size, **size)).eval()


def log_prob(model, tokenizer, context, continuation):
    return continuation_likelihoods(model, [encode_pair(tokenizer, context, continuation)])[0].log_prob


def test_choices_are_scored_whole_per_character_and_per_byte(model, tiny_tokenizer):
    items = [
        ChoiceItem(context=context, delimiter=" ", choices=CHOICES, answer=i % 4, origin=f"{i}")
        for i, context in enumerate(CONTEXTS)
    ]
    result = score_choices(model, tiny_tokenizer, items, batch_size=3)
    rights = {"accuracy": 0, "accuracy_characters": 0, "accuracy_bytes": 0}
    for item in items:
        scores = [log_prob(model, tiny_tokenizer, item.context, f" {choice}") for choice in CHOICES]
        sizes = {
            "accuracy": [1] * 4,
            "accuracy_characters": [len(choice) for choice in CHOICES],
            "accuracy_bytes": [len(choice.encode()) for choice in CHOICES],
        }
        for name, lengths in sizes.items():
            per_unit = [score / length for score, length in zip(scores, lengths)]
            rights[name] += per_unit.index(max(per_unit)) == item.answer
    assert result.rights == rights
    assert (result.n, result.chance, result.n_cropped) == (5, 0.25, 0)
    low, high = result.interval()
    assert low <= result.share() <= high


def test_blind_guessing_depends_on_how_many_choices_each_question_has(model, tiny_tokenizer):
    items = [ChoiceItem(context="a", delimiter=" ", choices=CHOICES[:n], answer=0, origin="") for n in (2, 4)]
    assert score_choices(model, tiny_tokenizer, items).chance == pytest.approx(3 / 8)


def test_the_perplexity_of_a_cloze_task_is_per_word(model, tiny_tokenizer):
    items = [ClozeItem(context=context, target=" doggy", origin="") for context in CONTEXTS * 2]
    result = score_cloze(model, tiny_tokenizer, items)
    losses = [-log_prob(model, tiny_tokenizer, context, " doggy") for context in CONTEXTS]
    assert result.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)))
    low, high = result.perplexity_interval
    assert low <= result.perplexity <= high


def written_by(model, tokenizer, prompt, n):
    config = GenerationConfig(max_new_tokens=n)
    return generate_ids(model, [tokenizer.encode(prompt)], config, tokenizer=tokenizer)[0]


def test_the_word_that_the_model_writes_itself_is_right(model, tiny_tokenizer):
    items, n_greedy = [], 0
    for context in CONTEXTS:
        for n in (1, 2, 3):
            text = written_by(model, tiny_tokenizer, context, n).text
            pair = encode_pair(tiny_tokenizer, context, text)
            own = tuple(written_by(model, tiny_tokenizer, context, len(pair.continuation)).ids)
            n_greedy += own == pair.continuation
            items.append(ClozeItem(context=context, target=text, origin=""))
    assert n_greedy > 0
    assert score_cloze(model, tiny_tokenizer, items).rights["accuracy"] == n_greedy


def test_a_generated_answer_must_be_exact_or_exact_after_folding(model, tiny_tokenizer):
    prompt = "The cat"
    text = written_by(model, tiny_tokenizer, prompt, 8).text
    answers = [(text,), (f"  {text}\n",), (f"{text.swapcase()}",), ("something else",), ("no", text)]
    items = [GenerationItem(prompt=prompt, answers=answer, origin="") for answer in answers]
    result = score_generation(model, tiny_tokenizer, items, max_new_tokens=8, stop_texts=(), batch_size=2)
    assert [row["right"] for row in result.items] == [True, True, False, False, True]
    assert result.rights == {"accuracy": 3, "accuracy_folded": 4}


def test_where_a_number_is_asked_for_only_the_final_one_is_compared(model, tiny_tokenizer, monkeypatch):
    written = ["6 and 66 make 72.\n#### 72", "so 72.00 of them", "#### 72 or 73", "73", ""]
    asked = {}

    def generate_texts(model, prompts, config, **settings):
        asked["config"] = config
        return written[: len(prompts)]

    monkeypatch.setattr("scratchlm.evaluation.tasks.generate_texts", generate_texts)
    item = GenerationItem(prompt="The cat", answers=("#### 72",), origin="", number=Decimal(72))
    result = score_generation(model, tiny_tokenizer, [item] * 5)
    assert [row["right"] for row in result.items] == [True, True, False, False, False]
    assert result.rights == {"accuracy": 2, "accuracy_strict": 1}
    assert asked["config"].stop_texts == ("Question:",)
    assert asked["config"].max_new_tokens == model.config.context_length // 2


def test_a_leading_think_block_is_no_part_of_an_answer(model, tiny_tokenizer, monkeypatch):
    written = ["<think>#### 5? No.</think>#### 72", "<think>72, so #### 72", "<think>Hm.</think>\nA cat"]
    monkeypatch.setattr("scratchlm.evaluation.tasks.generate_texts", lambda *_, **settings: written)
    asked = GenerationItem(prompt="The cat", answers=("#### 72",), origin="", number=Decimal(72))
    named = GenerationItem(prompt="The cat", answers=("A cat",), origin="")
    result = score_generation(model, tiny_tokenizer, [asked, asked, named])
    assert [row["right"] for row in result.items] == [True, False, True]
    assert [row["written"] for row in result.items] == written


def test_an_answer_ends_at_the_stop_text(model, tiny_tokenizer):
    text = written_by(model, tiny_tokenizer, "The cat", 8).text
    item = GenerationItem(prompt="The cat", answers=(text[:1],), origin="")
    result = score_generation(model, tiny_tokenizer, [item], max_new_tokens=8, stop_texts=(text[1],))
    assert result.items[0]["written"] == text[: text.index(text[1])]


def test_long_prompts_keep_their_end_and_are_counted(model, tiny_tokenizer):
    long = "the cat and the dog " * 20
    item = GenerationItem(prompt=long, answers=("x",), origin="")
    assert score_generation(model, tiny_tokenizer, [item], max_new_tokens=5).n_cropped == 1
    cloze = [ClozeItem(context=long, target=" dog", origin="")]
    assert score_cloze(model, tiny_tokenizer, cloze).n_cropped == 1


def test_impossible_tasks_are_errors_that_name_the_question(model, tiny_tokenizer):
    with pytest.raises(DataError, match="at least one question"):
        score_cloze(model, tiny_tokenizer, [])
    item = GenerationItem(prompt="a", answers=("b",), origin="")
    with pytest.raises(DataError, match="lower max_new_tokens"):
        score_generation(model, tiny_tokenizer, [item], max_new_tokens=40)
    with pytest.raises(DataError, match="file line 7: the continuation 't' after 'The ca' adds no token"):
        score_cloze(model, tiny_tokenizer, [ClozeItem(context="The ca", target="t", origin="file line 7")])


WORDS = WordTokenizer({"a": 0, "b": 1, "<|unk|>": 2})


def always_predicting(word_id: int) -> GPTModel:
    """A model of three words that predicts this one whatever it reads."""
    model = GPTModel(GPTConfig(vocab_size=3, context_length=8, emb_dim=4, n_heads=1, n_layers=1)).eval()
    with torch.no_grad():
        model.final_norm.scale.zero_()
        model.final_norm.shift.fill_(1.0)
        model.out_head.weight.copy_(torch.eye(3)[word_id, :, None].expand(3, 4))
    return model


def test_an_unknown_word_is_never_right_though_the_model_expects_one():
    unknown, known = (ClozeItem(context="a b", target=f" {word}", origin="") for word in ("zebra", "b"))
    assert score_cloze(always_predicting(2), WORDS, [unknown, known]).rights == {"accuracy": 0}
    assert score_cloze(always_predicting(1), WORDS, [unknown, known]).rights == {"accuracy": 1}


def test_what_is_written_down_of_each_question_adds_up_to_the_accuracy():
    result = score_cloze(always_predicting(2), WORDS, [ClozeItem(context="a b", target=" zebra", origin="")])
    assert sum(row["right"] for row in result.items) == result.rights["accuracy"] == 0


def test_a_few_questions_have_no_interval_of_their_perplexity(model, tiny_tokenizer):
    item = ClozeItem(context="The cat sat", target=" on", origin="file line 1")
    assert score_cloze(model, tiny_tokenizer, [item] * 9).perplexity_interval is None
    low, high = score_cloze(model, tiny_tokenizer, [item] * 10).perplexity_interval
    assert low == pytest.approx(high)


def test_what_cannot_be_asked_is_told_with_its_line(model, tiny_tokenizer):
    long = ClozeItem(context="The cat", target=" " + "xyz" * 40, origin="file line 3")
    with pytest.raises(
        DataError, match="file line 3: the target has 121 tokens and the context length is 40"
    ):
        score_cloze(model, tiny_tokenizer, [long])
    item = GenerationItem(prompt="The cat", answers=("sat",), origin="")
    with pytest.raises(ConfigError, match="max_new_tokens must be at least 1, got 0"):
        score_generation(model, tiny_tokenizer, [item], max_new_tokens=0)
