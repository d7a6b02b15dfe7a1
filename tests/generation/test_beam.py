"""Beam search compared with exhaustive search, with transformers and with greedy decoding."""

import itertools

import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.beam import ROOT, beam_search
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers.bpe import BPETokenizer


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


THEIR_NAMES = {"no_repeat_ngram": "no_repeat_ngram_size"}


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize(
    ("seed", "n_beams", "length_penalty", "rules"),
    [
        (0, 4, 0.0, {}),
        (1, 4, 1.0, {}),
        (2, 4, 2.0, {}),
        (3, 2, 1.0, {}),
        (4, 3, -0.5, {}),
        (5, 5, 0.7, {}),
        (6, 3, 1.0, {"repetition_penalty": 1.4}),
        (7, 4, 1.0, {"no_repeat_ngram": 2}),
        (8, 5, 2.0, {"min_new_tokens": 5}),
    ],
)
def test_beams_agree_with_transformers(seed, n_beams, length_penalty, rules, early_stopping):
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
        num_beams=n_beams,
        num_return_sequences=n_beams,
        early_stopping=early_stopping,
        **{THEIR_NAMES.get(name, name): value for name, value in rules.items()},
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
        GenerationConfig(max_new_tokens=9, stop_ids=(0,), early_stopping=early_stopping, **rules),
        n_beams=n_beams,
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


@pytest.mark.parametrize("has_stop", [True, False])
def test_a_complete_constraint_ends_a_beam(has_stop):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    tokenizer = BPETokenizer([(b"n", b"o")], special_tokens=["<|endoftext|>"])
    stop_ids = (tokenizer.end_of_text_id,) if has_stop else ()
    config = GenerationConfig(max_new_tokens=9, choices=("yes", "no"), stop_ids=stop_ids)
    model = wilful_model(tokenizer.vocab_size, seed=1)
    beams = beam_search(model, [1], config, n_beams=6, tokenizer=tokenizer)
    assert {beam.text for beam in beams} == {"yes", "no"}
    assert {beam.finished_by for beam in beams} == {"constraint"}


def test_rules_that_leave_no_text_are_an_error():
    with pytest.raises(DataError, match="beam search found no text"):
        beam_search(
            wilful_model(4, seed=0), [1], GenerationConfig(max_new_tokens=5, no_repeat_ngram=1), n_beams=2
        )


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


def plain_beams(model, prompt, *, n_beams, n_new, taken_before):
    """One group by its definition, without a cache: `taken_before` has the tokens of earlier groups at each step."""
    paths = [((), 0.0)]
    for step in range(n_new):
        options = []
        for new, total in paths:
            with torch.no_grad():
                log_probs = model(torch.tensor([[*prompt, *new]]))[0, -1].log_softmax(dim=-1).tolist()
            options += [
                ((*new, token), total + p - 1.5 * taken_before[step].count(token))
                for token, p in enumerate(log_probs)
            ]
        paths = sorted(options, key=lambda option: -option[1])[:n_beams]
        taken_before[step] += [new[-1] for new, _ in paths]
    return paths


def test_groups_search_one_after_the_other_and_differ():
    model = wilful_model(12, seed=3)
    # A last step that only ends texts takes no tokens, so the reference has one step less to pass on.
    config = GenerationConfig(max_new_tokens=4, num_beam_groups=3, diversity_penalty=1.5)
    found = beam_search(model, [1, 2], config, n_beams=6, length_penalty=0.0)
    taken_before = [[], [], [], []]
    expected = []
    for _ in range(3):
        expected += plain_beams(model, [1, 2], n_beams=2, n_new=4, taken_before=taken_before)
        taken_before[3] = []
    expected.sort(key=lambda option: -option[1])
    assert [tuple(beam.ids) for beam in found] == [new for new, _ in expected]
    assert [beam.score for beam in found] == pytest.approx([total for _, total in expected], abs=1e-4)
    assert len({tuple(beam.ids) for beam in found}) > 2  # without a penalty every group finds the same two


def test_groups_without_a_penalty_are_equal_searches():
    model = wilful_model(12, seed=4)
    alone = beam_search(model, [1, 2], GenerationConfig(max_new_tokens=5, stop_ids=(0,)), n_beams=2)
    config = GenerationConfig(max_new_tokens=5, stop_ids=(0,), num_beam_groups=2)
    assert [beam.ids for beam in beam_search(model, [1, 2], config, n_beams=4)] == [
        ids for beam in alone for ids in (beam.ids, beam.ids)
    ]


def test_the_tree_holds_every_candidate():
    model = wilful_model(12, seed=5)
    tree = []
    config = GenerationConfig(max_new_tokens=4, n_best=1)
    [best] = beam_search(model, [1], config, n_beams=3, tree=tree)
    nodes = {node.number: node for node in tree}
    node = max((node for node in tree if node.fate == "ended"), key=lambda one: one.log_prob)
    assert node.log_prob == pytest.approx(best.log_prob)
    ids = []
    while True:
        ids.insert(0, node.id)
        if node.parent == ROOT:
            break
        node = nodes[node.parent]
        assert node.fate == "continued"
    assert ids == best.ids
