"""In an adapter folder the bias of a classifier's head is part of the norm's shift; the import restores it."""

import copy

import pytest
import torch

from scratchlm.checkpoints.names import GPT2
from scratchlm.finetuning.heads import class_logits, replace_head
from scratchlm.finetuning.peft_head import HEAD, SCORE, is_classifier, load_saved_modules, saved_modules
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel

IDS = torch.arange(12)[None]


@pytest.fixture
def base():
    torch.manual_seed(0)
    model = GPTModel(GPTConfig(vocab_size=40, context_length=12, emb_dim=16, n_heads=2, n_layers=1)).eval()
    torch.nn.init.normal_(model.final_norm.shift)
    return model


@pytest.fixture
def classifier(base):
    model = copy.deepcopy(base)
    replace_head(model, 3)
    return model.eval()


def by_our_names(saved):
    places = {
        SCORE: HEAD,
        "transformer.ln_f.weight": "final_norm.scale",
        "transformer.ln_f.bias": "final_norm.shift",
    }
    return {places[name]: tensor for name, tensor in saved.items()}


def test_a_head_as_wide_as_the_vocabulary_is_no_classifiers(base, classifier):
    assert [is_classifier(model) for model in (base, classifier)] == [False, True]


def test_the_head_comes_back_with_its_bias_and_leaves_the_norm_alone(base, classifier):
    load_saved_modules(base, by_our_names(saved_modules(classifier, GPT2)))
    torch.testing.assert_close(base.out_head.weight, classifier.out_head.weight)
    torch.testing.assert_close(base.out_head.bias, classifier.out_head.bias, atol=1e-5, rtol=0)
    assert torch.equal(base.final_norm.shift, classifier.final_norm.shift)


def test_a_head_without_a_bias_comes_alone(base, classifier):
    torch.nn.init.zeros_(classifier.out_head.bias)
    saved = saved_modules(classifier, GPT2)
    assert list(saved) == [SCORE]
    load_saved_modules(base, by_our_names(saved))
    assert base.out_head.bias is None


def test_a_norm_of_another_scale_replaces_the_models(base, classifier):
    torch.nn.init.normal_(classifier.final_norm.scale)
    load_saved_modules(base, by_our_names(saved_modules(classifier, GPT2)))
    assert torch.equal(base.final_norm.scale, classifier.final_norm.scale)
    with torch.no_grad():
        torch.testing.assert_close(
            class_logits(base, IDS), class_logits(classifier, IDS), atol=1e-4, rtol=1e-4
        )
