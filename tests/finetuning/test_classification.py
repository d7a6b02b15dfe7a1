"""Classifiers: the task, the split that near-copies cannot flatter, predictions, and the whole way there."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.checkpoints.store import load_model, save_model
from scratchlm.core.batch import Batch
from scratchlm.core.errors import CheckpointError, ConfigError, DataError
from scratchlm.data.classification import ClassificationExamples, LabelledText
from scratchlm.data.label_split import class_counts
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.near_duplicates import group_near_duplicates
from scratchlm.finetuning import classification
from scratchlm.finetuning.classification import (
    ClassificationTask,
    ClassifySettings,
    finetune_classifier,
    leak_free_split,
    predict,
)
from scratchlm.finetuning.heads import class_logits, replace_head
from scratchlm.tokenizers.bpe_training import train_bpe
from scratchlm.training.interrupts import StoppedBySignal

CPU = torch.device("cpu")
QUICK = {
    "max_steps": 40, "batch_size": 16, "learning_rate": 1e-2, "warmup_steps": 2, "eval_every_steps": 20,
    "train": "all", "compare_raw_split": False, "checkpoint_every_steps": 0,
}  # fmt: skip


def quick(**changes):
    return ClassifySettings(**{**QUICK, **changes})


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


# --- the split


def split_of(rows, seed=1):
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    return leak_free_split(texts, labels, group_near_duplicates(texts), seed=seed)


def by_text(rows, split):
    return {side: sorted(rows[i].text for i in getattr(split, side)) for side in ("train", "val", "test")}


def test_no_group_of_near_duplicates_stands_on_two_sides(messages):
    groups = group_near_duplicates([row.text for row in messages])
    assert len(set(groups)) == len(messages) - 10
    split = split_of(messages)
    sides = [{groups[i] for i in side} for side in (split.train, split.val, split.test)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


@pytest.mark.parametrize("side", ["val", "test"])
def test_test_sides_hold_one_text_per_group_and_as_many_of_each_class(messages, side):
    groups = group_near_duplicates([row.text for row in messages])
    indices = getattr(split_of(messages), side).tolist()
    assert len({groups[i] for i in indices}) == len(indices)
    counts = class_counts([row.label for row in messages], indices)
    assert len(counts) == 2
    assert len(set(counts.values())) == 1


@settings(max_examples=10, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(order):
    rows = [LabelledText(text=f"{'win' if i % 3 else 'see'} {i * 7919:x} {i * 31:b}", label=str(i % 3 == 0))
            for i in range(90)]  # fmt: skip
    rows += [LabelledText(text=row.text.upper(), label=row.label) for row in rows[:12]]
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert by_text(rows, split_of(rows)) == by_text(shuffled, split_of(shuffled))


def test_a_text_that_comes_with_two_labels_is_judged_by_the_same_one_in_any_order(messages):
    rows = messages + [
        LabelledText(text=row.text, label={"spam": "ham", "ham": "spam"}[row.label]) for row in messages[::3]
    ]
    turned = rows[::-1]
    one, other = ({(r[i].text, r[i].label) for i in split_of(r).test} for r in (rows, turned))
    assert one == other


def test_a_new_row_moves_nothing_but_its_own_group(messages):
    before = split_of(messages)
    groups = group_near_duplicates([row.text for row in messages])
    side_of = {groups[i]: name for name in ("train", "val", "test") for i in getattr(before, name)}
    for text in ("something quite different", messages[3].text + "?!", messages[100].text.lower()):
        rows = [*messages, LabelledText(text=text, label="ham")]
        after = split_of(rows)
        names = group_near_duplicates([row.text for row in rows])
        assert names[:-1] == groups
        moved = {
            names[i] for name in ("train", "val", "test") for i in getattr(after, name)
            if names[i] in side_of and side_of[names[i]] != name
        }  # fmt: skip
        assert not moved
        assert [i for i in after.train if i < len(messages)] == before.train.tolist()


def test_too_few_texts_for_three_sides_are_refused():
    rows = [LabelledText(text=f"text {word}", label=label) for word, label in zip("abcd", "xyxy")]
    with pytest.raises(DataError, match="rows of every class"):
        split_of(rows)


# --- predictions


def test_predictions_keep_the_order_and_do_not_depend_on_the_batch(classifier, base_tokenizer, messages):
    texts = [row.text * (1 + i % 3) for i, row in enumerate(messages[:20])]
    classes = ("ham", "spam")
    together = predict(texts, classifier, base_tokenizer, classes, 48, batch_size=7)
    assert [p.text for p in together] == texts
    for text, prediction in zip(texts, together):
        alone = predict([text], classifier, base_tokenizer, classes, 48)[0]
        assert alone.label == prediction.label
        assert alone.probability == pytest.approx(prediction.probability, abs=1e-5)
        assert 0.5 <= prediction.probability <= 1


def test_a_text_longer_than_the_model_reads_is_marked(classifier, base_tokenizer):
    texts = ["win", "a prize now " * 30, "see you"]
    found = predict(texts, classifier, base_tokenizer, ("ham", "spam"), 10)
    assert [p.is_truncated for p in found] == [False, True, False]


def test_no_texts_give_no_predictions(classifier, base_tokenizer):
    assert predict([], classifier, base_tokenizer, ("ham", "spam"), 10) == []


def test_an_empty_text_is_refused(classifier, base_tokenizer):
    with pytest.raises(DataError, match="text 1 must not be empty"):
        predict(["fine", "  "], classifier, base_tokenizer, ("ham", "spam"), 10)


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


# --- the whole way


def test_a_saved_base_learns_to_tell_messages_apart_and_counts_what_it_saw(messages, base_folder, tmp_path):
    out = tmp_path / "run"
    result = finetune_classifier(messages, quick(), out, base=str(base_folder), device=CPU)
    assert (result.rows, result.groups) == (190, 180)
    assert result.classes == ("ham", "spam")
    assert result.scores.n == len(result.split.test) == len(result.predictions)
    assert result.scores.accuracy >= 0.95
    assert result.scores_raw is None
    assert [p.text for p in result.predictions] == [messages[i].text for i in result.split.test]
    right = sum(p.label == messages[i].label for p, i in zip(result.predictions, result.split.test))
    assert result.scores.n_right == right
    assert result.progress.step == 40
    assert result.n_truncated == 0
    saved = load_model(out)
    assert saved.task == {"kind": "classification", "classes": ["ham", "spam"], "max_length": 48}
    assert saved.manifest["base"] == str(base_folder)
    again = predict([p.text for p in result.predictions], saved.model, saved.tokenizer, result.classes, 48)
    assert [p.label for p in again] == [p.label for p in result.predictions]


def test_the_books_split_is_tried_with_a_model_of_its_own(messages, base_folder, tmp_path):
    result = finetune_classifier(
        messages,
        quick(compare_raw_split=True, max_steps=3),
        tmp_path / "run",
        base=str(base_folder),
        device=CPU,
    )
    assert result.scores_raw is not None
    assert result.scores_raw.n == 150 - 105 - 15  # 75 of each class, cut 70 / 10 / 20
    assert load_model(tmp_path / "run" / "raw-split").manifest["step"] == 3


@pytest.mark.parametrize("stop_step", [1, 4])
def test_an_interrupted_classifier_resumes_bit_for_bit(messages, base_folder, tmp_path, stop_at, stop_step):
    chosen = quick(max_steps=6, checkpoint_every_steps=3, train="last-block", drop_rate=0.2)
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    undisturbed = finetune_classifier(messages, chosen, tmp_path / "a", **arguments)
    with pytest.raises(StoppedBySignal):
        finetune_classifier(messages, chosen, tmp_path / "b", callbacks=[stop_at(stop_step)], **arguments)
    torch.rand(7)
    resumed = finetune_classifier(messages, chosen, tmp_path / "b", **arguments)
    assert (undisturbed.resumed_from, resumed.resumed_from) == (None, stop_step)
    assert resumed.predictions == undisturbed.predictions
    one, other = (load_model(tmp_path / name).model.state_dict() for name in "ab")
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_random_base_learns_its_tokenizer_from_the_training_side(messages, tmp_path):
    result = finetune_classifier(
        messages,
        quick(max_steps=2, batch_size=4, train=None),
        tmp_path / "run",
        base="random:tiny",
        device=CPU,
    )
    saved = load_model(tmp_path / "run")
    assert saved.config.emb_dim == 128
    assert saved.config.vocab_size == saved.tokenizer.vocab_size
    assert result.n_trained == saved.model.n_parameters()  # all of a random base learns
    assert saved.tokenizer.decode(saved.tokenizer.encode("WIN a prize now")) == "WIN a prize now"


def test_the_last_block_of_a_trained_base_learns_unless_told_otherwise(messages, base_folder, tmp_path):
    result = finetune_classifier(
        messages, quick(max_steps=1, train=None), tmp_path / "run", base=str(base_folder), device=CPU
    )
    start, end = load_model(base_folder).model, load_model(tmp_path / "run").model
    assert torch.equal(start.trf_blocks[1].ff.layers[0].weight, end.trf_blocks[1].ff.layers[0].weight)
    assert not torch.equal(start.trf_blocks[2].ff.layers[0].weight, end.trf_blocks[2].ff.layers[0].weight)
    assert result.n_trained < end.n_parameters()


def test_an_unknown_random_size_is_refused(messages, tmp_path):
    with pytest.raises(ConfigError, match=r"random:tiny, random:small.*got 'random:huge'"):
        finetune_classifier(messages, quick(), tmp_path / "run", base="random:huge", device=CPU)


def test_a_classifier_is_no_base(messages, classifier, base_tokenizer, tmp_path):
    folder = save_model(tmp_path / "c", classifier, base_tokenizer, task={"kind": "classification"})
    with pytest.raises(CheckpointError, match="found a classifier"):
        finetune_classifier(messages, quick(), tmp_path / "run", base=str(folder), device=CPU)


def test_three_classes_keep_their_names(messages, base_folder, tmp_path):
    news = [
        LabelledText(text=f"the paper says that {row.text[::-1]}", label="news") for row in messages[100:170]
    ]
    result = finetune_classifier(
        messages + news, quick(max_steps=60), tmp_path / "run", base=str(base_folder), device=CPU
    )
    assert result.classes == ("ham", "news", "spam")
    assert {p.label for p in result.predictions} == {"ham", "news", "spam"}
    assert result.scores.accuracy >= 0.9
    assert result.scores.interval[0] < result.scores.accuracy


@pytest.mark.parametrize("balance", ["weights", "subsample", "none"])
def test_classes_are_balanced_in_the_way_that_was_asked_for(
    messages, base_folder, tmp_path, monkeypatch, balance
):
    seen = []

    class Spy(ClassificationTask):
        def __init__(self, **arguments):
            seen.append(arguments["class_weights"])
            super().__init__(**arguments)

    monkeypatch.setattr(classification, "ClassificationTask", Spy)
    told = []
    result = finetune_classifier(
        messages, quick(max_steps=1, balance=balance), tmp_path / "run", base=str(base_folder), device=CPU,
        notify=told.append,
    )  # fmt: skip
    counts = class_counts([row.label for row in messages], result.split.train)
    n_learning = 2 * min(counts.values()) if balance == "subsample" else sum(counts.values())
    assert f"learn from {n_learning:,} texts" in told[-1]
    if balance != "weights":
        assert seen == [None]
        return
    weights = dict(zip(result.classes, seen[0].tolist()))
    assert weights["ham"] * counts["ham"] == pytest.approx(weights["spam"] * counts["spam"])
    mean = sum(weights[label] * counts[label] for label in counts) / sum(counts.values())
    assert mean == pytest.approx(1.0)


def test_dropout_can_be_changed_for_fine_tuning(messages, base_folder, tmp_path):
    finetune_classifier(
        messages, quick(max_steps=1, drop_rate=0.4), tmp_path / "run", base=str(base_folder), device=CPU
    )
    assert load_model(tmp_path / "run").config.drop_rate == 0.4


def test_cut_training_texts_are_counted(messages, base_folder, tmp_path):
    result = finetune_classifier(
        messages, quick(max_steps=1, max_length=5), tmp_path / "run", base=str(base_folder), device=CPU
    )
    assert result.n_truncated == len(result.split.train)
    assert all(p.is_truncated for p in result.predictions)


def test_metrics_hold_validation_accuracy(messages, base_folder, tmp_path):
    finetune_classifier(messages, quick(max_steps=20), tmp_path / "run", base=str(base_folder), device=CPU)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    evaluations = [r for r in map(json.loads, lines) if r["kind"] == "evaluation"]
    assert [r["step"] for r in evaluations] == [0, 20]
    assert all(0 <= r["val_accuracy"] <= 1 and math.isfinite(r["val_loss"]) for r in evaluations)
