"""The stages of a run: each takes the recipe to a trained model and a page of figures (plain JSON values)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from scratchlm.checkpoints.store import resolve_model
from scratchlm.core.errors import MissingDependencyError
from scratchlm.core.files import write_text
from scratchlm.core.protocols import ShowsProgress, no_progress
from scratchlm.core.seed import seed_everything
from scratchlm.data.classification_rows import LabelledText, read_labelled
from scratchlm.data.label_split import split_figures, split_fingerprint
from scratchlm.data.prompt_templates import template
from scratchlm.data.row_files import LABELLED, RowSettings
from scratchlm.data.samples.messages import sample_messages
from scratchlm.data.samples.overlap import overlap_report
from scratchlm.data.samples.stories import sample_stories
from scratchlm.data.shards import token_folder
from scratchlm.data.sources import find_sources
from scratchlm.evaluation.baselines import majority_accuracy, tfidf_scores
from scratchlm.evaluation.calibration import expected_calibration_error, reliability
from scratchlm.evaluation.confusion_matrix import ClassificationScores
from scratchlm.evaluation.intervals import mean_over_runs
from scratchlm.evaluation.ranking import rank_classes
from scratchlm.finetuning.answers import Answer, answer_all, score_answers
from scratchlm.finetuning.base import load_base
from scratchlm.finetuning.classification import ClassifyResult, finetune_classifier
from scratchlm.finetuning.instruction import finetune_instructions
from scratchlm.finetuning.preference import finetune_preferences
from scratchlm.model.gpt import GPTModel
from scratchlm.recipes.entries import read_entries
from scratchlm.recipes.preference_figures import prefer_figures, read_pairs
from scratchlm.recipes.recipe import SAMPLES, Recipe, Stage
from scratchlm.tokenizers.word import loses_text
from scratchlm.training.callbacks import Callback
from scratchlm.training.history import History
from scratchlm.training.pretraining import PretrainSettings, pretrain
from scratchlm.training.settings import TokenizerSettings, resolve_texts

MAX_SHOWN_MISTAKES = 12  # most confident mistakes kept in a classifier's figures


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """What every stage needs to run."""

    recipe: Recipe
    out: Path  # the run folder
    device: torch.device
    callbacks: Sequence[Callback]
    notify: Callable[[str], None]
    progress: ShowsProgress = no_progress  # shows the work before training

    def folder(self, stage: Stage) -> Path:
        """Where a stage keeps its checkpoints: pre-training, or the only stage, in the run folder itself."""
        return stage_folder(self.out, stage, self.recipe.stages)

    @property
    def base(self) -> str:
        """The model that classifier and assistant start from."""
        return self.recipe.base or str(resolve_model(self.out))


def stage_folder(out: Path, stage: Stage, stages: Sequence[Stage]) -> Path:
    """Where a stage keeps its checkpoints: pre-training, or the only stage, in the run folder itself."""
    return out if stage == "pretrain" or len(stages) == 1 else out / stage


def run_pretrain(run: StageRun) -> dict[str, Any]:
    """Pre-train a model; its figures."""
    recipe = run.recipe
    text, val_text, overlap = recipe.data.text, recipe.data.val_text, None
    if text == (SAMPLES,):
        train_file, val_file, overlap = _write_sample_stories(run.out / "data")
        text, val_text = (str(train_file),), (str(val_file),)
    settings = PretrainSettings(
        data=text,
        val_data=val_text,
        text=recipe.data,
        tokenizer=_with_role_marks(recipe),
        model=recipe.model,
        training=recipe.pretrain,
        sample_prompt=recipe.sample_prompt,
    )
    result = pretrain(
        settings,
        run.folder("pretrain"),
        device=run.device,
        callbacks=run.callbacks,
        extra_tokenizer_texts=_fine_tuning_texts(recipe),
        resume=True,
        notify=run.notify,
        progress=run.progress,
    )
    val_loss_low, val_loss_high = result.final.interval or (None, None)
    return {
        "step": result.step,
        "used_step": result.used_step,
        "train_loss": result.train_loss,
        "val_loss": result.final.loss,
        "perplexity": result.final.perplexity,
        "val_loss_low": val_loss_low,
        "val_loss_high": val_loss_high,
        "bits_per_byte": None if loses_text(result.tokenizer) else result.final.bits_per_byte,
        "scored_tokens": result.final.n_tokens,
        "tokens": result.tokens,
        "tokens_per_s": result.tokens_per_s,
        "seconds": result.seconds,
        "earlier_seconds": result.earlier_s,
        "resumed_from": result.resumed_from,
        "parameters": result.n_parameters,
        "vocab_size": result.tokenizer.vocab_size,
        "train_tokens": len(result.data.train),
        "val_tokens": len(result.data.val),
        "documents": result.data.n_documents,
        "skipped_lines": result.data.skipped_lines,
        "bytes_per_token": result.data.val_n_bytes / max(1, len(result.data.val)),
        "overlap": overlap,
    }


def run_classify(run: StageRun) -> dict[str, Any]:
    """Fine-tune a classifier; its figures, beside those of simple baselines on the same split."""
    rows = read_messages(run.recipe.data.messages, run.recipe.data)
    result = finetune_classifier(
        rows,
        run.recipe.classify,
        run.folder("classify"),
        base=run.base,
        device=run.device,
        callbacks=run.callbacks,
        resume=True,
        notify=run.notify,
    )
    return classify_figures(rows, result)


def classify_figures(rows: Sequence[LabelledText], result: ClassifyResult) -> dict[str, Any]:
    """A classifier's result as plain values, its baselines computed."""
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    train_texts, train_labels = ([column[i] for i in result.split.train] for column in (texts, labels))
    test_texts, test_labels = ([column[i] for i in result.split.test] for column in (texts, labels))
    try:
        tfidf: ClassificationScores | None = tfidf_scores(train_texts, train_labels, test_texts, test_labels)
    except MissingDependencyError:
        tfidf = None  # shown as "not run", with the command that installs it
    low, high = result.scores.interval
    wrong = [
        {"text": p.text, "label": label, "predicted": p.label, "probability": p.probability}
        for p, label in zip(result.predictions, test_labels)
        if p.label != label
    ]
    raw = result.scores_raw
    return {
        "rows": result.rows,
        "groups": result.groups,
        "duplicates": result.rows - result.groups,
        "classes": list(result.classes),
        **split_figures(result.split),
        "test_accuracy": result.scores.accuracy,
        "test_balanced_accuracy": result.scores.balanced_accuracy,
        "low": low,
        "high": high,
        "macro_f1": result.scores.macro_f1,
        "test_accuracy_raw": None if raw is None else raw.accuracy,
        "raw_test_n": None if raw is None else raw.n,
        "baseline_majority": majority_accuracy(train_labels, test_labels),
        "baseline_tfidf": None if tfidf is None else tfidf.accuracy,
        "baseline_tfidf_balanced": None if tfidf is None else tfidf.balanced_accuracy,
        "per_class": [asdict(scores) for scores in result.scores.per_class],
        "confusion": [list(row) for row in result.scores.confusion],
        "mistakes": sorted(wrong, key=lambda m: -float(str(m["probability"])))[:MAX_SHOWN_MISTAKES],
        "n_mistakes": len(wrong),
        **_probability_figures(result, test_labels),
        "threshold": None if result.threshold is None else asdict(result.threshold),
        "by_seed": [asdict(run) for run in result.by_seed],
        "seeds": None if len(result.by_seed) < 2 else _over_seeds(result),
        "learning_curve": [asdict(run) for run in result.by_share],
        "split_fingerprint": split_fingerprint(texts, labels, result.split),
        "step": result.progress.step,
        "used_step": result.used_step,
        "seconds": result.progress.elapsed_s,
        "trunk_seconds": result.cache_s,
        "trunk_texts": result.n_cached,
        "resumed_from": result.resumed_from,
        "trained_parameters": result.n_trained,
        "earlier_seconds": result.earlier_s,
        "truncated": result.n_truncated,
        "truncated_test": sum(prediction.is_truncated for prediction in result.predictions),
    }


