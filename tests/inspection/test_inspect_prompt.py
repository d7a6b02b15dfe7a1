import dataclasses
import json

import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.finetuning.classification_task import predict
from scratchlm.finetuning.heads import replace_head
from scratchlm.finetuning.input_format import InputFormat
from scratchlm.finetuning.lora import lora_parameters, replace_linear_with_lora
from scratchlm.inspection.attention_maps import attention_maps
from scratchlm.inspection.inspect_prompt import inspect_prompt
from scratchlm.inspection.traces import token_probabilities
from scratchlm.quantization.apply import quantize_model
from scratchlm.quantization.config import QuantizationConfig
from tests.inspection.conftest import VARIANTS, varied

TEXT = "The cat sat on the mat and the cat"
TASK = {"kind": "classification", "classes": ["ham", "spam", "other"], "max_length": 32}
WITHIN = 1e-4  # of the logits; float32 sums of some 20 parts


def classifier(variant, *, is_causal=True):
    model = varied(dataclasses.replace(VARIANTS[variant], is_causal=is_causal))
    torch.manual_seed(2)
    replace_head(model, 3)
    if model.out_head.bias is not None:  # beside an RMSNorm a head has none
        model.out_head.bias = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))
    return model.eval()


def test_tokens_have_the_models_own_losses_ranks_and_alternatives(any_model, tiny_tokenizer):
    found = inspect_prompt(any_model, tiny_tokenizer, TEXT)
    ids = tiny_tokenizer.encode(TEXT)
    assert [token.id for token in found.tokens] == ids
    assert "".join(token.text for token in found.tokens) == TEXT
    assert found.tokens[0].loss is None
    for token, expected in zip(found.tokens[1:], token_probabilities(any_model, ids), strict=True):
        assert token.rank == expected.rank
        assert token.loss == pytest.approx(expected.loss, abs=1e-4)
        assert [other.id for other in token.alternatives] == [id_ for id_, _ in expected.alternatives]


def test_choices_are_the_most_likely_tokens_and_the_targets(any_model, tiny_tokenizer):
    found = inspect_prompt(any_model, tiny_tokenizer, TEXT, targets=[" cat"], n_choices=2)
    with torch.no_grad():
        logits = any_model(torch.tensor([tiny_tokenizer.encode(TEXT)]))[0, -1]
    best = logits.argsort(descending=True)[:2].tolist()
    assert [choice.id for choice in found.choices] == list(
        dict.fromkeys([*best, *tiny_tokenizer.encode(" cat")])
    )
    for choice in found.choices:
        assert choice.logit == pytest.approx(logits[choice.id].item(), abs=WITHIN)
        assert choice.parts.total() == pytest.approx(choice.logit, abs=WITHIN)
    assert found.mean_logit == pytest.approx(logits.mean().item(), abs=WITHIN)
    assert found.mean_parts.total() == pytest.approx(found.mean_logit, abs=WITHIN)


@pytest.mark.parametrize("position", ["last-real", "first", "mean"])
@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_a_classifiers_parts_add_up_and_its_probabilities_are_those_of_classify(
    variant, position, tiny_tokenizer
):
    model, task = classifier(variant, is_causal=False), {**TASK, "position": position}
    found = inspect_prompt(model, tiny_tokenizer, TEXT, task=task)
    [prediction] = predict([TEXT], model, tiny_tokenizer, TASK["classes"], InputFormat.from_task(task))
    assert found.choices[0].text == prediction.label
    assert found.choices[0].prob == pytest.approx(prediction.probability, abs=1e-5)
    assert sorted(choice.text for choice in found.choices) == sorted(TASK["classes"])
    for choice in found.choices:
        assert choice.parts.total() == pytest.approx(choice.logit, abs=WITHIN)
    assert found.mean_parts.total() == pytest.approx(found.mean_logit, abs=WITHIN)
    assert [len(row) for row in found.lens] == [1, 1, 1]
    assert found.lens[-1][0].prob == pytest.approx(found.choices[0].prob, abs=1e-5)
    assert {token.loss for token in found.tokens} == {None}
    assert len(found.attention[0][0][0]) == len(found.tokens), "not causal: rows are not cut"


@pytest.mark.parametrize("kind", ["gpt2", "llama", "classifier"])
def test_gradient_times_input_is_the_effect_of_scaling_a_tokens_embedding(kind, tiny_tokenizer):
    """The derivative of (logit - mean logit) when one embedding grows, by central differences in float64."""
    task = TASK if kind == "classifier" else None
    model = (classifier("gpt2") if task else varied(VARIANTS[kind])).double()
    found = inspect_prompt(model, tiny_tokenizer, TEXT, task=task)
    ids = torch.tensor([[token.id for token in found.tokens]])
    small = 1e-4

    def score(position: int, factor: float, number: int) -> float:
        with torch.no_grad():
            x, context = model.embed(ids)
            x[:, position] *= factor
            logits = model.out_head(model.final_norm(model.run_blocks(x, context)))[0, -1]
        return (logits[number] - logits.mean()).item()

    for choice in found.choices[:2]:
        effects = [
            (score(i, 1 + small, choice.id) - score(i, 1 - small, choice.id)) / (2 * small)
            for i in range(ids.shape[1])
        ]
        assert choice.saliency == pytest.approx(effects, abs=1e-6)  # the error of the differences is small^2


