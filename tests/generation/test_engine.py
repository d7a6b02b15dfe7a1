import random
import time
from typing import Any, ClassVar

import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.beam import beam_search
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.engine import Engine
from scratchlm.generation.generate import generate_ids
from scratchlm.generation.requests import TokenEvent
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers import WordTokenizer

CONTEXT = 12
GREEDY = GenerationConfig(max_new_tokens=5)
KERNELS = ("torch", "native")


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch) -> str:
    """Each way of computing."""
    monkeypatch.setenv("SCRATCHLM_KERNEL", request.param)
    return request.param


def run(engine: Engine) -> dict[int, list[TokenEvent]]:
    """All events, by text."""
    events: dict[int, list[TokenEvent]] = {}
    while engine.has_work:
        for event in engine.step():
            events.setdefault(event.row, []).append(event)
    return events


def ids_of(events: list[TokenEvent]) -> list[int]:
    return [event.id for event in events if event.id is not None]


def plain_greedy(model: GPTModel, prompt: list[int], n_new: int) -> list[int]:
    """Greedy decoding by definition: no batch, no cache, no padding."""
    ids = list(prompt)
    model.eval()
    with torch.no_grad():
        for _ in range(n_new):
            ids.append(int(model(torch.tensor([ids[-model.config.context_length :]]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("use_cache", [True, False])
def test_texts_are_those_of_reading_each_alone_also_beyond_the_context(tiny_model, kernel, use_cache):
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [int(i * 7 % 61) for i in range(30)]]
    config = GenerationConfig(max_new_tokens=20, use_cache=use_cache)
    engine = Engine(tiny_model, n_slots=3, kernel=kernel)
    numbers = [engine.add(prompt, config) for prompt in prompts]
    events = run(engine)
    assert [ids_of(events[n]) for n in numbers] == [plain_greedy(tiny_model, p, 20) for p in prompts]


def random_requests(rng: random.Random) -> list[tuple[int, list[int], GenerationConfig, int | None]]:
    """Texts with the step at which each joins and, for some, at which it is cancelled."""
    requests = []
    beginning = [rng.randrange(61) for _ in range(20)]
    for _ in range(rng.randint(2, 8)):
        prompt = [rng.randrange(61) for _ in range(rng.randint(1, 15))]
        if rng.random() < 0.4:
            prompt = beginning[: rng.randint(1, 20)] + prompt[:3]  # texts that begin alike share their cache
        config = GenerationConfig(
            max_new_tokens=rng.randint(1, 14),
            temperature=rng.choice([0.0, 0.0, 1.0]),
            top_k=rng.choice([None, 7]),
            seed=rng.randrange(1000),
            stop_ids=tuple(rng.sample(range(61), 3)),
            use_cache=rng.random() < 0.9,
        )
        requests.append((rng.randint(0, 10), prompt, config, rng.choice([None, None, rng.randint(1, 12)])))
    return requests


def check_random_mix(model: GPTModel, number: int, *, n_slots: int, kernel: str) -> None:
    """Run one random mix, and compare each text with what it gets alone; a cancelled one with its beginning."""
    requests = random_requests(random.Random(number))
    alone = [generate_ids(model, [prompt], config)[0].ids for _, prompt, config, _ in requests]
    engine = Engine(model, n_slots=n_slots, kernel=kernel, token_budget=20)
    numbers: dict[int, int] = {}
    events: dict[int, list[TokenEvent]] = {}
    for step in range(400):
        for i, (joins, prompt, config, _) in enumerate(requests):
            if joins == step:
                numbers[engine.add(prompt, config)] = i
        for row, i in numbers.items():
            if requests[i][3] is not None and step == requests[i][0] + requests[i][3]:
                engine.cancel(row)
        for event in engine.step():
            events.setdefault(event.row, []).append(event)
        if step > 30 and not engine.has_work:
            break
    assert not engine.has_work
    for row, i in numbers.items():
        found = ids_of(events.get(row, []))
        was_cancelled = not events.get(row) or events[row][-1].finished_by is None
        assert found == (alone[i][: len(found)] if was_cancelled else alone[i]), (number, i)
        assert not was_cancelled or requests[i][3] is not None
    engine.close()


@pytest.mark.parametrize("n_slots", [1, 64])
def test_a_text_never_depends_on_its_neighbours(tiny_model, kernel, n_slots):
    for number in range(25):
        check_random_mix(tiny_model, number, n_slots=n_slots, kernel=kernel)


@pytest.mark.slow
@pytest.mark.parametrize("n_slots", [1, 64])
def test_a_thousand_random_mixes(tiny_model, kernel, n_slots):
    for number in range(1000, 2000):
        check_random_mix(tiny_model, number, n_slots=n_slots, kernel=kernel)


@pytest.fixture
def n_read(tiny_model) -> list[int]:
    """How many tokens the model has read; with a hook, PyTorch computes."""
    counts = [0]

    def count(_module: Any, args: Any) -> None:
        counts[0] += args[0].numel()

    tiny_model.tok_emb.register_forward_pre_hook(count)
    return counts


def test_only_the_new_token_is_read_until_the_context_is_full(tiny_model):
    widths = []
    tiny_model.tok_emb.register_forward_pre_hook(lambda _m, args: widths.append(args[0].shape[1]))
    generate_ids(tiny_model, [list(range(9))], GenerationConfig(max_new_tokens=6))
    assert widths == [9, 1, 1, 1, 12, 12]  # twelve tokens fill the context; then all of it is read each time


@pytest.mark.parametrize("max_new_tokens", [4, 30])
def test_a_row_beyond_the_context_costs_the_others_nothing(tiny_model, n_read, max_new_tokens):
    prompts = [[i + 1, i + 2] for i in range(15)] + [[i % 61 for i in range(40)]]
    config = GenerationConfig(max_new_tokens=max_new_tokens)

    def read_by(some: list[list[int]]) -> tuple[int, list[list[int]]]:
        before = n_read[0]
        found = generate_ids(tiny_model, some, config)
        return n_read[0] - before, [one.ids for one in found]

    short, short_ids = read_by(prompts[:-1])
    long, long_ids = read_by(prompts[-1:])
    together, ids = read_by(prompts)
    assert together <= short + long + 15  # a gap between two slots is read once a step where that is cheaper
    assert ids == short_ids + long_ids


@pytest.mark.slow
def test_short_texts_beside_one_beyond_the_context_take_the_time_of_both_alone(kernel):
    """Measured in turns, the best of five; the limit is 1.3."""
    model = GPTModel(
        GPTConfig(vocab_size=1024, context_length=128, emb_dim=128, n_heads=4, n_layers=4)
    ).eval()
    short = [[i * 31 % 1000, 7, 8] for i in range(15)]
    long = [[i * 7 % 1000 for i in range(120)]]

    def seconds(prompts: list[list[int]]) -> float:
        begun = time.perf_counter()
        generate_ids(model, prompts, GenerationConfig(max_new_tokens=100))
        return time.perf_counter() - begun

    rounds = [[seconds(short), seconds(long), seconds(short + long)] for _ in range(5)]
    alone, beyond, together = (min(times) for times in zip(*rounds))
    print(f"{kernel}: short {alone:.3f} s, long {beyond:.3f} s, together {together:.3f} s")
    assert together < 1.3 * (alone + beyond)


def test_a_common_beginning_is_computed_once(kernel):
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=61, context_length=1024, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.0)
    model = GPTModel(config)
    engine = Engine(model, n_slots=3, kernel=kernel)
    beginning = [i * 5 % 61 for i in range(600)]
    for end in ([1], [2, 3], [4]):
        engine.add([*beginning, *end], GREEDY)
        while engine.stats.n_waiting:
            engine.step()
        for _ in range(4):
            engine.step()
    stats = engine.stats
    assert stats.shared_tokens == (1200 if kernel == "native" else 1024)  # PyTorch shares whole parts of 256
    assert stats.prompt_tokens + stats.shared_tokens == 601 + 602 + 601
    expected = [generate_ids(model, [[*beginning, 4]], GREEDY)[0].ids]
    engine.add([*beginning, 4], GREEDY)
    assert [ids_of(events) for events in run(engine).values()][-1:] == expected


def test_a_long_prompt_does_not_stop_the_others_for_more_than_a_step():
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=61, context_length=2048, emb_dim=16, n_heads=2, n_layers=1, drop_rate=0.0)
    engine = Engine(GPTModel(config), n_slots=2, token_budget=300)
    short = engine.add([1], GenerationConfig(max_new_tokens=30))
    engine.step()
    long = engine.add([2] * 1500, GenerationConfig(max_new_tokens=1))
    rows = [[event.row for event in engine.step()] for _ in range(6)]
    assert rows == [[short]] * 5 + [[short, long]]  # six parts of at most 256 tokens


def test_texts_start_in_the_order_of_their_arrival(tiny_model):
    engine = Engine(tiny_model, n_slots=2)
    for first in range(5):
        engine.add([first], GenerationConfig(max_new_tokens=1 + first % 2))
    finished = []
    while engine.has_work:
        finished += [event.row for event in engine.step() if event.finished_by]
    assert finished == [0, 1, 2, 4, 3] or sorted(finished) == [0, 1, 2, 3, 4]
    assert engine.stats.generated_tokens == 1 + 2 + 1 + 2 + 1


def test_a_slot_is_free_at_once_after_cancelling(tiny_model):
    engine = Engine(tiny_model, n_slots=1)
    first = engine.add([1], GenerationConfig(max_new_tokens=50))
    second = engine.add([2], GREEDY)
    engine.step()
    engine.cancel(first)
    events = run(engine)
    assert set(events) == {second}
    assert ids_of(events[second]) == plain_greedy(engine.model, [2], 5)
    engine.cancel(first)  # no error


def test_one_texts_error_leaves_the_others_alone(tiny_model, kernel):
    with torch.no_grad():
        tiny_model.tok_emb.weight[7] = float("nan")
    engine = Engine(tiny_model, n_slots=3, kernel=kernel)
    good, bad, longer = engine.add([1, 2], GREEDY), engine.add([7], GREEDY), engine.add([3] * 6, GREEDY)
    events = run(engine)
    assert isinstance(events[bad][-1].error, DataError)
    assert [events[row][-1].finished_by for row in (good, bad, longer)] == ["length", "error", "length"]
    again = engine.add([1], GREEDY)  # in the slot of the bad one, beside whatever it left
    other = engine.add([4] * 7, GREEDY)
    events = run(engine)
    assert {events[again][-1].finished_by, events[other][-1].finished_by} == {"length"}


def test_a_step_that_failed_can_be_tried_again(tiny_model, monkeypatch):
    engine = Engine(tiny_model, n_slots=2, kernel="torch")
    first, second = engine.add([1, 2], GREEDY), engine.add([3], GREEDY)
    engine.step()
    head = tiny_model.out_head.forward
    monkeypatch.setattr(tiny_model.out_head, "forward", lambda _: (_ for _ in ()).throw(MemoryError("full")))
    with pytest.raises(MemoryError):
        engine.step()
    monkeypatch.setattr(tiny_model.out_head, "forward", head)
    engine.cancel(second)
    assert ids_of(run(engine)[first]) == plain_greedy(tiny_model, [1, 2], 5)[1:]


def test_a_text_that_does_not_fit_is_an_error_with_both_counts(tiny_model):
    engine = Engine(tiny_model, n_slots=1, capacity=8)
    with pytest.raises(DataError, match="8 tokens here, got a prompt of 4 and max_new_tokens=5"):
        engine.add([1, 2, 3, 4], GREEDY)
    engine.add([1, 2, 3], GREEDY)


def test_memory_limits_the_slots(tiny_model):
    slot_bytes = 2 * 2 * 16 * CONTEXT * 4  # keys and values, layers, width, tokens, bytes
    assert Engine(tiny_model, n_slots=9, budget_bytes=3 * slot_bytes).stats.n_slots == 3
    with pytest.raises(ConfigError, match=rf"takes {slot_bytes:,} bytes, but budget_bytes is 100"):
        Engine(tiny_model, budget_bytes=100)


def test_the_best_tokens_come_with_their_log_probabilities(tiny_model, kernel):
    engine = Engine(tiny_model, kernel=kernel)
    engine.add([1, 2], GenerationConfig(max_new_tokens=1), n_top=3)
    (event,) = engine.step()
    tiny_model.eval()
    with torch.no_grad():
        expected = tiny_model(torch.tensor([[1, 2]]))[0, -1].log_softmax(dim=-1)
    best = expected.topk(3)
    assert [one for one, _ in event.top] == best.indices.tolist()
    torch.testing.assert_close(torch.tensor([p for _, p in event.top]), best.values, rtol=1e-5, atol=1e-5)
    assert event.prob == pytest.approx(float(best.values[0].exp()), rel=1e-5)


def test_every_module_keeps_its_mode(tiny_model, kernel):
    tiny_model.trf_blocks[0].eval()
    before = [module.training for module in tiny_model.modules()]
    generate_ids(tiny_model, [[1]], GREEDY)
    assert [module.training for module in tiny_model.modules()] == before


PADDED = 40  # ids that the model scores beyond the tokenizer's


@pytest.fixture
def padded_model(tiny_tokenizer) -> GPTModel:
    """A model that likes ids without a token best."""
    torch.manual_seed(0)
    n_ids = tiny_tokenizer.vocab_size + PADDED
    model = GPTModel(GPTConfig(vocab_size=n_ids, context_length=12, emb_dim=16, n_heads=4, n_layers=1)).eval()
    with torch.no_grad():
        model.out_head.weight[-PADDED:] *= 30
    return model


SETTINGS = [
    {},
    {"use_cache": False},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 2.0, "seed": 2, "top_k": 5},
    {"temperature": 1.0, "seed": 3, "top_p": 0.9},
    {"temperature": 1.0, "seed": 4, "min_p": 0.5},
    {"repetition_penalty": 1.3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_id_without_a_token_is_never_chosen(padded_model, tiny_tokenizer, settings):
    config = GenerationConfig(max_new_tokens=20, **settings)
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]  # a batch, whose rows fill the context one after the other
    without = generate_ids(padded_model, prompts, config)
    assert (
        max(id_ for row in without for id_ in row.ids) >= tiny_tokenizer.vocab_size
    )  # else it proves nothing
    found = generate_ids(padded_model, prompts, config, tokenizer=tiny_tokenizer)
    assert max(id_ for row in found for id_ in row.ids) < tiny_tokenizer.vocab_size


def test_no_beam_goes_through_an_id_without_a_token(padded_model, tiny_tokenizer):
    config = GenerationConfig(max_new_tokens=6)
    beams = beam_search(padded_model, [1, 2], config, n_beams=4, tokenizer=tiny_tokenizer)
    assert len(beams) == 4
    assert max(id_ for beam in beams for id_ in beam.ids) < tiny_tokenizer.vocab_size


def test_there_are_no_more_beams_than_tokens(padded_model):
    """With one token a beam has one way to go; ids without a token fill up nothing."""
    tokenizer = WordTokenizer({"a": 0, "<|unk|>": 1, "<|endoftext|>": 2})
    beams = beam_search(padded_model, [1], GenerationConfig(max_new_tokens=1), n_beams=5, tokenizer=tokenizer)
    assert sorted(beam.ids for beam in beams) == [[0], [1], [2]]


def test_an_id_that_ends_a_text_needs_no_token(padded_model, tiny_tokenizer):
    best = generate_ids(padded_model, [[1, 2]], GenerationConfig(max_new_tokens=1))[0].ids
    assert best[0] >= tiny_tokenizer.vocab_size
    config = GenerationConfig(max_new_tokens=5, stop_ids=tuple(best))
    [found] = generate_ids(padded_model, [[1, 2]], config, tokenizer=tiny_tokenizer)
    assert found.finished_by == "stop_id"


def test_a_hole_in_the_vocabulary_is_never_chosen(padded_model, tiny_tokenizer):
    class WithHoles:
        vocab_size = padded_model.config.vocab_size
        unused_ids = range(50, vocab_size)
        special_tokens: ClassVar[dict[str, int]] = {}
        end_of_text_id = None
        stream_decoder = tiny_tokenizer.stream_decoder

    [found] = generate_ids(padded_model, [[1, 2]], GenerationConfig(max_new_tokens=8), tokenizer=WithHoles())
    assert max(found.ids) < 50
