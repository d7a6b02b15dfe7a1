"""The stages of a run: each trains a model with the recipe's settings and returns its results."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from scratchlm.checkpoints.store import resolve_model
from scratchlm.core.files import write_text
from scratchlm.core.protocols import ShowsProgress, no_progress
from scratchlm.core.seed import seed_everything
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.instruction_split import EntrySplit, count_leaks
from scratchlm.data.prompt_templates import template
from scratchlm.data.samples.overlap import overlap_report
from scratchlm.data.samples.stories import sample_stories
from scratchlm.finetuning.answers import AnswerScores, answer_all, score_answers
from scratchlm.finetuning.base import load_base
from scratchlm.finetuning.classification import finetune_classifier
from scratchlm.finetuning.instruction import finetune_instructions
from scratchlm.finetuning.preference import finetune_preferences
from scratchlm.model.gpt import GPTModel
from scratchlm.recipes.figures import classify_figures, instruct_figures, prefer_figures, pretrain_figures
from scratchlm.recipes.inputs import fine_tuning_texts, read_entries, read_messages, read_pairs
from scratchlm.recipes.recipe import SAMPLES, Recipe, Stage
from scratchlm.training.callbacks import Callback
from scratchlm.training.distributed import current_ranks
from scratchlm.training.lr_range import RatePoint, learning_rate_range
from scratchlm.training.pretraining import PretrainingTask, prepare_pretraining, pretrain
from scratchlm.training.settings import PretrainSettings, TokenizerSettings


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """The arguments of every stage. On a rank above 0 a stage may return no results."""

    recipe: Recipe
    out: Path  # the run folder
    device: torch.device
    callbacks: Sequence[Callback]
    notify: Callable[[str], None]
    progress: ShowsProgress = no_progress  # shows progress before training

    def folder(self, stage: Stage) -> Path:
        """The folder of a stage's checkpoints."""
        return stage_folder(self.out, stage, self.recipe.stages)

    @property
    def base(self) -> str:
        """The model that classifier and assistant start from."""
        return self.recipe.base or str(resolve_model(self.out))

    def fine_tuning(self) -> dict[str, Any]:
        """The arguments that every kind of fine-tuning takes in the same way."""
        return {"device": self.device, "callbacks": self.callbacks, "resume": True, "notify": self.notify}


def stage_folder(out: Path, stage: Stage, stages: Sequence[Stage]) -> Path:
    """The folder of a stage's checkpoints: for pre-training, or the only stage, the run folder itself."""
    return out if stage == "pretrain" or len(stages) == 1 else out / stage


def find_learning_rate(run: StageRun) -> list[RatePoint]:
    """Test rising learning rates with the settings of pre-training; `run.out` holds the tokenizer meanwhile."""
    settings, _ = pretrain_settings(run)
    ready = prepare_pretraining(
        settings,
        run.out,
        device=run.device,
        extra_tokenizer_texts=fine_tuning_texts(run.recipe),
        notify=run.notify,
        progress=run.progress,
    )
    task = PretrainingTask(label_smoothing=settings.training.label_smoothing)
    return learning_rate_range(ready.model, task, settings.training, ready.train)


def pretrain_settings(run: StageRun) -> tuple[PretrainSettings, dict[str, Any] | None]:
    """The settings of pre-training, and the overlap of the sample data's training and validation text."""
    recipe = run.recipe
    text, val_text, overlap = recipe.data.text, recipe.data.val_text, None
    if text == (SAMPLES,):
        with current_ranks().main_first():
            train_file, val_file, overlap = _write_sample_stories(run.out / "data")
        text, val_text = (str(train_file),), (str(val_file),)
    settings = PretrainSettings(
        data=text,
        data_weights=recipe.data.text_weights,
        val_data=val_text,
        text=recipe.data,
        tokenizer=_with_role_marks(recipe),
        model=recipe.model,
        training=recipe.pretrain,
        sample_prompt=recipe.sample_prompt,
    )
    return settings, overlap


def run_pretrain(run: StageRun) -> dict[str, Any]:
    """Pre-train a model."""
    recipe = run.recipe
    settings, overlap = pretrain_settings(run)
    result = pretrain(
        settings,
        run.folder("pretrain"),
        device=run.device,
        callbacks=run.callbacks,
        extra_tokenizer_texts=fine_tuning_texts(recipe),
        resume=True,
        notify=run.notify,
        progress=run.progress,
    )
    return pretrain_figures(result) | {"overlap": overlap}


