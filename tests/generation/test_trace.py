import json

import pytest
import torch

from scratchlm.core import seed
from scratchlm.generation.choose import TokenChooser
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate, generate_ids
from scratchlm.generation.trace import RowTrace

V = 50


def test_the_trace_is_plain_data_and_says_what_each_step_removed():
    logits = torch.randn(V, generator=seed.generator(0)) * 2
    trace = RowTrace()
    config = GenerationConfig(temperature=1.0, top_k=5, top_p=0.5)
    row = TokenChooser(config, [1], generator=seed.generator(0), tokenizer=None, trace=trace)
    choice = row.choose(logits)
    (step,) = json.loads(json.dumps(trace.steps))
    assert step["id"] == choice.id
    assert [removed["step"] for removed in step["removed"]] == ["top_k", "top_p"]
    assert step["removed"][0]["n"] == V - 5
    probs = logits.softmax(0)
    assert step["entropy"] == pytest.approx(float(-(probs * probs.log()).sum()), abs=1e-5)
    assert step["candidates"][0]["id"] == int(logits.argmax())
    assert step["candidates"][0]["prob"] == pytest.approx(float(probs.max()))
    assert sum(candidate["chosen_with"] for candidate in step["candidates"]) == pytest.approx(1.0)
    assert step["entropy_after"] < step["entropy"]


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "top_p": 0.9, "seed": 3}], ids=str)
def test_a_traced_text_is_the_same_text(tiny_model, settings):
    prompts, config = [[1, 2], [3]], GenerationConfig(max_new_tokens=5, **settings)
    traces = [RowTrace(), RowTrace()]
    list(generate(tiny_model, prompts, config, traces=traces))
    plain = generate_ids(tiny_model, prompts, config)
    for trace, text in zip(traces, plain):
        assert [step["id"] for step in trace.steps] == text.ids
        own = [{c["id"]: c["prob"] for c in step["candidates"]}[step["id"]] for step in trace.steps]
        assert own == pytest.approx(text.probs, abs=1e-6)  # a kernel's sum against PyTorch's


def test_a_chosen_token_is_a_candidate_however_unlikely():
    trace = RowTrace(n_candidates=2)
    config = GenerationConfig(forced_ids=(7,))
    TokenChooser(config, [1], generator=None, tokenizer=None, trace=trace).choose(-torch.arange(9.0))
    (step,) = trace.steps
    assert [candidate["id"] for candidate in step["candidates"]] == [0, 1, 7]
    assert step["removed"][0]["step"] == "forced_ids"
