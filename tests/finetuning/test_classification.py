"""Classifiers: the leak-free split, and fine-tuning from texts to a tested model."""

import dataclasses
import json
import math

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.store import MANIFEST, list_checkpoints, load_model, save_model
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.config import from_dict
from scratchlm.core.errors import CheckpointError, ConfigError, DataError
from scratchlm.core.files import read_json, write_json
from scratchlm.data.classification_rows import LabelledText
from scratchlm.data.label_split import BALANCE, DUPLICATES, class_counts, leak_free_split
from scratchlm.data.near_duplicates import group_near_duplicates
from scratchlm.finetuning import classifier_training
from scratchlm.finetuning.classification import RAW_SPLIT, finetune_classifier
from scratchlm.finetuning.classification_task import ClassificationTask, predict
from scratchlm.finetuning.classifier_training import ClassifySettings
from scratchlm.finetuning.heads import class_logits, replace_head
from scratchlm.finetuning.input_format import InputFormat
from scratchlm.finetuning.peft import ADAPTER_FOLDER
from scratchlm.finetuning.side_runs import SIDE_RUNS
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.serving.language_model import load
from scratchlm.training.interrupts import StoppedBySignal
from tests.tolerances import assert_same_logits

CLASSIFIER = {"kind": "classification", "classes": ["ham", "spam"], "max_length": 8}

CPU = torch.device("cpu")
QUICK = {
    "max_steps": 40, "batch_size": 16, "learning_rate": 1e-2, "warmup_steps": 2, "eval_every_steps": 20,
    "train": "all", "compare_raw_split": False, "checkpoint_every_steps": 0,
}  # fmt: skip


def quick(**changes):
    return ClassifySettings(**(QUICK | changes))


# --- the split


def split_of(rows, seed=1, **how):
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    return leak_free_split(texts, labels, group_near_duplicates(texts), seed=seed, **how)


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
def test_test_sides_hold_one_text_per_group_and_on_demand_as_many_of_each_class(messages, side):
    rows = [row for i, row in enumerate(messages) if row.label == "ham" or i % 3]
    groups = group_near_duplicates([row.text for row in rows])
    whole, balanced = split_of(rows), split_of(rows, is_balanced=True)
    for split in (whole, balanced):
        indices = getattr(split, side).tolist()
        assert len({groups[i] for i in indices}) == len(indices)
        assert set(class_counts([row.label for row in rows], indices)) == {"ham", "spam"}
    counts = class_counts([row.label for row in rows], getattr(balanced, side))
    assert len(set(counts.values())) == 1
    assert set(getattr(balanced, side)) < set(getattr(whole, side))


@pytest.mark.parametrize("is_balanced", [False, True])
def test_every_row_trains_validates_tests_or_is_counted_with_its_reason(messages, is_balanced):
    split = split_of(messages, is_balanced=is_balanced)
    used = [*split.train, *split.val, *split.test]
    assert len(set(used)) == len(used)
    assert len(used) + sum(split.left_out.values()) == len(messages)
    groups = group_near_duplicates([row.text for row in messages])
    held_out = [i for i in range(len(messages)) if i not in set(split.train)]
    assert split.left_out[DUPLICATES] == len(held_out) - len({groups[i] for i in held_out})
    assert (BALANCE in split.left_out) == is_balanced


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
    with pytest.raises(DataError, match="no rows of class 'x' in val"):
        split_of(rows)


# --- from texts to a classifier


def test_a_classifier_of_a_saved_base_separates_the_classes_and_counts_its_texts(
    messages, base_folder, tmp_path
):
    out = tmp_path / "run"
    result = finetune_classifier(messages, quick(), out, base=str(base_folder), device=CPU)
    assert (result.rows, result.groups) == (190, 180)
    assert result.classes == ("ham", "spam")
    assert result.scores.n == len(result.split.test) == len(result.predictions)
    assert result.scores.balanced_accuracy >= 0.9
    assert result.scores_raw is None
    assert [p.text for p in result.predictions] == [messages[i].text for i in result.split.test]
    right = sum(p.label == messages[i].label for p, i in zip(result.predictions, result.split.test))
    assert result.scores.n_right == right
    assert result.progress.step == 40
    assert result.n_truncated == 0
    saved = load_model(out)
    assert saved.task == {"kind": "classification", "classes": ["ham", "spam"], "max_length": 48}
    assert saved.manifest["base"] == str(base_folder)
    reading = InputFormat.from_task(saved.task)
    texts = [p.text for p in result.predictions]
    again = predict(texts, saved.model, saved.tokenizer, result.classes, reading)
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


