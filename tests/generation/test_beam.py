"""Beam search compared with exhaustive search, with transformers and with greedy decoding."""

from __future__ import annotations

import itertools

import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.beam import beam_search
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model import GPTConfig, GPTModel


def wilful_model(vocab_size: int, *, seed: int, context_length: int = 16) -> GPTModel:
    """Random weights with strong opinions, so that no two texts are equally likely."""
    torch.manual_seed(seed)
    config = GPTConfig(
        vocab_size=vocab_size, context_length=context_length, emb_dim=16, n_heads=2, n_layers=2, qkv_bias=True
    )
    model = GPTModel(config).eval()
    with torch.no_grad():
        model.out_head.weight.mul_(4)
    return model


def log_prob(model: GPTModel, prompt: list[int], new: tuple[int, ...]) -> float:
    with torch.no_grad():
        rows = model(torch.tensor([[*prompt, *new]])).log_softmax(dim=-1)[0]
    return sum(float(rows[len(prompt) - 1 + i, token]) for i, token in enumerate(new))


@pytest.mark.parametrize("seed", range(3))
def test_with_room_for_every_beginning_the_best_text_of_all_is_found(seed):
    model, prompt = wilful_model(4, seed=seed), [1, 2]
    found = beam_search(model, prompt, GenerationConfig(max_new_tokens=3), n_beams=64)
    every = sorted(itertools.product(range(4), repeat=3), key=lambda new: -log_prob(model, prompt, new))
    assert [tuple(beam.ids) for beam in found] == every
    assert found[0].log_prob == pytest.approx(log_prob(model, prompt, every[0]), abs=1e-4)
    assert found[0].score == pytest.approx(found[0].log_prob / 3)


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_choice(seed):
    model, config = wilful_model(20, seed=seed), GenerationConfig(max_new_tokens=8, stop_ids=(3,))
    [beam] = beam_search(model, [1], config, n_beams=1)
    [greedy] = generate_ids(model, [[1]], config)
    assert (beam.ids, beam.finished_by) == (greedy.ids, greedy.finished_by)


def test_the_cache_changes_nothing_even_when_the_context_is_full():
    model = wilful_model(20, seed=0, context_length=6)
    ways = [
        beam_search(model, [1, 2], GenerationConfig(max_new_tokens=9, use_cache=use), n_beams=3)
        for use in (True, False)
    ]
    assert [beam.ids for beam in ways[0]] == [beam.ids for beam in ways[1]]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_beams_agree_with_transformers(seed, length_penalty):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=12, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).eval()
    ours = wilful_model(12, seed=seed)

    class Borrowed(type(theirs)):  # their search over our scores: only the search is compared
        def forward(self, input_ids=None, **_):
            with torch.no_grad():
                return transformers.modeling_outputs.CausalLMOutputWithPast(logits=ours(input_ids))

    theirs.__class__ = Borrowed
    expected = theirs.generate(
        torch.tensor([[1, 2]]),
        attention_mask=torch.ones(1, 2, dtype=torch.long),
        num_beams=4,
        num_return_sequences=4,
        max_new_tokens=9,
        do_sample=False,
        length_penalty=length_penalty,
        use_cache=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = beam_search(
        ours,
        [1, 2],
        GenerationConfig(max_new_tokens=9, stop_ids=(0,)),
        n_beams=4,
        length_penalty=length_penalty,
    )
    rows = [[token for token in row[2:].tolist() if token != 0] for row in expected.sequences]
    assert [beam.ids for beam in found] == rows
    assert [beam.score for beam in found] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def test_a_stop_text_ends_a_beam(make_tokenizer):
    tokenizer = make_tokenizer([b"a", b"b", b"c", b"d"])
    model = wilful_model(4, seed=1)
    stop = tokenizer.decode(beam_search(model, [2], GenerationConfig(max_new_tokens=3), n_beams=8)[0].ids[1:])
    config = GenerationConfig(max_new_tokens=6, stop_texts=(stop,))
    beams = beam_search(model, [2], config, n_beams=8, tokenizer=tokenizer)
    for beam in beams:
        assert stop not in beam.text
        assert (beam.finished_by == "stop_text") == (stop in tokenizer.decode(beam.ids))
    assert any(beam.finished_by == "stop_text" for beam in beams)


def test_nothing_new_is_one_empty_beam():
    [beam] = beam_search(wilful_model(4, seed=0), [1], GenerationConfig(max_new_tokens=0), n_beams=3)
    assert (beam.ids, beam.text, beam.finished_by) == ([], "", "length")


@pytest.mark.parametrize(
    ("config", "n_beams", "message"),
    [
        (GenerationConfig(), 0, "n_beams must be a whole number of at least 1, got 0"),
        (GenerationConfig(temperature=0.5), 2, "got temperature=0.5; leave that out"),
        (GenerationConfig(top_k=3, seed=1), 2, "got top_k, seed; leave that out"),
        (GenerationConfig(stop_texts=("a",)), 2, "stop_texts need a tokenizer"),
    ],
)
def test_settings_that_beams_cannot_have(config, n_beams, message):
    with pytest.raises(ConfigError, match=message):
        beam_search(wilful_model(4, seed=0), [1], config, n_beams=n_beams)


def test_an_empty_prompt_needs_a_start():
    with pytest.raises(DataError, match="a prompt needs at least one token"):
        beam_search(wilful_model(4, seed=0), [], GenerationConfig(), n_beams=2)