def run_classify(run: StageRun) -> dict[str, Any]:
    """Fine-tune a classifier, and compare it with simple baselines on the same split."""
    rows = read_messages(run.recipe.data.messages, run.recipe.data)
    result = finetune_classifier(
        rows, run.recipe.classify, run.folder("classify"), base=run.base, **run.fine_tuning()
    )
    return classify_figures(rows, result) if current_ranks().is_main else {}


def run_instruct(run: StageRun) -> dict[str, Any]:
    """Fine-tune an assistant, and compare it with an untrained model and the base."""
    settings = run.recipe.instruct
    entries = read_entries(run.recipe.data.instructions, settings, run.recipe.data)
    for note in entries.notes:
        run.notify(note)
    split = entries.for_training(settings)
    n_duplicates, n_leaked = entries.count_duplicates(), count_leaks(entries.split)
    run.notify(
        f"{n_duplicates:,} entries nearly repeat an earlier one, {entries.n_dropped:,} of them dropped; "
        f"{n_leaked:,} of {len(split.test):,} test entries nearly repeat the question of a training entry"
    )
    result = finetune_instructions(
        split, settings, run.folder("instruct"), base=run.base, **run.fine_tuning()
    )
    if not current_ranks().is_main:
        return {}
    counts = {"train_n": len(split.train), "duplicates": n_duplicates, "leaked_test": n_leaked}
    return instruct_figures(entries, result, _scores_before(run, split)) | counts


def _scores_before(run: StageRun, split: EntrySplit[Instruction]) -> dict[str, AnswerScores]:
    """The scores on the test entries of the base, and of an untrained model of its size."""
    settings = run.recipe.instruct
    chosen = template(settings.template)
    training_texts = [chosen.full(entry) for entry in split.train]
    seed_everything(settings.seed)  # a random base is then the one that was tuned
    start = load_base(run.base, training_texts=training_texts, device=run.device, role_tokens=chosen.marks)
    untrained = GPTModel(start.model.config).to(run.device)
    return {
        name: score_answers(
            [*answer_all(split.test, model, start.tokenizer, chosen, max_new_tokens=settings.max_new_tokens)]
        )
        for name, model in (("untrained", untrained), ("base", start.model))
    }


def run_prefer(run: StageRun) -> dict[str, Any]:
    """Tune the run's assistant, or the base, on preferences, and measure it before and after."""
    split, n_equal, notes = read_pairs(run.recipe.data.preferences, run.recipe.data)
    for note in notes:
        run.notify(note)
    base = str(run.folder("instruct")) if "instruct" in run.recipe.stages else run.base
    result = finetune_preferences(
        split, run.recipe.prefer, run.folder("prefer"), base=base, **run.fine_tuning()
    )
    return prefer_figures(split, n_equal, run.recipe.prefer, result) | {"notes": notes}


STAGES: dict[Stage, Callable[[StageRun], dict[str, Any]]] = {
    "pretrain": run_pretrain,
    "classify": run_classify,
    "instruct": run_instruct,
    "prefer": run_prefer,
}


def _write_sample_stories(folder: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Write the sample stories as readable files, one JSON object with a `text` per line."""
    train, val = sample_stories(split="train"), sample_stories(split="val")
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "stories-train.jsonl", folder / "stories-val.jsonl"
    for path, stories in zip(paths, (train, val)):
        if not current_ranks().is_main:
            break
        write_text(path, "".join(json.dumps({"text": story}, ensure_ascii=False) + "\n" for story in stories))
    return *paths, asdict(overlap_report(train, val))


def _with_role_marks(recipe: Recipe) -> TokenizerSettings:
    """The tokenizer settings, with the role marks of the assistant's template for a tokenizer trained here."""
    settings = recipe.tokenizer
    is_trained = settings.kind == "bpe" and settings.path is None
    if "instruct" not in recipe.stages or not is_trained:
        return settings
    marks = template(recipe.instruct.template).marks
    return replace(settings, special_tokens=tuple(dict.fromkeys((*settings.special_tokens, *marks))))