@pytest.mark.parametrize("how", [{"drop_rate": 0.2}, {"drop_rate": 0.0}, {"activation_cache_mb": 0}], ids=str)
@pytest.mark.parametrize("stop_step", [1, 4])
def test_an_interrupted_classifier_resumes_bit_for_bit(
    messages, base_folder, tmp_path, stop_at, stop_step, how
):
    chosen = quick(max_steps=6, checkpoint_every_steps=3, train="last-block", **how)
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


def test_only_what_stands_beside_the_kept_training_may_change_when_it_goes_on(
    messages, base_folder, tmp_path, stop_at
):
    chosen = quick(max_steps=4, checkpoint_every_steps=2, train="last-block", balance="none")
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    with pytest.raises(StoppedBySignal):
        finetune_classifier(messages, chosen, tmp_path / "run", callbacks=[stop_at(2)], **arguments)
    turned = messages[::-1]
    for other, found in (
        (dataclasses.replace(chosen, position="mean"), "position"),
        (chosen, "data_fingerprint"),
    ):
        with pytest.raises(CheckpointError, match=found):
            finetune_classifier(turned if other is chosen else messages, other, tmp_path / "run", **arguments)
    beside = dataclasses.replace(
        chosen, choose_threshold=True, activation_cache_mb=1, compare_raw_split=False
    )
    assert finetune_classifier(messages, beside, tmp_path / "run", **arguments).resumed_from == 2


def test_a_run_of_an_earlier_version_resumes_under_the_old_names_of_settings(
    messages, base_folder, tmp_path, stop_at
):
    chosen = quick(max_steps=4, train="last-block", activation_cache=False)
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    with pytest.raises(StoppedBySignal):
        finetune_classifier(messages, chosen, tmp_path / "run", callbacks=[stop_at(2)], **arguments)
    [checkpoint] = list_checkpoints(tmp_path / "run")
    state = checkpoint / "training_state.json"
    state.write_text(state.read_text().replace('"activation_cache', '"trunk_cache'))
    manifest = read_json(checkpoint / MANIFEST)
    manifest["files"][state.name] = {"sha256": sha256_of_file(state), "size_bytes": state.stat().st_size}
    write_json(checkpoint / MANIFEST, manifest)
    assert finetune_classifier(messages, chosen, tmp_path / "run", **arguments).resumed_from == 2


def test_the_settings_of_an_earlier_version_are_read():
    table = {"trunk_cache": False, "trunk_cache_mb": 7}
    settings = from_dict(ClassifySettings, table, where="classify")
    assert (settings.activation_cache, settings.activation_cache_mb) == (False, 7)


def test_a_length_beyond_the_base_is_reported(messages, base_folder, tmp_path):
    notices = []
    finetune_classifier(
        messages, quick(max_steps=1, max_length=9999), tmp_path / "run", base=str(base_folder), device=CPU,
        notify=notices.append,
    )  # fmt: skip
    assert any("max_length 9999 exceeds the context length" in line for line in notices)


def test_a_random_base_gets_a_tokenizer_trained_on_the_training_texts(messages, tmp_path):
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


def test_by_default_the_last_block_of_a_trained_base_is_trained(messages, base_folder, tmp_path):
    result = finetune_classifier(
        messages, quick(max_steps=1, train=None), tmp_path / "run", base=str(base_folder), device=CPU
    )
    start, end = load_model(base_folder).model, load_model(tmp_path / "run").model
    assert torch.equal(start.trf_blocks[1].ff.layers[0].weight, end.trf_blocks[1].ff.layers[0].weight)
    assert not torch.equal(start.trf_blocks[2].ff.layers[0].weight, end.trf_blocks[2].ff.layers[0].weight)
    assert result.n_trained < end.n_parameters()


