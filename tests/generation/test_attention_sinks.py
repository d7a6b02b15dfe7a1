"""A window that slides over a long text and keeps the text's first tokens, against attention written out."""

import math

import pytest
import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.engine import Engine
from scratchlm.model import GPTConfig, GPTModel, KVCache
from scratchlm.model.rotary import rotate, rotation

CONTEXT = 16


@pytest.fixture(params=["torch", "native"])
def kernel(request) -> str:
    """Each way of computing."""
    return request.param


@pytest.fixture
def rotary_model() -> GPTModel:
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=61, context_length=CONTEXT, emb_dim=32, n_heads=4, n_kv_heads=2, n_layers=3, positions="rotary",
        norm="rms", feed_forward="swiglu", drop_rate=0.0,
    )  # fmt: skip
    return GPTModel(config).eval()


class PlainWindow:
    """One token at a time: every key is kept without its position, and gets its place in the window when it is used."""

    def __init__(self, model: GPTModel, n_sinks: int) -> None:
        self.model = model
        self.n_sinks = n_sinks
        self.kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in model.trf_blocks]

    def log_probs(self, token_id: int) -> Tensor:
        """Shapes: -> (V,)."""
        config = self.model.config
        x = self.model.tok_emb(torch.tensor([[token_id]]))  # (1, 1, E)
        for block, kept in zip(self.model.trf_blocks, self.kept):
            if len(kept) == CONTEXT:
                del kept[self.n_sinks : self.n_sinks + math.ceil((CONTEXT - self.n_sinks) / 8)]
            normed, att = block.norm1(x), block.att
            query, key, value = (
                layer(normed).unflatten(-1, (-1, att.head_dim)).transpose(1, 2)  # (1, H, 1, D)
                for layer in (att.W_query, att.W_key, att.W_value)
            )
            kept.append((key, value))
            keys, values = (torch.cat(parts, dim=2) for parts in zip(*kept))  # (1, H, S, D)
            places = torch.arange(len(kept))
            query = rotate(query, rotation(config, places[-1:]))
            mixed = att.attend(query, rotate(keys, rotation(config, places)), values, None)
            x = x + att.out_proj(mixed.transpose(1, 2).flatten(2))
            x = x + block.ff(block.norm2(x))
        return self.model.out_head(self.model.final_norm(x))[0, 0].log_softmax(dim=-1)


@pytest.mark.parametrize("n_sinks", [0, 1, 4, CONTEXT - 1])
@torch.no_grad()
def test_a_text_beyond_the_context_is_that_of_attention_written_out(rotary_model, kernel, n_sinks):
    prompt = [3, 1, 4, 1, 5]
    engine = Engine(rotary_model, kernel=kernel)
    config = GenerationConfig(max_new_tokens=6 * CONTEXT, attention_sinks=n_sinks)
    neighbour = engine.add(
        [9, 2, 6], GenerationConfig(max_new_tokens=70)
    )  # reads its window again, beside it
    number = engine.add(prompt, config, n_top=61)
    events = [e for _ in range(200) for e in engine.step() if e.row == number]
    assert len(events) == config.max_new_tokens
    assert neighbour != number
    plain = PlainWindow(rotary_model, n_sinks)
    for token_id in prompt[:-1]:
        plain.log_probs(token_id)
    last = prompt[-1]
    for event in events:
        expected = plain.log_probs(last)
        found = torch.tensor([log_prob for _, log_prob in sorted(event.top)])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert event.id is not None
        last = event.id


def test_it_changes_nothing_within_the_context_and_no_pass_over_the_window_follows(rotary_model, kernel):
    def steps(n_new: int, n_sinks: int | None) -> tuple[list[int], int]:
        engine = Engine(rotary_model, kernel=kernel)
        computed: list[int] = []
        forward = engine._forward

        def counted(works):  # type: ignore[no-untyped-def]
            computed.extend(len(work.ids) for work in works)
            return forward(works)

        counted.is_exact = forward.is_exact  # type: ignore[attr-defined]
        engine._forward = counted  # type: ignore[assignment]
        engine.add([7, 8, 9], GenerationConfig(max_new_tokens=n_new, attention_sinks=n_sinks))
        ids = [event.id or 0 for _ in range(n_new) for event in engine.step()]
        return ids, sum(computed)

    assert steps(CONTEXT - 3, 4)[0] == steps(CONTEXT - 3, None)[0]
    assert steps(50, 4)[1] == 3 + 49
    assert steps(50, None)[1] > 500


def test_a_prompt_beyond_the_context_keeps_its_beginning_and_its_end(rotary_model, kernel, caplog):
    prompt = [i * 7 % 61 for i in range(40)]
    config = GenerationConfig(max_new_tokens=1, attention_sinks=4)
    engine = Engine(rotary_model, kernel=kernel)
    engine.add(prompt, config)
    engine.add(prompt[:4] + prompt[-(CONTEXT - 4) :], config)
    first, second = (event.id for event in engine.step())
    assert first == second
    assert "the first 24 after the attention sinks are ignored" in caplog.text


def test_no_other_text_begins_with_the_numbers_of_a_window_that_slid(rotary_model, kernel):
    engine = Engine(rotary_model, kernel=kernel, n_slots=1)
    engine.add([7, 8, 9], GenerationConfig(max_new_tokens=3 * CONTEXT, attention_sinks=4))
    ids = [7, 8, 9] + [event.id for _ in range(3 * CONTEXT) for event in engine.step()]
    again = Engine(rotary_model, kernel=kernel, n_slots=1)
    for one in (engine, again):
        one.add(ids[: CONTEXT - 4], GenerationConfig(max_new_tokens=4), n_top=61)
    after, alone = ([event.top for _ in range(4) for event in one.step()] for one in (engine, again))
    for found, expected in zip(after, alone):
        assert sorted(found) == [(i, pytest.approx(p, abs=1e-5)) for i, p in sorted(expected)]


def test_learned_positions_cannot_slide(tiny_model):
    with pytest.raises(ConfigError, match="rotary positions; got 4 and learned positions"):
        Engine(tiny_model).add([1], GenerationConfig(attention_sinks=4))
    cache = KVCache(tiny_model.config, 1)
    cache.lengths[0] = 8
    with pytest.raises(DataError, match="with learned positions"):
        cache.drop(0, first=4, n=1)


def test_sinks_must_leave_room(rotary_model):
    with pytest.raises(ConfigError, match=f"below the context of {CONTEXT} tokens"):
        Engine(rotary_model).add([1], GenerationConfig(attention_sinks=CONTEXT))


@pytest.mark.parametrize("other", [{"use_cache": False}, {"penalty_alpha": 0.5, "top_k": 4}])
def test_what_has_no_sliding_window_says_so(other):
    name = next(iter(other))
    with pytest.raises(ConfigError, match=f"attention_sinks and {name} cannot be combined"):
        GenerationConfig(attention_sinks=4, **other)
