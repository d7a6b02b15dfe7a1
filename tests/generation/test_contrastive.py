import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.contrastive import contrastive_search
from scratchlm.generation.generate import generate_ids
from scratchlm.generation.penalties import penalize_repetition

PROMPT = [3, 1, 4, 1]


def published(model, prompt, *, n_new, alpha, k, penalty=1.0):
    """Algorithm of Su et al. 2022 as transformers ranks candidates: whole texts read again, no cache."""
    model.eval()
    text = list(prompt)
    for _ in range(n_new):
        with torch.no_grad():
            states = model.hidden_states(torch.tensor([text]))[0]
            logits = penalize_repetition(model.out_head(states[-1]), text, penalty)
            likely, ids = logits.softmax(-1).topk(k)
            scores = []
            for prob, token in zip(likely, ids):
                new = model.hidden_states(torch.tensor([[*text, int(token)]]))[0, -1]
                similar = torch.cosine_similarity(states, new[None], dim=-1).max()
                scores.append((1 - alpha) * prob - alpha * similar)
        text.append(int(ids[torch.stack(scores).argmax()]))
    return text[len(prompt) :]


def ids_of(model, prompt=PROMPT, **settings):
    events = contrastive_search(model, prompt, GenerationConfig(**settings))
    return [event.id for event in events if event.id is not None]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("k", [1, 4])
def test_the_text_is_that_of_the_published_algorithm(tiny_model, alpha, k):
    ours = ids_of(tiny_model, max_new_tokens=8, penalty_alpha=alpha, top_k=k)
    assert ours == published(tiny_model, PROMPT, n_new=8, alpha=alpha, k=k)


def test_rules_on_tokens_change_the_probabilities(tiny_model):
    ours = ids_of(tiny_model, max_new_tokens=6, penalty_alpha=0.5, top_k=4, repetition_penalty=1.5)
    assert ours == published(tiny_model, PROMPT, n_new=6, alpha=0.5, k=4, penalty=1.5)


def test_without_a_penalty_it_is_greedy(tiny_model):
    greedy = generate_ids(tiny_model, [PROMPT], GenerationConfig(max_new_tokens=8))[0].ids
    assert ids_of(tiny_model, max_new_tokens=8, penalty_alpha=0.0, top_k=5) == greedy


@pytest.mark.parametrize("alpha", [0.6, 1.0])
def test_what_the_rules_exclude_is_no_candidate(tiny_model, alpha):
    forced = (5, 5, 5, 5)  # the most similar to the text that there is
    ours = ids_of(tiny_model, max_new_tokens=6, penalty_alpha=alpha, top_k=4, forced_ids=forced)
    assert tuple(ours[:4]) == forced


def test_it_stops_shows_text_and_leaves_the_training_mode(counting_model, make_tokenizer):
    tokenizer = make_tokenizer([chr(97 + i).encode() for i in range(32)])
    counting_model.train()
    config = GenerationConfig(max_new_tokens=20, penalty_alpha=0.1, top_k=2, stop_ids=(9,))
    events = list(contrastive_search(counting_model, [2], config, tokenizer=tokenizer))
    assert "".join(event.text for event in events) == "defghi"
    assert events[-1].finished_by == "stop_id"
    assert counting_model.training


def test_a_text_beyond_the_context_and_missing_settings_are_refused(tiny_model):
    with pytest.raises(DataError, match="context of 12 tokens, got a prompt of 4 and max_new_tokens=9"):
        contrastive_search(tiny_model, PROMPT, GenerationConfig(max_new_tokens=9, penalty_alpha=0.6, top_k=4))
    with pytest.raises(ConfigError, match="needs penalty_alpha and top_k"):
        contrastive_search(tiny_model, PROMPT, GenerationConfig())
    with pytest.raises(ConfigError, match="penalty_alpha needs top_k"):
        GenerationConfig(penalty_alpha=0.6)
    with pytest.raises(ConfigError, match=r"got penalty_alpha=0\.6 and temperature=1"):
        GenerationConfig(penalty_alpha=0.6, top_k=4, temperature=1.0)
