"""A classifier's loss, metrics, predictions in order, and the choice of a threshold."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.batch import Batch
from scratchlm.core.errors import DataError
from scratchlm.data.classification_batches import ClassificationExamples
from scratchlm.data.loaders import BatchLoader
from scratchlm.finetuning.classification_task import (
    ClassificationTask,
    Prediction,
    Threshold,
    best_threshold,
    predict,
    replace_at_random,
)
from scratchlm.finetuning.heads import class_logits, replace_head
from scratchlm.finetuning.input_format import InputFormat
from scratchlm.tokenizers.bpe_trainer import train_bpe


@pytest.fixture
def classifier(tiny_model):
    replace_head(tiny_model, 2)
    return tiny_model


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(4)
    return Batch(
        inputs=torch.randint(0, 300, (5, 6), generator=generator), targets=torch.tensor([0, 1, 1, 1, 0])
    )


# --- the task


def test_each_text_is_weighed_by_its_class_while_training(classifier, batch):
    for module in classifier.modules():
        module.training = False
    classifier.training = True  # training, but with dropout off, so that the loss can be had twice
    weights = torch.tensor([0.5, 3.0])
    loss = ClassificationTask(class_weights=weights).loss_sum(classifier, batch)
    log_probs = class_logits(classifier, batch.inputs, None).log_softmax(dim=1)
    by_hand = -sum(float(weights[t]) * log_probs[i, t] for i, t in enumerate(batch.targets.tolist()))
    torch.testing.assert_close(loss, by_hand)
    logits = class_logits(classifier, batch.inputs, None)
    torch_mean = F.cross_entropy(logits, batch.targets, weight=weights)  # divides by the weights' sum
    torch.testing.assert_close(loss / weights[batch.targets].sum(), torch_mean)


def test_an_evaluation_knows_neither_class_weights_nor_smoothing(classifier, batch):
    classifier.eval()
    task = ClassificationTask(class_weights=torch.tensor([0.1, 9.0]), label_smoothing=0.3)
    plain = F.cross_entropy(class_logits(classifier, batch.inputs, None), batch.targets, reduction="sum")
    torch.testing.assert_close(task.loss_sum(classifier, batch), plain)


def test_metrics_count_every_text_once_whatever_its_batch(classifier, base_tokenizer, messages):
    examples = ClassificationExamples.from_texts(
        [row.text for row in messages], [row.label for row in messages], base_tokenizer, max_length=48
    )
    loader = BatchLoader(examples, batch_size=64, shuffle=False)  # the last batch is smaller
    metrics = ClassificationTask().metrics(classifier.train(), loader)
    classifier.eval()
    one_by_one = [examples.batch([i]) for i in range(len(examples))]
    with torch.no_grad():
        logits = torch.cat([class_logits(classifier, b.inputs, b.attention_mask) for b in one_by_one])
    targets = torch.cat([b.targets for b in one_by_one])
    assert metrics["accuracy"] == pytest.approx(float((logits.argmax(1) == targets).float().mean()))
    assert metrics["loss"] == pytest.approx(float(F.cross_entropy(logits, targets)), rel=1e-5)


# --- predictions


def test_predictions_keep_the_order_and_do_not_depend_on_the_batch(classifier, base_tokenizer, messages):
    texts = [row.text * (1 + i % 3) for i, row in enumerate(messages[:20])]
    classes = ("ham", "spam")
    together = predict(texts, classifier, base_tokenizer, classes, InputFormat(max_length=48), batch_size=7)
    assert [p.text for p in together] == texts
    for text, prediction in zip(texts, together):
        alone = predict([text], classifier, base_tokenizer, classes, InputFormat(max_length=48))[0]
        assert alone.label == prediction.label
        assert alone.probability == pytest.approx(prediction.probability, abs=1e-5)
        assert 0.5 <= prediction.probability <= 1


def test_a_text_longer_than_the_model_reads_is_marked(classifier, base_tokenizer):
    texts = ["win", "a prize now " * 30, "see you"]
    found = predict(texts, classifier, base_tokenizer, ("ham", "spam"), InputFormat(max_length=10))
    assert [p.is_truncated for p in found] == [False, True, False]


def test_no_texts_give_no_predictions(classifier, base_tokenizer):
    assert predict([], classifier, base_tokenizer, ("ham", "spam"), InputFormat(max_length=10)) == []


def test_an_empty_text_is_refused(classifier, base_tokenizer):
    with pytest.raises(DataError, match="text 1 is empty"):
        predict(["fine", "  "], classifier, base_tokenizer, ("ham", "spam"), InputFormat(max_length=10))


NOISE = st.text(alphabet=st.sampled_from("ab <|>endoftx \n"), max_size=20)


@settings(max_examples=60, deadline=None)
@given(before=NOISE, after=NOISE)
def test_a_message_never_becomes_a_special_token(before, after):
    tokenizer = train_bpe(["ab <|endoftext|> end of text"], 280)
    text = f"{before}<|endoftext|>{after}"
    examples = ClassificationExamples.from_texts([text, "b"], ["x", "y"], tokenizer, max_length=400)
    batch = examples.batch([0, 1])
    assert not (batch.inputs[batch.attention_mask] == tokenizer.end_of_text_id).any()
    assert tokenizer.decode(batch.inputs[0][batch.attention_mask[0]].tolist()) == text


# --- thresholds


def said(probability: float) -> Prediction:
    return Prediction(text="x", label="a", probability=1, probabilities=(1 - probability, probability))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5001, 0.8, 1.0]), st.sampled_from("ab")),
        min_size=1,
        max_size=12,
    )
)
def test_no_threshold_judges_both_classes_better_than_the_chosen_one(rows):
    rows = [*rows, (0.3, "a"), (0.3, "b")]  # both are there
    predictions, labels = [said(p) for p, _ in rows], [label for _, label in rows]
    chosen = best_threshold(predictions, labels, ("a", "b"))

    def right(threshold):
        decided = ["b" if p >= threshold else "a" for p, _ in rows]
        shares = [
            Fraction(sum(d == label == name for d, label in zip(decided, labels)), labels.count(name))
            for name in "ab"
        ]
        return sum(shares)

    tried = [-1.0, 2.0, *(p + shift for p, _ in rows for shift in (-1e-9, 0.0, 1e-9))]
    assert right(chosen.probability) >= max(right(t) for t in tried if 0 <= t <= 1)


def test_a_rare_class_weighs_as_much_as_a_common_one():
    rows = [*((0.2, "a") for _ in range(90)), *((0.6, "a") for _ in range(10)), (0.4, "b"), (0.9, "b")]
    predictions, labels = [said(p) for p, _ in rows], [label for _, label in rows]
    assert best_threshold(predictions, labels, ("a", "b")).probability == pytest.approx(0.3)


def test_a_threshold_without_texts_of_one_class_is_refused():
    with pytest.raises(DataError, match="needs texts of both classes, got 1 and 0"):
        best_threshold([said(0.5)], ["a"], ("a", "b"))


def test_a_threshold_decides_between_two_classes(classifier, base_tokenizer):
    texts = ["see you", "win a prize"]
    plain = predict(texts, classifier, base_tokenizer, ("ham", "spam"), InputFormat(max_length=10))
    for probability, label in ((0.0, "spam"), (1.0, "ham")):
        threshold = Threshold(label="spam", probability=probability)
        found = predict(
            texts,
            classifier,
            base_tokenizer,
            ("ham", "spam"),
            InputFormat(max_length=10),
            threshold=threshold,
        )
        assert [p.label for p in found] == [label, label]
        assert [p.probabilities for p in found] == [p.probabilities for p in plain]
        assert all(p.probability == p.probabilities[label == "spam"] for p in found)


def test_a_threshold_between_three_classes_is_refused():
    with pytest.raises(DataError, match="needs exactly two classes, got 3"):
        best_threshold([said(0.5)], ["a"], ("a", "b", "c"))


def test_losses_of_half_precision_logits_are_added_up_in_float32(monkeypatch):
    """In bfloat16 a sum of 1,000 losses of about 0.7 would be off by whole nats."""
    logits = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(1000) % 2
    batch = Batch(inputs=torch.zeros(1000, 1, dtype=torch.long), targets=targets)
    monkeypatch.setattr(ClassificationTask, "logits", lambda self, model, batch: logits)
    exact = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum").item()
    task, model = ClassificationTask(class_weights=torch.ones(2)), torch.nn.Linear(1, 1)
    allowed = 1000 * torch.finfo(torch.float32).eps * exact  # each addition rounds once
    assert task.loss_sum(model, batch).dtype == torch.float32
    assert abs(task.loss_sum(model, batch).item() - exact) <= allowed
    assert abs(1000 * task.metrics(model, [batch])["loss"] - exact) <= allowed


def test_token_noise_replaces_a_share_of_the_tokens_while_training_only(tiny_model, generator):
    ids = torch.randint(0, tiny_model.config.vocab_size, (40, 12), generator=generator)
    noisy = replace_at_random(ids, 0.25, vocab_size=tiny_model.config.vocab_size)
    share = (noisy != ids).float().mean().item()  # of 480: one standard deviation is 0.02
    assert 0.15 < share < 0.35
    batch = Batch(inputs=ids, targets=torch.zeros(40, dtype=torch.long))
    replace_head(tiny_model, 2)
    tiny_model.eval()
    plain, noise = ClassificationTask(), ClassificationTask(token_noise=0.5)
    assert torch.equal(plain.logits(tiny_model, batch), noise.logits(tiny_model, batch))
    tiny_model.train()
    assert not torch.equal(plain.logits(tiny_model, batch), noise.logits(tiny_model, batch))