def _probability_figures(result: ClassifyResult, test_labels: Sequence[str]) -> dict[str, Any]:
    """What the probabilities are worth: calibration, and how well they rank texts."""
    number = {label: i for i, label in enumerate(result.classes)}
    true = [number[label] for label in test_labels]
    probabilities = [prediction.probabilities for prediction in result.predictions]
    bins = reliability(
        [p.probability for p in result.predictions],
        [p.label == t for p, t in zip(result.predictions, test_labels)],
    )
    ranking = rank_classes(true, probabilities, classes=result.classes)
    return {
        "calibration_error": expected_calibration_error(bins),
        "reliability": [asdict(one) for one in bins],
        "roc_auc": ranking.roc_auc,
        "average_precision": ranking.average_precision,
        "curves": [asdict(curve) for curve in ranking.curves],
    }


def _over_seeds(result: ClassifyResult) -> dict[str, Any]:
    """Mean and spread of the accuracy over the seeds."""
    runs = mean_over_runs([run.accuracy for run in result.by_seed])
    return asdict(runs) | {"low": max(0.0, runs.low), "high": min(1.0, runs.high)}  # of a share


def run_instruct(run: StageRun) -> dict[str, Any]:
    """Fine-tune an assistant; its figures, beside what an untrained and the base model score."""
    settings = run.recipe.instruct
    entries = read_entries(run.recipe.data.instructions, settings, run.recipe.data)
    for note in entries.notes:
        run.notify(note)
    split = entries.for_training(settings)
    n_duplicates, n_leaked = entries.count_duplicates(), entries.count_leaks()
    run.notify(
        f"{n_duplicates:,} entries nearly repeat an earlier one, {entries.n_dropped:,} of them dropped; "
        f"{n_leaked:,} of {len(split.test):,} test entries ask nearly what a training entry asks"
    )
    result = finetune_instructions(
        split,
        settings,
        run.folder("instruct"),
        base=run.base,
        device=run.device,
        callbacks=run.callbacks,
        resume=True,
        notify=run.notify,
    )
    chosen = template(settings.template)
    training_texts = [chosen.full(entry) for entry in split.train]
    seed_everything(settings.seed)  # a random base is then the one that was tuned
    start = load_base(run.base, training_texts=training_texts, device=run.device, role_tokens=chosen.marks)
    untrained = GPTModel(start.model.config).to(run.device)
    others = {
        name: score_answers(
            answer_all(split.test, model, start.tokenizer, chosen, max_new_tokens=settings.max_new_tokens)
        )
        for name, model in (("untrained", untrained), ("base", start.model))
    }
    low, high = result.scores.interval
    return {
        "rows": sum(map(len, (entries.split.train, entries.split.val, entries.split.test))),
        "train_n": len(split.train),
        "test_n": result.scores.n,
        "val_loss": result.val_loss,
        "exact_match": result.scores.exact_match,
        "low": low,
        "high": high,
        "token_f1": result.scores.token_f1,
        "token_f1_low": result.scores.f1_interval[0],
        "token_f1_high": result.scores.f1_interval[1],
        "empty": result.scores.n_empty,
        "untrained_exact_match": others["untrained"].exact_match,
        "base_exact_match": others["base"].exact_match,
        "by_skill": _by("skill", [answer.entry.skill for answer in result.answers], result.answers),
        "by_kind": _by("kind", entries.kinds, result.answers),
        "answers": [
            {
                "instruction": answer.entry.instruction,
                "input": answer.entry.input,
                "reference": answer.entry.output,
                "answer": answer.text,
                "correct": answer.is_exact,
                "skill": answer.entry.skill,
            }
            for answer in result.answers
        ],
        "step": result.progress.step,
        "used_step": result.used_step,
        "seconds": result.progress.elapsed_s,
        "resumed_from": result.resumed_from,
        "earlier_seconds": result.earlier_s,
        "trained_parameters": result.n_trained,
        "truncated": result.n_truncated,
        "left_out": result.n_left_out,
        "duplicates": n_duplicates,
        "dropped": entries.n_dropped,
        "notes": list(entries.notes),
        "leaked_test": n_leaked,
        "padding_share": result.padding_share,
        "tokens_per_s": result.tokens_per_s,
    }


