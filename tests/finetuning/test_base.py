"""The base model of fine-tuning: loaded, or created with random weights."""

import pytest
import torch

from scratchlm.checkpoints.store import save_model
from scratchlm.core.errors import CheckpointError
from scratchlm.core.seed import seed_everything
from scratchlm.finetuning.base import RANDOM_VOCAB_SIZE, load_base
from scratchlm.finetuning.heads import replace_head

CLASSIFIER = {"kind": "classification", "classes": ["ham", "spam"], "max_length": 8}

CPU = torch.device("cpu")


def test_a_saved_base_comes_back_with_its_own_tokenizer(base_folder, base_tokenizer, tiny_model):
    base = load_base(str(base_folder), training_texts=[], device=CPU)
    assert not base.is_random
    assert base.task == {}
    assert base.tokenizer.fingerprint == base_tokenizer.fingerprint
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, base.model.state_dict()[name])


@pytest.mark.parametrize("drop_rate", [None, 0.0, 0.5])
def test_a_new_drop_rate_changes_nothing_but_dropout(base_folder, tiny_model, drop_rate):
    base = load_base(str(base_folder), training_texts=[], device=CPU, drop_rate=drop_rate)
    expected = tiny_model.config.drop_rate if drop_rate is None else drop_rate
    rates = {module.p for module in base.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {expected}
    assert base.model.config.drop_rate == expected
    assert base.model.out_head.weight is base.model.tok_emb.weight  # still tied
    assert torch.equal(base.model.tok_emb.weight, tiny_model.tok_emb.weight)


def test_a_random_base_is_a_function_of_seed_and_texts():
    bases = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        bases.append(load_base("random:tiny", training_texts=["the cat sat on the mat"] * 3, device=CPU))
    one, same, other = bases
    assert one.is_random
    assert one.tokenizer.vocab_size == one.model.config.vocab_size <= RANDOM_VOCAB_SIZE
    assert one.tokenizer.fingerprint == same.tokenizer.fingerprint
    assert torch.equal(one.model.tok_emb.weight, same.model.tok_emb.weight)
    assert not torch.equal(one.model.tok_emb.weight, other.model.tok_emb.weight)


def test_a_saved_classifier_is_refused_by_name(tiny_model, base_tokenizer, tmp_path):
    replace_head(tiny_model, 2)
    folder = save_model(tmp_path / "spam", tiny_model, base_tokenizer, task=CLASSIFIER)
    with pytest.raises(CheckpointError, match=r"spam is a classifier, not a language model; name"):
        load_base(str(folder), training_texts=[], device=CPU)


def test_a_path_without_a_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere must be a model folder.*got nothing"):
        load_base(str(tmp_path / "nowhere"), training_texts=[], device=CPU)


def test_an_assistants_task_comes_with_it(tiny_model, base_tokenizer, tmp_path):
    task = {"kind": "instruction", "template": "plain"}
    folder = save_model(tmp_path / "assistant", tiny_model, base_tokenizer, task=task)
    assert load_base(str(folder), training_texts=[], device=CPU).task == task