@pytest.mark.parametrize("train", ["all", "last-block", "lora"])
def test_a_base_of_the_llama_family_becomes_a_classifier_that_leaves_for_transformers(
    messages, base_tokenizer, tmp_path, train
):
    config = GPTConfig(
        vocab_size=base_tokenizer.vocab_size, context_length=48, emb_dim=16, n_heads=2, n_layers=2, n_kv_heads=1,
        norm="rms", positions="rotary", feed_forward="swiglu", ff_dim=24, linear_bias=False, drop_rate=0.0,
    )  # fmt: skip
    base = save_model(tmp_path / "base", GPTModel(config), base_tokenizer)
    run = tmp_path / "run"
    finetune_classifier(messages, quick(max_steps=3, train=train), run, base=str(base), device=CPU)
    ours = load(run)
    assert ours.model.out_head.bias is None
    folder = export_huggingface(tmp_path / "hf", ours.model, ours.tokenizer, task=load_model(run).task)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.tensor([ours.tokenizer.encode("WIN a prize now")])
    with torch.no_grad():
        expected = theirs(ids).logits
        found = class_logits(ours.model, ids)
    assert_same_logits(found, expected, config)
    assert (run / ADAPTER_FOLDER).is_dir() == (train == "lora")


def test_an_unknown_random_size_is_refused(messages, tmp_path):
    with pytest.raises(ConfigError, match=r"random:tiny, random:small.*got 'random:huge'"):
        finetune_classifier(messages, quick(), tmp_path / "run", base="random:huge", device=CPU)


def test_a_classifier_is_no_base(messages, tiny_model, base_tokenizer, tmp_path):
    replace_head(tiny_model, 2)
    folder = save_model(tmp_path / "c", tiny_model, base_tokenizer, task=CLASSIFIER)
    with pytest.raises(CheckpointError, match="is a classifier, not a language model"):
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


@pytest.mark.slow
def test_twenty_classes_are_separated_and_scored_as_by_scikit_learn(words, base_folder, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics")
    rows = [
        LabelledText(
            text=f"{words[20 * k]} {words[(7 * i + k) % 400 + 400]} {words[i + 100]}", label=f"topic {k:02d}"
        )
        for k in range(20)
        for i in range(30)
    ]
    result = finetune_classifier(
        rows, quick(max_steps=250, drop_rate=0.0), tmp_path / "run", base=str(base_folder), device=CPU
    )
    assert len(result.classes) == len(result.scores.per_class) == 20
    assert result.scores.accuracy >= 0.9
    true = [rows[i].label for i in result.split.test]
    said = [p.label for p in result.predictions]
    assert result.scores.accuracy == pytest.approx(metrics.accuracy_score(true, said))
    assert result.scores.macro_f1 == pytest.approx(metrics.f1_score(true, said, average="macro"))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, said, labels=list(result.classes), zero_division=0
    )
    for one, *theirs in zip(result.scores.per_class, precision, recall, f1, support):
        assert [one.precision, one.recall, one.f1, one.support] == pytest.approx(theirs)


@pytest.mark.parametrize("balance", ["weights", "sampling", "subsample"])
def test_a_rare_class_is_found_when_classes_are_balanced(messages, words, base_folder, tmp_path, balance):
    spam = [row for row in messages if row.label == "spam"][:24]
    ham = [
        LabelledText(text=f"see you at home {words[i]} {words[(3 * i) % 999]}", label="ham")
        for i in range(400)
    ]
    result = finetune_classifier(
        spam + ham, quick(balance=balance, drop_rate=0.0), tmp_path / "run", base=str(base_folder), device=CPU
    )
    counts = class_counts([row.label for row in spam + ham], result.split.train)
    assert counts["ham"] > 8 * counts["spam"]
    by_label = {one.label: one for one in result.scores.per_class}
    assert by_label["ham"].support > 8 * by_label["spam"].support  # the test side is as the texts are
    assert by_label["spam"].recall == 1
    assert result.scores.accuracy >= 0.9