def run_prefer(run: StageRun) -> dict[str, Any]:
    """Tune the run's assistant, or the base, on preferences; its figures before and after."""
    split, n_equal, notes = read_pairs(run.recipe.data.preferences, run.recipe.data)
    for note in notes:
        run.notify(note)
    result = finetune_preferences(
        split,
        run.recipe.prefer,
        run.folder("prefer"),
        base=str(run.folder("instruct")) if "instruct" in run.recipe.stages else run.base,
        device=run.device,
        callbacks=run.callbacks,
        resume=True,
        notify=run.notify,
    )
    return prefer_figures(split, n_equal, run.recipe.prefer, result) | {"notes": notes}


STAGES: dict[Stage, Callable[[StageRun], dict[str, Any]]] = {
    "pretrain": run_pretrain,
    "classify": run_classify,
    "instruct": run_instruct,
    "prefer": run_prefer,
}


def check_inputs(recipe: Recipe) -> None:
    """Read what the later stages need before the first one starts: a typo should not cost a pre-training.

    Raises: the readers' errors.
    """
    if "pretrain" in recipe.stages and SAMPLES not in recipe.data.text:
        paths = resolve_texts(recipe.data.text)
        if token_folder(paths) is None:
            find_sources(paths)
    if "classify" in recipe.stages:
        read_messages(recipe.data.messages, recipe.data)
    if "instruct" in recipe.stages:
        read_entries(recipe.data.instructions, recipe.instruct, recipe.data)
    if "prefer" in recipe.stages:
        read_pairs(recipe.data.preferences, recipe.data)


