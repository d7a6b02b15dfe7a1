"""Trainings of one base share an activation cache; the full procedure is tested in test_classification.py."""

import pytest
import torch

from scratchlm.core.errors import ConfigError
from scratchlm.data.label_split import LabelSplit
from scratchlm.finetuning.classification_task import predict
from scratchlm.finetuning.classifier_training import ClassifierTrainings, ClassifySettings

CPU = torch.device("cpu")


def test_trainings_of_one_base_share_what_its_blocks_made(messages, base_folder, tmp_path):
    settings = ClassifySettings(
        max_steps=2, batch_size=8, eval_every_steps=0, checkpoint_every_steps=0, train="last-block"
    )
    texts, labels = [row.text for row in messages], [row.label for row in messages]
    trainings = ClassifierTrainings(
        texts, labels, ("ham", "spam"), settings, base=str(base_folder), device=CPU, out=tmp_path
    )
    rows = torch.arange(len(texts)).numpy()
    split = LabelSplit(train=rows[50:120], val=rows[40:50], test=rows[30:40])
    one = trainings.train(split, None)
    n_cached = trainings.n_cached
    other = trainings.train(split, None, seed=5)
    assert one.cache is other.cache
    assert trainings.n_cached == n_cached == len({texts[i] for i in (*split.train, *split.val)})
    assert [p.text for p in trainings.predict(other, split.test)] == [texts[i] for i in split.test]
    assert not torch.equal(one.base.model.out_head.weight, other.base.model.out_head.weight)
    trainings.close()
    assert len(one.cache) == 0


@pytest.mark.parametrize("drop_rate", [-0.1, 1.0, float("nan")])
def test_dropout_that_cannot_be_is_refused_before_any_text_is_read(drop_rate):
    with pytest.raises(ConfigError, match="drop_rate must be at least 0 and below 1"):
        ClassifySettings(drop_rate=drop_rate)


def test_fresh_weights_of_another_vocabulary_have_a_cache_of_their_own(messages, tmp_path):
    settings = ClassifySettings(
        max_steps=1, batch_size=8, eval_every_steps=0, checkpoint_every_steps=0, train="last-block"
    )
    texts, labels = [row.text for row in messages], [row.label for row in messages]
    trainings = ClassifierTrainings(
        texts, labels, ("ham", "spam"), settings, base="random:tiny", device=CPU, out=tmp_path
    )
    rows = torch.arange(len(texts)).numpy()
    few = trainings.train(LabelSplit(train=rows[60:90], val=rows[40:50], test=rows[30:40]), None)
    more = trainings.train(LabelSplit(train=rows[50:120], val=rows[40:50], test=rows[30:40]), None)
    assert few.base.tokenizer.fingerprint != more.base.tokenizer.fingerprint
    assert few.cache is not more.cache
    assert len(few.cache) == 0, "one cache at a time keeps within the budget"
    said = trainings.predict(more, range(30, 40))
    trainings.close()
    plain = predict(texts[30:40], more.base.model, more.base.tokenizer, ("ham", "spam"), more.input_format)
    for cached, again in zip(said, plain):
        assert cached.probabilities == pytest.approx(again.probabilities, abs=1e-5)
