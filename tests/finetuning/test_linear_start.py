"""A random base starts as a linear model of its tokens; the reference is scikit-learn on the same counts."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from scratchlm.checkpoints.store import load_model
from scratchlm.core.errors import ConfigError
from scratchlm.data.label_split import LabelSplit
from scratchlm.evaluation.baselines import tfidf_scores
from scratchlm.finetuning.classification_task import predict, score_predictions
from scratchlm.finetuning.classifier_training import ClassifierTrainings, ClassifySettings
from scratchlm.finetuning.heads import class_logits, replace_head
from scratchlm.finetuning.input_format import InputFormat
from scratchlm.finetuning.linear_start import (
    LinearModel,
    bags_of_tokens,
    fit_linear_model,
    inverse_document_frequency,
    logistic_regression,
    start_as_linear_model,
)
from scratchlm.model.config import named_config
from scratchlm.model.gpt import GPTModel

CPU = torch.device("cpu")
CLASSES = ("bad", "good")


def words(generator, n_syllables=3):
    return "".join(generator.choice("bdfgklmnprst") + generator.choice("aeiou") for _ in range(n_syllables))


def rare_word_texts(n, *, seed):
    """Texts whose class is that of one word of 300, so that each occurs a few times, among 12 words of no class."""
    generator = random.Random(7)
    names = [words(generator) for _ in range(700)]
    marks = {"good": names[:150], "bad": names[150:300]}
    generator = random.Random(seed)
    texts, labels = [], []
    for i in range(n):
        label = CLASSES[i % 2]
        text = [generator.choice(names[300:]) for _ in range(generator.randint(4, 14))]
        text.insert(generator.randint(0, len(text)), generator.choice(marks[label]))
        text[0] = text[0].capitalize()
        texts.append(" ".join(text))
        labels.append(label)
    return texts, labels


@pytest.fixture(scope="module")
def rare():
    texts, labels = rare_word_texts(900, seed=1)
    rows = np.arange(900)
    return texts, labels, LabelSplit(train=rows[:600], val=rows[600:660], test=rows[660:])


def accuracy_of(rare, tmp_path, **settings):
    texts, labels, split = rare
    common = {"batch_size": 32, "eval_every_steps": 19, "drop_rate": 0.2, "max_length": 32}
    trainings = ClassifierTrainings(
        texts,
        labels,
        CLASSES,
        ClassifySettings(**common, **settings),
        base="random:tiny",
        device=CPU,
        out=tmp_path,
    )
    predictions = trainings.predict(trainings.train(split, None), split.test)
    return score_predictions(predictions, [labels[i] for i in split.test], CLASSES).balanced_accuracy


def test_classes_that_hang_on_rare_words_are_learnt_as_well_as_by_tfidf(rare, tmp_path):
    texts, labels, split = rare
    train, test = split.train.tolist(), split.test.tolist()
    baseline = tfidf_scores(
        [texts[i] for i in train],
        [labels[i] for i in train],
        [texts[i] for i in test],
        [labels[i] for i in test],
    ).balanced_accuracy
    linear = accuracy_of(rare, tmp_path, start="linear", learning_rate=3e-5, epochs=1)
    at_random = accuracy_of(rare, tmp_path, learning_rate=1e-3, position="mean", epochs=1)
    assert linear >= baseline - 0.02
    assert at_random < baseline - 0.1


def test_the_result_is_an_ordinary_model_folder(rare, tmp_path):
    texts, labels, split = rare
    settings = ClassifySettings(max_steps=1, start="linear", max_length=32)
    trainings = ClassifierTrainings(
        texts, labels, CLASSES, settings, base="random:tiny", device=CPU, out=tmp_path
    )
    trained = trainings.train(split, tmp_path / "run")
    saved = load_model(tmp_path / "run")
    again = predict(texts[:20], saved.model, saved.tokenizer, CLASSES, InputFormat.from_task(saved.task))
    assert again == trainings.predict(trained, range(20))


def small_counts():
    generator = np.random.default_rng(3)
    rows = [generator.integers(0, 40, generator.integers(3, 9)).tolist() for _ in range(120)]
    classes = torch.tensor([(sum(row) + len(row)) % 3 for row in rows])
    return rows, classes


def test_bags_are_those_of_scikit_learn():
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    rows, _ = small_counts()
    counts = np.array([np.bincount(row, minlength=40) for row in rows])
    idf = inverse_document_frequency(rows, 40)
    np.testing.assert_allclose(idf.numpy(), TfidfTransformer().fit(counts).idf_, rtol=1e-6)
    bags = bags_of_tokens(rows, idf).to_dense().numpy()
    np.testing.assert_allclose(bags, normalize(counts) * idf.numpy(), rtol=1e-5)


def test_logistic_regression_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rows, classes = small_counts()
    bags = bags_of_tokens(rows, torch.ones(40))
    penalty = 1e-2
    weights, bias = logistic_regression(bags, classes, class_weights=torch.ones(3), penalty=penalty)
    theirs = LogisticRegression(C=1 / (penalty * len(rows)), tol=1e-8, max_iter=5000)
    theirs.fit(bags.to_dense().numpy(), classes.numpy())
    ours = (bags.to_dense() @ weights + bias).softmax(dim=1).numpy()
    # both stop short of the minimum of a loss whose curvature is at least the penalty
    np.testing.assert_allclose(ours, theirs.predict_proba(bags.to_dense().numpy()), atol=2e-3)


def test_the_new_model_decides_as_the_linear_model():
    texts, labels = rare_word_texts(300, seed=2)
    classes = torch.tensor([CLASSES.index(label) for label in labels])
    linear = fit_linear_model(texts, classes, class_weights=torch.ones(2))
    model = GPTModel(named_config("tiny", vocab_size=linear.tokenizer.vocab_size)).eval()
    replace_head(model, 2)
    torch.manual_seed(0)
    start_as_linear_model(model, linear)
    others, _ = rare_word_texts(200, seed=3)
    rows = [linear.tokenizer.encode(text) for text in others]
    expected = (
        torch.sparse.mm(bags_of_tokens(rows, torch.ones(len(linear.weights))), linear.weights) + linear.bias
    )
    with torch.no_grad():
        found = torch.cat([class_logits(model, torch.tensor([row])) for row in rows])
    by_linear, by_model = expected[:, 1] - expected[:, 0], found[:, 1] - found[:, 0]
    assert torch.corrcoef(torch.stack([by_linear, by_model]))[0, 1] > 0.98
    assert ((by_linear > 0) == (by_model > 0)).float().mean() > 0.95


def test_upper_case_is_kept_only_where_it_tells_the_classes_apart():
    texts, labels = rare_word_texts(300, seed=4)
    classes = torch.tensor([CLASSES.index(label) for label in labels])
    shouted = [text.upper() if label == "good" else text for text, label in zip(texts, labels)]
    first = fit_linear_model(shouted, classes, class_weights=torch.ones(2)).tokenizer
    second = fit_linear_model(texts, classes, class_weights=torch.ones(2)).tokenizer
    assert first.encode("WORD") != first.encode("word")
    assert second.encode("Word word") == second.encode("word word")


def test_more_classes_than_the_model_is_wide_are_refused():
    model = GPTModel(named_config("tiny", vocab_size=300))
    replace_head(model, 128)
    linear = LinearModel(None, torch.zeros(300, 128), torch.zeros(128))
    with pytest.raises(ConfigError, match=r"fewer classes than the width.*got 128 classes and emb_dim=128"):
        start_as_linear_model(model, linear)


def test_a_trained_base_has_no_linear_start(rare, tmp_path):
    texts, labels, split = rare
    settings = ClassifySettings(max_steps=1, start="linear")
    trainings = ClassifierTrainings(texts, labels, CLASSES, settings, base="runs/x", device=CPU, out=tmp_path)
    with pytest.raises(ConfigError, match=r"start=linear is for a random base, got runs/x"):
        trainings.train(split, None)


@pytest.mark.parametrize("other", [{"position": "mean"}, {"train": "lora", "base_bits": 8}])
def test_settings_that_a_linear_start_cannot_serve_are_refused(other):
    with pytest.raises(ConfigError, match="start=linear needs position=last-real and no base_bits"):
        ClassifySettings(start="linear", **other)