def read_messages(names: Sequence[str], settings: RowSettings | None = None) -> list[LabelledText]:
    """Labelled texts from files, or the built-in sample."""
    return (
        sample_messages()
        if tuple(names) == (SAMPLES,)
        else read_labelled(
            resolve_texts(names, kind="sms_spam_collection"), (settings or RowSettings()).only(*LABELLED)
        )
    )


def history_of(folder: Path) -> list[dict[str, Any]]:
    """A stage's steps and evaluations, for its curves."""
    return History(folder / "metrics.jsonl").records()


def _write_sample_stories(folder: Path) -> tuple[Path, Path, dict[str, Any]]:
    """The sample stories as files that people can read, one JSON object with a `text` a line."""
    train, val = sample_stories(split="train"), sample_stories(split="val")
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "stories-train.jsonl", folder / "stories-val.jsonl"
    for path, stories in zip(paths, (train, val)):
        write_text(path, "".join(json.dumps({"text": story}, ensure_ascii=False) + "\n" for story in stories))
    return *paths, asdict(overlap_report(train, val))


def _with_role_marks(recipe: Recipe) -> TokenizerSettings:
    """A tokenizer that is learnt here knows the role marks that the assistant will be asked with."""
    settings = recipe.tokenizer
    is_learnt = settings.kind == "bpe" and settings.path is None
    if "instruct" not in recipe.stages or not is_learnt:
        return settings
    marks = template(recipe.instruct.template).marks
    return replace(settings, special_tokens=tuple(dict.fromkeys((*settings.special_tokens, *marks))))


def _fine_tuning_texts(recipe: Recipe) -> Iterator[str]:
    """What later stages train on: the tokenizer should know its words, test sides left out."""
    if "instruct" in recipe.stages:
        chosen = template(recipe.instruct.template)
        entries = read_entries(recipe.data.instructions, recipe.instruct, recipe.data)
        yield from (chosen.full(entry) for entry in entries.for_training(recipe.instruct).train)


def _by(key: str, names: Iterable[str], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Exact match of each group of answers."""
    groups: dict[str, list[bool]] = {}
    for name, answer in zip(names, answers):
        groups.setdefault(name, []).append(answer.is_exact)
    return [
        {key: name, "n": len(group), "exact_match": sum(group) / len(group)}
        for name, group in sorted(groups.items())
        if name
    ]