def test_norms_heads_and_attention_are_those_of_the_pass(any_model, tiny_tokenizer):
    found = inspect_prompt(any_model, tiny_tokenizer, TEXT)
    ids = torch.tensor([[token.id for token in found.tokens]])
    n = ids.shape[1]
    maps = attention_maps(any_model, ids)[:, 0]
    for layer in range(2):
        for head in range(4):
            for i, row in enumerate(found.attention[layer][head]):
                assert row == pytest.approx(maps[layer, head, i, : i + 1].tolist(), abs=0.0005)
                assert row == [round(weight, 3) for weight in row]
    with torch.no_grad():
        stream, context = any_model.embed(ids)
        after = any_model.run_blocks(stream, context)
        attended = any_model.trf_blocks[0].att(any_model.trf_blocks[0].norm1(stream), context)
    assert found.norms.residual[0] == pytest.approx(stream[0].norm(dim=-1).tolist(), rel=1e-5)
    assert found.norms.residual[2] == pytest.approx(after[0].norm(dim=-1).tolist(), rel=1e-5)
    assert found.norms.attention[0] == pytest.approx(attended[0].norm(dim=-1).tolist(), rel=1e-5)
    assert [len(row) for row in found.norms.feed_forward] == [n, n]
    assert found.heads[1][2].previous == pytest.approx(maps[1, 2].diagonal(offset=-1).mean().item(), abs=1e-6)


def test_the_result_is_plain_json_of_bounded_size(any_model, tiny_tokenizer):
    found = inspect_prompt(any_model, tiny_tokenizer, TEXT, n_top=2)
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert plain == found.as_json()
    assert list(plain) == [field.name for field in dataclasses.fields(found)]
    assert len(plain["tokens"][1]["alternatives"]) == len(plain["tokens"][1]["nearest"]) == 2
    assert len(plain["lens"][0][0]["top"]) == 2
    total = plain["choices"][0]["parts"]
    assert sum(map(sum, total["heads"])) + sum(
        total["attention_bias"] + total["feed_forward"]
    ) == pytest.approx(
        plain["choices"][0]["logit"] - total["embedding"] - total["position"] - total["constant"], abs=WITHIN
    )


def test_the_model_is_left_as_it_was(any_model, tiny_tokenizer):
    any_model.train()
    inspect_prompt(any_model, tiny_tokenizer, TEXT)
    assert any_model.training
    assert all(parameter.grad is None for parameter in any_model.parameters())
    assert not any(module._forward_hooks for module in any_model.modules())


def test_a_single_token_can_be_inspected(any_model, tiny_tokenizer):
    found = inspect_prompt(any_model, tiny_tokenizer, "t")
    assert [token.loss for token in found.tokens] == [None]
    assert found.attention[0][0] == [[1.0]]
    assert len(found.lens[0]) == 1


def test_what_cannot_be_inspected_is_an_error(tiny_tokenizer):
    model = varied(VARIANTS["gpt2"])
    with pytest.raises(DataError, match=r"must have 1 to 64 tokens, got 0; give a longer text"):
        inspect_prompt(model, tiny_tokenizer, "")
    with pytest.raises(DataError, match=r"must have 1 to 3 tokens, got \d+; shorten it .*--max-tokens"):
        inspect_prompt(model, tiny_tokenizer, TEXT, max_tokens=3)
    with pytest.raises(DataError, match="at most 32 tokens, got 40"):
        inspect_prompt(model, tiny_tokenizer, "x" * 40)
    with pytest.raises(ConfigError, match="n_top must be at least 1"):
        inspect_prompt(model, tiny_tokenizer, TEXT, n_top=0)
    with pytest.raises(ConfigError, match="attends to the future"):
        inspect_prompt(varied(dataclasses.replace(VARIANTS["gpt2"], is_causal=False)), tiny_tokenizer, TEXT)
    with torch.no_grad():
        model.final_norm.scale[0] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        inspect_prompt(model, tiny_tokenizer, TEXT)


@pytest.mark.parametrize("change", ["8 bits", "adapters"])
def test_a_quantized_model_and_one_with_adapters_are_taken_apart_as_well(change, tiny_tokenizer):
    model = varied(dataclasses.replace(VARIANTS["llama"], emb_dim=32, ff_dim=32))
    if change == "8 bits":
        assert quantize_model(model, QuantizationConfig(bits=8)) == []
    else:
        replace_linear_with_lora(model, rank=2, alpha=4.0)
        for parameter in lora_parameters(model):
            torch.nn.init.normal_(parameter, std=0.1)
    found = inspect_prompt(model.eval(), tiny_tokenizer, TEXT)
    with torch.no_grad():
        logits = model(torch.tensor([[token.id for token in found.tokens]]))[0, -1]
    for choice in found.choices:
        assert choice.logit == pytest.approx(logits[choice.id].item(), abs=WITHIN)
        assert choice.parts.total() == pytest.approx(choice.logit, abs=WITHIN)
        assert any(choice.saliency)