@pytest.mark.parametrize("balance", ["weights", "sampling", "subsample", "none"])
def test_classes_are_balanced_by_the_chosen_method(messages, base_folder, tmp_path, monkeypatch, balance):
    seen = []

    class Spy(ClassificationTask):
        def __init__(self, **arguments):
            seen.append(arguments["class_weights"])
            super().__init__(**arguments)

    monkeypatch.setattr(classifier_training, "ClassificationTask", Spy)
    notices = []
    result = finetune_classifier(
        messages, quick(max_steps=1, balance=balance), tmp_path / "run", base=str(base_folder), device=CPU,
        notify=notices.append,
    )  # fmt: skip
    counts = class_counts([row.label for row in messages], result.split.train)
    n_each = {"subsample": min(counts.values()), "sampling": max(counts.values())}
    n_trained = 2 * n_each[balance] if balance in n_each else sum(counts.values())
    assert f"are trained on {n_trained:,} texts" in notices[-1]
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


# --- many ways to train one


def weights_of(folder):
    return load_model(folder).model.state_dict()


WAYS = {
    "head": {"train": "head"},
    "last layer, first token": {"train": "last-layer", "position": "first"},
    "last block": {"train": "last-block"},
    "two blocks, mean": {"train": "last-two-blocks", "position": "mean"},
    "the book's padding": {"train": "last-block", "position": "last", "pad": "longest"},
    "padded mean": {"train": "last-block", "position": "mean", "pad": 40},
    "whole context": {"train": "head", "position": "last", "pad": "model"},
    "no causal mask": {"train": "last-block", "causal_mask": False},
    "all": {"train": "all"},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_frozen_part_run_once_gives_the_plain_weights(messages, base_folder, tmp_path, way):
    chosen = quick(max_steps=12, drop_rate=0.0, learning_rate=5e-4, **WAYS[way])  # ten times the book's
    results = [
        finetune_classifier(
            messages,
            dataclasses.replace(chosen, activation_cache=is_cached),
            tmp_path / str(is_cached),
            base=str(base_folder),
            device=CPU,
        )
        for is_cached in (False, True)
    ]
    plain, cached = (weights_of(tmp_path / str(is_cached)) for is_cached in (False, True))
    for name, tensor in plain.items():
        torch.testing.assert_close(cached[name], tensor, rtol=0, atol=1e-5, msg=name)
    assert [p.label for p in results[0].predictions] == [p.label for p in results[1].predictions]
    assert results[0].n_cached == 0
    assert (results[1].n_cached > 0) == (way != "all")


@pytest.mark.parametrize("way", ["head", "the book's padding", "padded mean", "no causal mask"])
def test_a_saved_classifier_reads_as_it_was_trained(messages, base_folder, tmp_path, way):
    result = finetune_classifier(
        messages, quick(max_steps=10, **WAYS[way]), tmp_path / "run", base=str(base_folder), device=CPU
    )
    again = load(tmp_path / "run").classify([p.text for p in result.predictions])
    assert [p.label for p in again] == [p.label for p in result.predictions]
    for one, other in zip(again, result.predictions):
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_lora_leaves_the_base_frozen_and_saves_merged_weights_and_an_adapter(messages, base_folder, tmp_path):
    result = finetune_classifier(
        messages, quick(train="lora", lora_rank=4), tmp_path / "run", base=str(base_folder), device=CPU
    )
    layers = [
        module for module in load_model(base_folder).model.modules() if isinstance(module, torch.nn.Linear)
    ]
    in_blocks = sum(4 * (layer.in_features + layer.out_features) for layer in layers[:-1])
    assert result.n_trained == in_blocks + 4 * (16 + 2)  # the head of two classes too, as in the book
    assert result.scores.accuracy >= 0.9
    start, end = load_model(base_folder).model, load_model(tmp_path / "run").model
    assert torch.equal(start.tok_emb.weight, end.tok_emb.weight)
    assert not torch.equal(start.trf_blocks[0].att.W_query.weight, end.trf_blocks[0].att.W_query.weight)
    again = load(tmp_path / "run").classify([p.text for p in result.predictions])
    assert [p.label for p in again] == [p.label for p in result.predictions]
    assert (tmp_path / "run" / ADAPTER_FOLDER / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_interrupted_lora_run_resumes_bit_for_bit(messages, base_folder, tmp_path, stop_at, kind):
    chosen = quick(
        max_steps=6, checkpoint_every_steps=3, train="lora", lora_rank=2, lora_dropout=0.1, lora_kind=kind
    )
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    undisturbed = finetune_classifier(messages, chosen, tmp_path / "a", **arguments)
    with pytest.raises(StoppedBySignal):
        finetune_classifier(messages, chosen, tmp_path / "b", callbacks=[stop_at(4)], **arguments)
    resumed = finetune_classifier(messages, chosen, tmp_path / "b", **arguments)
    assert resumed.resumed_from == 4
    assert resumed.predictions == undisturbed.predictions
    for name, tensor in weights_of(tmp_path / "a").items():
        assert torch.equal(tensor, weights_of(tmp_path / "b")[name]), name


def test_lora_of_other_layers_trains_the_head_as_a_whole(messages, base_folder, tmp_path):
    result = finetune_classifier(
        messages, quick(max_steps=1, lora_rank=1, lora_targets=("W_query",), train=None), tmp_path / "run",
        base=str(base_folder), device=CPU,
    )  # fmt: skip
    assert result.n_trained == 3 * (16 + 16) + 2 * 16 + 2


@pytest.mark.parametrize(
    "changes",
    [
        {"train": "head", "lora_rank": 4},
        {"lora_alpha": 8.0, "train": None},
        {"train": "lora", "lora_rank": 0},
    ],
)
def test_settings_of_lora_without_lora_are_refused(changes):
    with pytest.raises(ConfigError, match="lora_rank"):
        quick(**changes)


def test_dropout_keeps_the_cache_away_and_says_so(messages, base_folder, tmp_path):
    notices = []
    result = finetune_classifier(
        messages, quick(max_steps=1, train="last-block", drop_rate=0.1), tmp_path / "run",
        base=str(base_folder), device=CPU, notify=notices.append,
    )  # fmt: skip
    assert result.n_cached == 0
    assert any("--drop-rate 0" in line for line in notices)


def test_dropout_is_off_with_frozen_blocks_by_default(messages, base_folder, tmp_path):
    finetune_classifier(
        messages, quick(max_steps=1, train="last-block"), tmp_path / "run", base=str(base_folder), device=CPU
    )
    assert load_model(base_folder).config.drop_rate == 0.1
    assert load_model(tmp_path / "run").config.drop_rate == 0.0


def test_more_seeds_share_the_cache_and_are_never_run_twice(messages, base_folder, tmp_path, monkeypatch):
    chosen = quick(max_steps=8, train="last-block", seeds=3, learning_curve=(0.2, 0.5))
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    one = finetune_classifier(messages, quick(max_steps=8, train="last-block"), tmp_path / "one", **arguments)
    result = finetune_classifier(messages, chosen, tmp_path / "run", **arguments)
    assert [run.seed for run in result.by_seed] == [0, 1, 2]
    assert result.by_seed[0].accuracy == result.scores.accuracy == one.scores.accuracy
    assert [run.n_texts for run in result.by_share] == sorted(run.n_texts for run in result.by_share)
    assert result.by_share[-1].n_texts == len(result.split.train)
    assert result.n_cached == one.n_cached  # every text once, however many trainings
    assert len((tmp_path / "run" / SIDE_RUNS).read_text().splitlines()) == 4
    monkeypatch.setattr(classifier_training.ClassifierTrainings, "_balanced", _only_once())
    assert finetune_classifier(messages, chosen, tmp_path / "run", **arguments).by_seed == result.by_seed


def test_side_runs_of_other_settings_are_not_taken_for_those_of_now(messages, base_folder, tmp_path):
    """A longer run, a chosen threshold: their side runs are trained, or tested, anew."""
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    settings = {"train": "last-block", "seeds": 2}
    for n_known, changes in enumerate(
        ({"max_steps": 2}, {"max_steps": 4}, {"max_steps": 4, "choose_threshold": True}), start=1
    ):
        finetune_classifier(messages, quick(**settings, **changes), tmp_path / "run", **arguments)
        assert len((tmp_path / "run" / SIDE_RUNS).read_text().splitlines()) == n_known
    keep = quick(max_steps=4, checkpoint_every_steps=1, activation_cache_mb=1, **settings)
    finetune_classifier(messages, keep, tmp_path / "run", **arguments)
    assert len((tmp_path / "run" / SIDE_RUNS).read_text().splitlines()) == n_known
    with pytest.raises(CheckpointError, match="already holds checkpoints"):
        finetune_classifier(messages, keep, tmp_path / "run", base=str(base_folder), device=CPU)
    assert len((tmp_path / "run" / SIDE_RUNS).read_text().splitlines()) == n_known


def test_the_books_split_is_trained_anew_when_its_texts_have_changed(messages, base_folder, tmp_path):
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    finetune_classifier(messages, quick(max_steps=1, compare_raw_split=True), tmp_path / "run", **arguments)
    [checkpoint] = list_checkpoints(tmp_path / "run" / RAW_SPLIT)
    manifest = read_json(checkpoint / MANIFEST)
    write_json(checkpoint / MANIFEST, {**manifest, "data_fingerprint": "of other texts"})
    finetune_classifier(messages, quick(max_steps=1, compare_raw_split=True), tmp_path / "run", **arguments)
    [checkpoint] = list_checkpoints(tmp_path / "run" / RAW_SPLIT)
    assert read_json(checkpoint / MANIFEST) == {
        **manifest,
        "files": read_json(checkpoint / MANIFEST)["files"],
    }


def _only_once():
    calls = []
    plain = classifier_training.ClassifierTrainings._balanced

    def balanced(self, indices):
        calls.append(1)
        assert len(calls) == 1, "a side run that was finished is run again"
        return plain(self, indices)

    return balanced


def test_a_threshold_is_chosen_on_validation_texts_and_saved(messages, base_folder, tmp_path):
    result = finetune_classifier(
        messages,
        quick(max_steps=4, choose_threshold=True),
        tmp_path / "run",
        base=str(base_folder),
        device=CPU,
    )
    assert result.threshold is not None
    assert result.threshold.label == "spam"
    saved = load_model(tmp_path / "run")
    assert saved.task["threshold"] == dataclasses.asdict(result.threshold)
    again = load(tmp_path / "run").classify([p.text for p in result.predictions])
    assert [p.label for p in again] == [p.label for p in result.predictions]


def test_runs_beside_the_main_one_choose_a_threshold_of_their_own(
    messages, base_folder, tmp_path, monkeypatch
):
    chosen = []
    plain = classifier_training.best_threshold

    def best(predictions, labels, classes):
        chosen.append(len(labels))
        return plain(predictions, labels, classes)

    monkeypatch.setattr(classifier_training, "best_threshold", best)
    finetune_classifier(
        messages,
        quick(max_steps=2, choose_threshold=True, seeds=2, learning_curve=(0.5,), compare_raw_split=True),
        tmp_path / "run",
        base=str(base_folder),
        device=CPU,
    )
    assert len(chosen) == 4  # itself, another seed, half of the texts, the book's split
    assert chosen[0] == chosen[1] == chosen[2]


def test_a_class_left_out_of_the_loss_is_never_predicted(messages, base_folder, tmp_path):
    result = finetune_classifier(
        messages, quick(max_steps=30, ignore_index=1, balance="none"), tmp_path / "run",
        base=str(base_folder), device=CPU,
    )  # fmt: skip
    assert {p.label for p in result.predictions} == {"ham"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad": 49}, "1 to 48 tokens"),
        ({"pad": 0}, "1 to 48 tokens"),
        ({"max_length": 0}, "at least 1"),
        ({"seeds": 0}, "at least 1"),
        ({"learning_curve": (1.5,)}, "between 0 and 1"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(messages, base_folder, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        finetune_classifier(
            messages, quick(max_steps=1, **changes), tmp_path / "run", base=str(base_folder), device=CPU
        )


def test_a_threshold_of_three_classes_is_refused_before_the_training(base_folder, tmp_path):
    rows = [LabelledText(text=f"text {'ab'[i % 2]} {'x' * i}", label=f"class {i % 3}") for i in range(60)]
    with pytest.raises(DataError, match="needs exactly two classes, got 3; leave choose_threshold off"):
        finetune_classifier(
            rows, quick(choose_threshold=True), tmp_path / "run", base=str(base_folder), device=CPU
        )
    assert not (tmp_path / "run").exists()
