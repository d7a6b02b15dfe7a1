"""A real assistant: SmolLM2 135M as a GGUF file of Q4_1 matrices, beside transformers' own reading of the file."""

import json

import pytest
import torch

from benchmarks.llama_cpp import N_NEW, in_llama_cpp
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.data.assistant_prompt import assistant_prompt, chosen_template
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_rows import Instruction
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.generation.native.kernel import NativeForward
from scratchlm.generation.work import Work
from scratchlm.inspection.inspect_prompt import inspect_prompt
from scratchlm.model import KVCache
from scratchlm.serving.language_model import load

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):",
    "1, 2, 3, 5, 8,",
    "Water boils at",
]
TURNS = ["Hello! Who are you?", "What is the capital of Japan?", "Name one thing to see there."]


@pytest.fixture(scope="module")
def file(real_data):
    if not (real_data / "weights" / NAME).is_file():
        pytest.skip(f"{NAME} not found in {real_data / 'weights'}")
    return real_data / "weights" / NAME


@pytest.fixture(scope="module")
def ours(file):
    return load(file, device="cpu")


@pytest.fixture(scope="module")
def theirs(file):
    """transformers' model, with weights unpacked and arranged by transformers."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def their_tokenizer(file):
    return transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def test_logits_are_those_of_transformers(ours, theirs):
    """The same weights and the same order of operations: no difference was seen; 1e-4 is 3e-6 of the largest logit."""
    ids = torch.randint(0, ours.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), theirs(ids).logits, rtol=0, atol=1e-4)


def test_logits_of_the_kernel_are_those_of_pytorch(ours):
    """Both differ from float64 by up to 6e-5, at logits of up to 28."""
    text = "The capital of France is Paris. The capital of Italy is Rome, and that of Japan is Tokyo."
    ids = ours.tokenizer.encode(text)
    forward = NativeForward(ours.model, KVCache(ours.config, 1, capacity=len(ids)))
    with torch.no_grad():
        [scores] = forward([Work(0, ids, len(ids))])
        assert scores is not None
        torch.testing.assert_close(scores.logits, ours.model(torch.tensor([ids]))[0], rtol=0, atol=1e-4)


def test_greedy_texts_are_those_of_transformers_and_of_llama_cpp(ours, theirs, tmp_path):
    """llama.cpp would multiply Q4_1 matrices with rounded activations, so it is given the same weights in float32."""
    pytest.importorskip("xllamacpp")
    prompts = [ours.tokenizer.encode(prompt) for prompt in PROMPTS]
    config = GenerationConfig(max_new_tokens=N_NEW, stop_ids=ours.stop_ids)
    written = [generate_ids(ours.model, [ids], config)[0].ids for ids in prompts]
    path = export_gguf(tmp_path / "f32.gguf", ours.model, ours.tokenizer, task=ours.task)
    peer = in_llama_cpp(path, prompts=prompts, texts=PROMPTS, question=TURNS[0])
    assert peer["ids"] == prompts
    for ids, mine, of_peer in zip(prompts, written, peer["written"], strict=True):
        [whole] = theirs.generate(torch.tensor([ids]), max_new_tokens=N_NEW, do_sample=False, eos_token_id=2)
        assert without_end(whole[len(ids) :].tolist(), ours.stop_ids) == mine
        assert without_end(of_peer, ours.stop_ids) == mine
    assert peer["prompt"] == chosen_template(ours.task).render([{"role": "user", "content": TURNS[0]}])


def without_end(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    return ids[:-1] if ids and ids[-1] in ends else ids


def test_a_conversation_is_written_as_by_apply_chat_template_and_keeps_its_turns(ours, their_tokenizer):
    said: list[tuple[str, str]] = []
    messages: list[dict[str, str]] = []
    for question in TURNS:
        messages.append({"role": "user", "content": question})
        entry = Instruction(
            instruction=question, input="", output="", history=tuple(Exchange(*pair) for pair in said)
        )
        prompt = assistant_prompt(chosen_template(ours.task), entry, ours.task, ours.tokenizer)
        expected = their_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        assert prompt.ids == expected["input_ids"]
        answer = ours.ask(question, history=said, max_new_tokens=60)
        assert answer
        assert "<|im_" not in answer
        said.append((question, answer))
        messages.append({"role": "assistant", "content": answer})
    assert "Tokyo" in said[1][1]
    assert "Tokyo" in said[2][1]  # "there" is known from the turn before


def test_an_inspection_finds_the_fact_and_its_parts_add_up(ours):
    """The prompt repeats a pattern, so that the capital is found by attention to the first sentence."""
    text = "The capital of France is Paris. The capital of Italy is"
    found = inspect_prompt(ours.model, ours.tokenizer, text, task=ours.task, targets=[" Milan"])
    assert [choice.text for choice in found.choices][::3] == [" Rome", " Milan"]
    for choice in found.choices:
        assert choice.parts.total() == pytest.approx(choice.logit, abs=1e-4)
    assert found.lens[-1][-1].top[0].text == " Rome"
    assert {token.loss is None for token in found.tokens[1:]} == {False}
    best = max(
        (head.induction, layer, i) for layer, row in enumerate(found.heads) for i, head in enumerate(row)
    )
    assert best[0] > 0.5, "some head attends to what followed the earlier occurrence"
    weights = found.attention[best[1]][best[2]][-1]
    assert found.tokens[weights.index(max(weights))].text == " Paris"
    assert len(json.dumps(found.as_json())) < 1e6
