"""`scratchlm run`: run a complete recipe, from text to report."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from scratchlm.cli.arguments import take_name, value_of
from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.progress import TrainingProgress, work_progress
from scratchlm.cli.run_plan import plan_lines
from scratchlm.core.config import to_dict
from scratchlm.core.device import pick_device, set_threads
from scratchlm.core.errors import ConfigError
from scratchlm.core.launch import is_restart, local_rank
from scratchlm.evaluation.loss import format_bits_per_byte
from scratchlm.recipes.recipe import Recipe, Stage, flat_settings, load_recipe
from scratchlm.recipes.run import RunResult, run_recipe
from scratchlm.recipes.stages import stage_folder
from scratchlm.reports.run_data import run_report
from scratchlm.training.callbacks import Callback
from scratchlm.training.rank_group import rank_group
from scratchlm.training.settings import TokenizerSettings
from scratchlm.training.threads import earlier_threads, idle_threads
from scratchlm.training.trackers import TrackerName, check_tracker, tracked

DEFAULT_RECIPE = "quickstart"
RANK_TIMEOUT_S = 600.0
MAX_RANK_TIMEOUT_S = 1e9


@dataclass(frozen=True, kw_only=True)
class RunFlags(Common):
    """The flags of every command that trains in a run folder."""

    out: Path | None = None  # the run folder; default: runs/STAGE, runs/STAGE-2, ...
    fresh: bool = False  # delete what is in the run folder and start over
    track: TrackerName | None = None  # also log to wandb, mlflow or trackio; TensorBoard needs no flag
    # with torchrun: seconds that a process may be late before all stop
    rank_timeout_s: float = RANK_TIMEOUT_S


@dataclass(frozen=True, kw_only=True)
class Run(RunFlags):
    """Run a complete recipe: pre-train, fine-tune, evaluate, report.

    RECIPE is a built-in name (default: quickstart), a .toml file, or the folder of an earlier run. An interrupted run
    resumes when the same command is run again.

    Example: scratchlm run quickstart --out runs/small --model.n-layers 2 --pretrain.max-steps 300
    """

    out: Path | None = None  # the run folder; default: runs/RECIPE
    seed: int | None = None  # one seed for all stages; --pretrain.seed and the like override it
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the values of the recipe as defaults, and run it."""
    named, rest = take_name(Run, args)
    name = named or DEFAULT_RECIPE
    short, recipe = load_recipe(name)
    if (seed := value_of("--seed", rest)) is not None and seed.isdecimal():
        recipe = with_seed(recipe, int(seed))  # before parsing, so that --pretrain.seed overrides it
    is_run_folder = Path(name).is_dir()
    default = Run(settings=recipe, out=Path(name) if is_run_folder else None)

    def action(command: Run, console: Console) -> dict[str, Any]:
        refuse_idle_vocab_size(rest, command.settings.tokenizer)
        return run(short, command, console)

    return run_command(Run, action, rest, prog=f"{prog} {name}" if args else prog, default=default)


def refuse_idle_vocab_size(args: Sequence[str], tokenizer: TokenizerSettings) -> None:
    """Raise ConfigError for a vocabulary size that has no effect, since no tokenizer is trained in this run."""
    if value_of("--tokenizer.vocab-size", args) is None or (tokenizer.kind == "bpe" and not tokenizer.path):
        return
    found = f"--tokenizer.path {tokenizer.path}" if tokenizer.path else f"--tokenizer.kind {tokenizer.kind}"
    raise ConfigError(
        f"--tokenizer.vocab-size is for a BPE tokenizer trained in this run, but {found} has a size of its own; drop "
        "one of the two flags."
    )


def run(name: str, command: Run, console: Console) -> dict[str, Any]:
    """Run the recipe and print the results; returns the `--json` keys."""
    out = command.out or Path("runs") / name
    command.settings.check()
    choose_threads(command.settings, out, command, console)
    if command.fresh or not (out / "report.html").exists():
        for line in plan_lines(name, command.settings, out, pick_device(command.device)):
            console.print(line)
    result = execute(name, command.settings, out, command, console)
    if result.was_complete:
        print(f"{result.out} is complete; nothing to do (--fresh starts over).")
    for stage, figures in result.figures.items():
        print(RESULT_LINES[stage](figures))
    print(f"report: {result.report}  ({result.seconds:.0f} s)")
    return {
        "recipe": name,
        "out": str(out),
        "report": str(result.report),
        "seconds": result.seconds,
        "was_complete": result.was_complete,
        **{
            stage: {"out": str(stage_folder(out, stage, command.settings.stages)), **without_lists(figures)}
            for stage, figures in result.figures.items()
        },
    }


