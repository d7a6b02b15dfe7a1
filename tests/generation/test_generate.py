import dataclasses
import logging

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratchlm.core import seed
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate, generate_ids
from scratchlm.generation.penalties import penalize_repetition
from scratchlm.model import GPTModel
from tests.tiny import tiny_gpt

RAGGED = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 11]]
SAMPLED = GenerationConfig(max_new_tokens=20, temperature=1.0, top_k=20, top_p=0.95, seed=11)


def ids_of(model: GPTModel, prompts: list[list[int]], config: GenerationConfig) -> list[list[int]]:
    return [result.ids for result in generate_ids(model, prompts, config)]


# The plain meaning


def test_greedy_takes_the_most_likely_token_each_time(tiny_model):
    (ids,) = ids_of(tiny_model, [[1, 2, 3]], GenerationConfig(max_new_tokens=20))
    tiny_model.eval()
    expected = [1, 2, 3]
    for _ in range(20):
        with torch.no_grad():
            expected.append(int(tiny_model(torch.tensor([expected[-12:]]))[0, -1].argmax()))
    assert ids == expected[3:]


def test_sampling_with_one_generator_is_the_books_loop(tiny_model):
    config = GenerationConfig(max_new_tokens=9, temperature=1.4)
    ids = generate_ids(tiny_model, [[1, 2, 3]], config, generator=seed.generator(123))[0].ids
    tiny_model.eval()
    expected, generator = torch.tensor([[1, 2, 3]]), seed.generator(123)
    for _ in range(9):
        with torch.no_grad():
            probs = (tiny_model(expected)[:, -1] / 1.4).softmax(dim=-1)
        expected = torch.cat([expected, torch.multinomial(probs, 1, generator=generator)], dim=1)
    assert ids == expected[0, 3:].tolist()


@pytest.mark.parametrize("config", [GenerationConfig(max_new_tokens=20), SAMPLED], ids=["greedy", "sampled"])
def test_the_cache_changes_nothing(tiny_model, config):
    uncached = dataclasses.replace(config, use_cache=False)
    assert ids_of(tiny_model, RAGGED, config) == ids_of(tiny_model, RAGGED, uncached)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_models_of_other_number_types_generate_with_a_cache(dtype, positions):
    """The C kernel, which reads float32 only, must leave no cache of float32 behind."""
    model = tiny_gpt(64, context_length=24, positions=positions).to(dtype)
    config = GenerationConfig(max_new_tokens=1)
    assert ids_of(model, RAGGED, config) == ids_of(
        model, RAGGED, dataclasses.replace(config, use_cache=False)
    )
    assert [len(ids) for ids in ids_of(model, RAGGED, GenerationConfig(max_new_tokens=8))] == [8] * len(
        RAGGED
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=15), min_size=1, max_size=4),
    temperature=st.sampled_from([0.0, 0.7, 1.3]),
    seed_number=st.integers(0, 2**40),
)
def test_a_row_gets_the_same_tokens_alone_as_in_any_batch(tiny_model, prompts, temperature, seed_number):
    config = GenerationConfig(max_new_tokens=6, temperature=temperature, seed=seed_number, stop_ids=(5, 30))
    together = ids_of(tiny_model, prompts, config)
    for i, prompt in enumerate(prompts):
        if prompt not in prompts[:i]:
            assert ids_of(tiny_model, [prompt], config) == [together[i]]


def test_a_generated_id_carries_the_models_own_probability(tiny_model):
    result = generate_ids(tiny_model, [[1, 2]], SAMPLED)[0]
    tiny_model.eval()
    with torch.no_grad():
        probs = tiny_model(torch.tensor([[1, 2, *result.ids[:9]]])).softmax(dim=-1)[0]
    expected = [probs[1 + i, token].item() for i, token in enumerate(result.ids[:9])]
    assert result.probs[:9] == pytest.approx(expected, rel=1e-4)


def test_repetition_is_penalised_over_prompt_and_new_tokens(tiny_model):
    (ids,) = ids_of(tiny_model, [[1, 2, 3]], GenerationConfig(max_new_tokens=9, repetition_penalty=1.3))
    tiny_model.eval()
    expected = [1, 2, 3]
    for _ in range(9):
        with torch.no_grad():
            logits = tiny_model(torch.tensor([expected]))[0, -1]
        expected.append(int(penalize_repetition(logits, expected, 1.3).argmax()))
    assert ids == expected[3:]
    assert [ids] != ids_of(tiny_model, [[1, 2, 3]], GenerationConfig(max_new_tokens=9))


