import pytest
import torch
from scipy import stats

from scratchlm.core.errors import ConfigError
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.engine import Engine
from scratchlm.generation.generate import generate_ids
from scratchlm.generation.speculative import DraftModel, PromptLookup, check_same_tokenizer
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers import WordTokenizer

SIZE = {"vocab_size": 20, "context_length": 64, "emb_dim": 16, "n_heads": 2, "drop_rate": 0.0}
PROMPTS = [[1, 2, 3, 1, 2, 3, 1, 2], [4, 5], [6, 7, 8, 9, 6, 7]]


@pytest.fixture(params=["torch", "native"], autouse=True)
def kernel(request, monkeypatch) -> None:
    """Both ways of computing."""
    monkeypatch.setenv("SCRATCHLM_KERNEL", request.param)


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(0)
    return GPTModel(GPTConfig(**SIZE, n_layers=2)).eval()


@pytest.fixture
def draft(model) -> GPTModel:
    """The model's own first layer: its guesses are right now and then."""
    small = GPTModel(GPTConfig(**SIZE, n_layers=1)).eval()
    small.load_state_dict(model.state_dict(), strict=False)
    return small


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_guesses_change_no_text(model, draft, temperature):
    for seed in range(4):
        plain = GenerationConfig(
            max_new_tokens=70, temperature=temperature, seed=seed, top_k=15, stop_ids=(19,)
        )
        expected = [result.ids for result in generate_ids(model, PROMPTS, plain)]
        with_draft = generate_ids(model, PROMPTS, plain, draft=draft)
        assert [result.ids for result in with_draft] == expected
        lookup = GenerationConfig(
            max_new_tokens=70, temperature=temperature, seed=seed, top_k=15, stop_ids=(19,), prompt_lookup=3,
            draft_tokens=1 + seed,
        )  # fmt: skip
        assert [result.ids for result in generate_ids(model, PROMPTS, lookup)] == expected


def test_a_draft_equal_to_the_model_saves_most_passes(model):
    engine = Engine(model, n_slots=1, draft=model)
    engine.add([1, 2], GenerationConfig(max_new_tokens=41, draft_tokens=7))
    while engine.has_work:
        engine.step()
    stats_ = engine.stats
    assert stats_.generated_tokens == 41
    assert stats_.steps == 1 + 5  # the prompt gives one token, each further pass eight
    assert stats_.accepted_tokens == stats_.guessed_tokens == 35


def test_the_sampled_distribution_is_that_of_the_model(model, draft, monkeypatch):
    """The second token after a fixed first one, over many seeds, against the model's own probabilities."""
    monkeypatch.setenv("SCRATCHLM_KERNEL", "auto")  # the quicker way
    n = 1500
    counts = torch.zeros(20)
    engine = Engine(model, n_slots=50, draft=draft)
    for seed in range(n):
        engine.add([1, 2], GenerationConfig(max_new_tokens=4, temperature=1.0, seed=seed, forced_ids=(5,)))
    found: dict[int, list[int]] = {}
    while engine.has_work:
        for event in engine.step():
            assert event.id is not None
            found.setdefault(event.row, []).append(event.id)
    for ids in found.values():
        assert ids[0] == 5
        counts[ids[1]] += 1
    assert engine.stats.accepted_tokens > 0
    with torch.no_grad():
        expected = model(torch.tensor([[1, 2, 5]]))[0, -1].double().softmax(dim=-1) * n
    is_common = expected >= 5
    observed = [*counts[is_common].tolist(), counts[~is_common].sum().item()]
    wanted = [*expected[is_common].tolist(), expected[~is_common].sum().item()]
    if wanted[-1] < 1:
        observed, wanted = observed[:-1], wanted[:-1]
    scale = sum(observed) / sum(wanted)
    assert stats.chisquare(observed, [one * scale for one in wanted]).pvalue > 0.001


def test_a_lookup_tries_shorter_endings_and_finds_the_last_occurrence():
    lookup = PromptLookup(3)
    assert lookup.guess(0, [1, 2, 9, 1, 2, 8, 1, 2], 2) == [8, 1]
    assert lookup.guess(0, [5, 1, 7, 6, 2, 1], 3) == [7, 6, 2]
    assert lookup.guess(0, [1, 2, 3], 3) == []


def test_another_vocabulary_is_refused(model):
    other = GPTModel(GPTConfig(**{**SIZE, "vocab_size": 21}, n_layers=1))
    with pytest.raises(ConfigError, match="got 21 and 20 ids"):
        DraftModel(other, of=model, n_slots=1, capacity=9)
    one, two = (WordTokenizer({word: 0, "<|unk|>": 1, "<|endoftext|>": 2}) for word in ("a", "b"))
    check_same_tokenizer(one, one)
    with pytest.raises(ConfigError, match="another one"):
        check_same_tokenizer(two, one)


def test_a_draft_models_shorter_context_is_no_limit(model):
    torch.manual_seed(1)
    short = GPTModel(GPTConfig(**{**SIZE, "context_length": 6}, n_layers=1)).eval()
    config = GenerationConfig(max_new_tokens=30)
    found, expected = (generate_ids(model, PROMPTS, config, draft=one) for one in (short, None))
    assert [result.ids for result in found] == [result.ids for result in expected]