def choose_threads(recipe: Recipe, out: Path, flags: RunFlags, console: Console) -> None:
    """Without --threads or OMP_NUM_THREADS, use the run's earlier number of threads, or leave out busy cores."""
    usual = torch.get_num_threads()
    if flags.threads is not None or "OMP_NUM_THREADS" in os.environ or usual == 1:
        return
    stages = recipe.stages
    folders = [] if flags.fresh else [stage_folder(out, stage, stages) for stage in reversed(stages)]
    earlier = earlier_threads(folders)
    n_threads = min(usual, earlier or idle_threads())
    if n_threads < usual:
        set_threads(n_threads)
        why = "as this run began" if earlier else "other programs use the other cores"
        console.print(
            f"scratchlm: computing with {n_threads} of {usual} threads, {why}; --threads {usual} uses all."
        )


def execute(
    name: str, recipe: Recipe, out: Path, flags: RunFlags, console: Console, *, extend: bool = False
) -> RunResult:
    """Run a recipe in the folder `out`, with progress on the console.

    Processes that torchrun started together train together; after a restart they resume, whatever the flags are.
    """
    timeout_s, track = flags.rank_timeout_s, flags.track
    if not 0 < timeout_s <= MAX_RANK_TIMEOUT_S:
        raise ConfigError(
            f"rank_timeout_s must be above 0 and at most {MAX_RANK_TIMEOUT_S:g}, got {timeout_s:g}; "
            f"{RANK_TIMEOUT_S:g} is the default."
        )
    if track is not None:
        check_tracker(track)
    device = pick_device(flags.device)
    with ExitStack() as open_bars, rank_group(timeout_s=timeout_s, device_type=device.type) as ranks:
        if device.type == "cuda" and ranks.world_size > 1:
            device = torch.device("cuda", local_rank())
            torch.cuda.set_device(device)

        def callbacks_for(stage: Stage) -> list[Callback]:
            open_bars.close()
            if not ranks.is_main:
                return []
            number, n_stages = recipe.stages.index(stage) + 1, len(recipe.stages)
            title = stage if n_stages == 1 else f"[{number}/{n_stages}] {stage}"
            callbacks: list[Callback] = [open_bars.enter_context(closing(TrainingProgress(console, title)))]
            if track is not None:
                settings = dict(flat_settings(to_dict(recipe)))
                training = tracked(track, run=f"{out.name}/{stage}", settings=settings, folder=out)
                callbacks.append(open_bars.enter_context(training))
            return callbacks

        return run_recipe(
            name,
            recipe,
            out,
            render=run_report,
            device=device,
            callbacks_for=callbacks_for,
            fresh=flags.fresh and not is_restart(),
            extend=extend,
            notify=console.print,
            progress=work_progress(console),
        )


LONG_LISTS = ("answers", "mistakes", "curves", "reliability")  # keys of a stage's results


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """Set the same seed in every stage of the recipe."""
    stages: dict[str, Any] = {
        stage: dataclasses.replace(getattr(recipe, stage), seed=seed) for stage in RESULT_LINES
    }
    return dataclasses.replace(recipe, **stages)


def without_lists(figures: dict[str, Any]) -> dict[str, Any]:
    """A stage's results without long lists, which are in the report."""
    return {key: value for key, value in figures.items() if key not in LONG_LISTS}


def pretrain_line(f: dict[str, Any]) -> str:
    """Describe the validation loss of a language model in a sentence."""
    return (
        f"language model: {f['val_loss']:.3f} nats per token, {format_bits_per_byte(f['bits_per_byte'])} "
        f"on {f['scored_tokens']:,} validation tokens{source_lines(f)}"
    )