# Randomness


def test_the_same_seed_repeats_and_another_does_not(tiny_model):
    other = dataclasses.replace(SAMPLED, seed=12)
    assert ids_of(tiny_model, RAGGED, SAMPLED) == ids_of(tiny_model, RAGGED, SAMPLED)
    assert ids_of(tiny_model, RAGGED, SAMPLED) != ids_of(tiny_model, RAGGED, other)


def test_equal_prompts_in_one_batch_get_different_texts(tiny_model):
    first, second, third = ids_of(tiny_model, [[1, 2]] * 3, SAMPLED)
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert ids_of(tiny_model, [[1, 2]], SAMPLED) == [first]


def test_without_a_seed_torchs_global_one_decides(tiny_model):
    config = GenerationConfig(max_new_tokens=10, temperature=1.0)
    outcomes = []
    for number in (1, 1, 2):
        torch.manual_seed(number)
        outcomes.append(ids_of(tiny_model, RAGGED, config))
    assert outcomes[0] == outcomes[1] != outcomes[2]


@pytest.mark.parametrize("config", [GenerationConfig(max_new_tokens=5), SAMPLED], ids=["greedy", "seeded"])
def test_the_global_generator_is_left_alone(tiny_model, config):
    before = torch.get_rng_state()
    ids_of(tiny_model, RAGGED, config)
    assert torch.equal(torch.get_rng_state(), before)


# Ending


def test_each_row_ends_at_its_own_stop_id_which_is_not_part_of_it(counting_model):
    config = GenerationConfig(max_new_tokens=5, stop_ids=(12, 22))
    results = generate_ids(counting_model, [[9], [20, 21], [1]], config)
    assert [r.ids for r in results] == [[10, 11], [], [2, 3, 4, 5, 6]]
    assert [r.finished_by for r in results] == ["stop_id", "stop_id", "length"]
    assert [len(r.probs) for r in results] == [2, 0, 5]


def test_finished_rows_are_not_computed_any_more(counting_model):
    n_rows = []
    counting_model.tok_emb.register_forward_pre_hook(lambda _m, args: n_rows.append(args[0].shape[0]))
    ids_of(counting_model, [[10], [8], [1]], GenerationConfig(max_new_tokens=5, stop_ids=(12,)))
    assert n_rows == [3, 3, 2, 2, 1]


def test_no_new_tokens_means_no_events(tiny_model):
    config = GenerationConfig(max_new_tokens=0)
    assert list(generate(tiny_model, [[1]], config)) == []
    (result,) = generate_ids(tiny_model, [[1]], config)
    assert (result.ids, result.text, result.finished_by) == ([], "", "length")


def test_no_prompts_means_no_results(tiny_model):
    assert generate_ids(tiny_model, [], GenerationConfig()) == []


def test_a_stop_text_may_begin_in_one_token_and_end_in_another(counting_model, make_tokenizer):
    tokenizer = make_tokenizer([b"zero", b"one", b" #", b"#", b"# four", b"five"])
    config = GenerationConfig(max_new_tokens=10, stop_texts=("###",))
    events = list(generate(counting_model, [[0]], config, tokenizer=tokenizer))
    assert [event.text for event in events] == ["one", " ", "", ""]
    assert [event.finished_by for event in events] == [None, None, None, "stop_text"]
    (result,) = generate_ids(counting_model, [[0]], config, tokenizer=tokenizer)
    assert (result.text, result.ids) == ("one ", [1, 2, 3, 4])


def test_a_stop_text_that_only_began_is_shown_when_the_row_ends(counting_model, make_tokenizer):
    tokenizer = make_tokenizer([b"zero", b"one", b" #", b"#", b"four"])
    for config in (
        GenerationConfig(max_new_tokens=3, stop_texts=("###",)),
        GenerationConfig(max_new_tokens=9, stop_texts=("###",), stop_ids=(4,)),
    ):
        (result,) = generate_ids(counting_model, [[0]], config, tokenizer=tokenizer)
        assert result.text == "one ##"


def test_a_stop_text_completed_by_the_last_token_counts(counting_model, make_tokenizer):
    tokenizer = make_tokenizer([b"zero", b"one", b" #", b"##"])
    config = GenerationConfig(max_new_tokens=3, stop_texts=("###",))
    (result,) = generate_ids(counting_model, [[0]], config, tokenizer=tokenizer)
    assert (result.text, result.finished_by) == ("one ", "stop_text")