def source_lines(f: dict[str, Any]) -> str:
    """Describe the sources of a mixture, one per line; runs of older versions have none."""
    lines = [
        f"{one['name']}: {one['tokens']:,} tokens trained on ({one['tokens'] / max(1, f['tokens']):.1%}), "
        f"{one['tokens'] / one['train_tokens']:.2f} times its text"
        + ("" if one["val_loss"] is None else f"; validation loss {one['val_loss']:.4f} nats per token")
        for one in f.get("sources") or ()
    ]
    return "".join(f"\n  {line}" for line in lines)


def classify_line(f: dict[str, Any]) -> str:
    """Describe the test results of a classifier in a sentence and further lines."""
    tfidf = f["baseline_tfidf"]
    simple = "not run (pip install 'scratchlm[eval]')" if tfidf is None else f"{tfidf:.2%}"
    balanced, simple_balanced = f.get("test_balanced_accuracy"), f.get("baseline_tfidf_balanced")
    if tfidf is not None and simple_balanced is not None:
        simple += f" (balanced {simple_balanced:.2%})"
    per_class = ", ".join(
        f"{row['label']} {row['recall']:.1%} of {row['support']:,}" for row in f["per_class"]
    )
    raw = "" if f["test_accuracy_raw"] is None else f"; {f['test_accuracy_raw']:.2%} on the book-style split"
    return (
        f"classifier: {f['test_accuracy']:.2%} of {f['test_n']} held-out texts correct "
        f"(95 % interval {f['low']:.1%} to {f['high']:.1%}){raw}"
        + ("" if balanced is None else f"; balanced accuracy {balanced:.2%} ({per_class})")
        + f"; TF-IDF + logistic regression {simple}, "
        f"most frequent class {f['baseline_majority']:.2%}{_further_lines(f)}"
    )


def _further_lines(f: dict[str, Any]) -> str:
    """Further metrics, one per line; runs of older versions have fewer."""
    lines = []
    if f.get("calibration_error") is not None:
        auc, area = f["roc_auc"], ""
        if auc is not None:
            area = f", area under the ROC curve {auc:.4f}, average precision {f['average_precision']:.4f}"
        lines.append(f"calibration error of the probabilities {f['calibration_error']:.1%}{area}")
    if f.get("threshold"):
        label, probability = f["threshold"]["label"], f["threshold"]["probability"]
        lines.append(f"threshold: {label} if its probability is at least {probability:.3f}")
    if seeds := f.get("seeds"):
        lines.append(
            f"{seeds['n']} seeds: {seeds['mean']:.2%} +- {seeds['deviation']:.2%} "
            f"(95 % interval of the mean {seeds['low']:.1%} to {seeds['high']:.1%})"
        )
    lines += [
        f"trained on {run['n_texts']:,} texts: {run['accuracy']:.2%}" for run in f.get("learning_curve") or ()
    ]
    if f.get("trunk_texts"):
        lines.append(
            f"frozen layers cached for {f['trunk_texts']:,} different texts in {f['trunk_seconds']:.1f} s"
        )
    return "".join(f"\n  {line}" for line in lines)


def instruct_line(f: dict[str, Any]) -> str:
    """Describe the test results of an assistant in a sentence."""
    return (
        f"assistant: {f['exact_match']:.1%} of {f['test_n']} held-out entries answered exactly "
        f"(95 % interval {f['low']:.1%} to {f['high']:.1%}), token F1 {f['token_f1']:.3f}; "
        f"untrained {f['untrained_exact_match']:.1%}, base model {f['base_exact_match']:.1%}"
    )


def prefer_line(f: dict[str, Any]) -> str:
    """Describe the test results of preference tuning in a sentence."""
    moved = "" if f["kl"] is None else f", {f['kl']:.4f} nats per token from the reference"
    return (
        f"preferences ({f['loss']}): reward accuracy {f['test_accuracy']:.1%} on {f['test_n']} held-out pairs "
        f"(95 % interval {f['low']:.1%} to {f['high']:.1%}); the chosen answer is more likely in {f['likelier']:.1%} "
        f"(before: {f['base_likelier']:.1%}); reward margin {f['reward_margin']:.3f}{moved}"
    )


RESULT_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "pretrain": pretrain_line,
    "classify": classify_line,
    "instruct": instruct_line,
    "prefer": prefer_line,
}