def test_rows_stop_at_their_own_texts(counting_model, make_tokenizer):
    tokenizer = make_tokenizer([str(i % 10).encode() for i in range(32)])
    config = GenerationConfig(max_new_tokens=9, stop_texts=("45", "9"))
    results = generate_ids(counting_model, [[1], [6]], config, tokenizer=tokenizer)
    assert [r.text for r in results] == ["23", "78"]


# Streaming


def test_events_together_are_the_result_and_each_row_ends_once(tiny_model):
    config = GenerationConfig(max_new_tokens=8, temperature=1.0, seed=3, stop_ids=tuple(range(0, 60, 4)))
    events = list(generate(tiny_model, RAGGED, config))
    for i, result in enumerate(generate_ids(tiny_model, RAGGED, config)):
        mine = [event for event in events if event.row == i]
        assert [event.id for event in mine if event.id is not None] == result.ids
        assert [event.finished_by for event in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1].finished_by == result.finished_by


def test_streamed_text_never_shows_half_a_character(counting_model, make_tokenizer):
    smile = "🙂".encode()
    tokenizer = make_tokenizer([b"", smile[:1], smile[1:3], smile[3:] + b"!", "é".encode()[:1]])
    events = list(generate(counting_model, [[0]], GenerationConfig(max_new_tokens=4), tokenizer=tokenizer))
    assert [event.text for event in events] == ["", "", "🙂!", "\ufffd"]


def test_the_first_token_comes_before_the_second_is_computed(counting_model):
    n_passes = []
    counting_model.tok_emb.register_forward_pre_hook(lambda *_: n_passes.append(1))
    stream = generate(counting_model, [[1]], GenerationConfig(max_new_tokens=30))
    next(stream)
    assert len(n_passes) == 1


def test_between_events_the_caller_may_train(tiny_model):
    stream = generate(tiny_model, [[1]], GenerationConfig(max_new_tokens=5))
    next(stream)
    assert tiny_model.training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    tiny_model(torch.tensor([[1, 2]])).sum().backward()
    next(stream)


# Prompts


def test_a_prompt_longer_than_the_context_is_cropped_with_a_warning(tiny_model, caplog):
    long = [i % 61 for i in range(20)]
    config = GenerationConfig(max_new_tokens=6)
    with caplog.at_level(logging.WARNING):
        cropped = ids_of(tiny_model, [long], config)
    assert cropped == ids_of(tiny_model, [long[-12:]], config)
    assert [record.getMessage() for record in caplog.records] == [
        "prompt 0 has 20 tokens, but the model's context is 12: the first 8 are ignored"
    ]


def test_a_prompt_longer_than_the_context_is_refused_when_asked(tiny_model):
    config = GenerationConfig(max_new_tokens=6, overflow="error")
    with pytest.raises(DataError, match="at most 12 tokens, got 13 in prompt 1"):
        generate(tiny_model, [[1], [2] * 13], config)
    assert len(ids_of(tiny_model, [[2] * 12], config)[0]) == 6


def test_an_empty_prompt_needs_something_to_start_from(counting_model):
    with pytest.raises(DataError, match="got none in prompt 1; write one or set start_id"):
        generate(counting_model, [[1], []], GenerationConfig())
    assert ids_of(counting_model, [[]], GenerationConfig(max_new_tokens=2, start_id=7)) == [[8, 9]]


def test_mistakes_raise_at_the_call(tiny_model):
    """Not at the first step: a server must know before it answers "200 OK"."""
    with pytest.raises(DataError, match="ids must be 0 to 60, got 3 to 61 in prompt 0"):
        generate(tiny_model, [[3, 61]], GenerationConfig())
    with pytest.raises(DataError, match=r"lists of ids, got 1 as number 0; write \[\[1, 2, 3\]\]"):
        generate(tiny_model, [1, 2], GenerationConfig())
    with pytest.raises(ConfigError, match="stop_texts need a tokenizer"):
        generate(tiny_model, [[1]], GenerationConfig(stop_texts=("#",)))
    with pytest.raises(ConfigError, match="seed=3 and a generator"):
        generate(tiny_model, [[1]], GenerationConfig(seed=3, temperature=1.0), generator=seed.generator(0))


def test_prompts_are_left_as_they_were(tiny_model):
    prompts = [[1, 2], [3]]
    ids_of(tiny_model, prompts, GenerationConfig(max_new_tokens=4))
    assert prompts == [[1, 2], [3]]
