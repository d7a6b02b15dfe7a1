"""`scratchlm plan`: predict parameters, memory and time of a pre-training run before it starts."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import psutil
import torch
import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.pretrain import DEFAULT_STEPS
from scratchlm.cli.stage_runs import recipe_argument, with_end, with_size
from scratchlm.core.config import check_at_least
from scratchlm.core.device import pick_device
from scratchlm.core.errors import ConfigError
from scratchlm.core.matrix_speed import matrix_flops_per_s
from scratchlm.core.seed import seed_everything
from scratchlm.training.config import TrainingConfig
from scratchlm.training.planner import MemoryPlan, flops_per_step, n_parameters, plan_memory, settings_of_rank
from scratchlm.training.precision import choose_precision
from scratchlm.training.progress import Progress
from scratchlm.training.schedule import planned_steps
from scratchlm.training.settings import ModelSettings, SizeName
from scratchlm.training.step_time import measure_program_bytes, measure_step_s

GPT2_VOCAB_SIZE = 50257
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Plan(Common):
    """Predict the parameters, memory and time of a pre-training run, before any training.

    The memory is computed from the settings. The time of a step is measured: a model with one block is trained for a
    few steps, which takes seconds. Without --max-steps, --epochs or --max-minutes the plan is for 1,000 steps.

    With --ranks the plan is for one of several processes, which share the batch; see --sharding.

    Example: scratchlm plan --config gpt2-small --batch-size 4 --model.context-length 256
    """

    config: SizeName | None = None  # size of the model: short for --model.size
    recipe: str | None = None  # use the settings of this recipe, e.g. quickstart
    # size of the vocabulary; default: the recipe's, 50,257 for the sizes of GPT-2, or 2,048
    vocab_size: int | None = None
    # number of tokens of the training text, which a limit in epochs needs
    tokens: int | None = None
    # tokens attend only to tokens of their own document, as in pretrain
    attend_within_documents: bool = False
    ranks: int = 1  # number of processes that torchrun starts; the plan is then for one of them
    no_measure: bool = False  # plan the memory only, without measuring the time of a step
    seed: tyro.conf.Suppress[None] = None  # it is part of the training settings
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    model: ModelSettings = field(default_factory=ModelSettings)

    def __post_init__(self) -> None:
        check_at_least(1, vocab_size=self.vocab_size, tokens=self.tokens, ranks=self.ranks)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the settings of the recipe as defaults."""
    recipe = recipe_argument(list(args))
    default = Plan()
    if recipe is not None:
        if "pretrain" not in recipe.stages:
            raise ConfigError(
                f"a plan is for pre-training, and this recipe has only {', '.join(recipe.stages)}; name another."
            )
        is_gpt2 = recipe.tokenizer.kind == "gpt2"
        default = Plan(
            vocab_size=GPT2_VOCAB_SIZE if is_gpt2 else recipe.tokenizer.vocab_size,
            training=recipe.pretrain,
            model=recipe.model,
        )

    def action(command: Plan, console: Console) -> dict[str, Any]:
        return _act(command, with_size(command.model, command.config, args), console)

    return run_command(Plan, action, args, prog=prog, default=default)


def _act(command: Plan, model: ModelSettings, console: Console) -> dict[str, Any]:
    """Compute the plan and print it; returns the `--json` keys."""
    usual = GPT2_VOCAB_SIZE if model.size.startswith("gpt2") else 2048
    config = model.resolve(vocab_size=command.vocab_size or usual)
    training = with_end(command.training, max_steps=DEFAULT_STEPS)
    n_steps = _n_steps(training, command.tokens, config.context_length)
    device = pick_device(command.device)
    own = settings_of_rank(training, command.ranks)
    precision = choose_precision(training.precision, device, config, own.batch_size).name
    training, own = (dataclasses.replace(one, precision=precision) for one in (training, own))
    memory = plan_memory(
        config,
        training,
        program_bytes=measure_program_bytes(),
        within_documents=command.attend_within_documents,
        n_ranks=command.ranks,
    )
    found: dict[str, Any] = {
        "parameters": n_parameters(config),
        "memory_bytes": memory.peak,
        "memory": dataclasses.asdict(memory),
        "flops_per_step": flops_per_step(config, training),
        "steps": n_steps,
        "seconds_per_step": None,
        "minutes": None,
    }
    _print_memory(found, memory, _share_of_rank(training, own, command.ranks))
    free = psutil.virtual_memory().available
    if memory.peak > free and device.type == "cpu":
        console.print(
            f"scratchlm: the run needs {memory.peak / MIB:,.0f} MiB and {free / MIB:,.0f} MiB are free, so its time is "
            "not measured; lower --batch-size or --model.context-length"
        )
        return found
    if command.no_measure:
        return found
    seed_everything(training.seed)
    step_s = measure_step_s(config, own, device=device, within_documents=command.attend_within_documents)
    minutes = math.inf if n_steps is None else n_steps * step_s / 60
    if training.max_minutes is not None:
        minutes = min(minutes, training.max_minutes)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    share = flops_per_step(config, own) / step_s / matrix_flops_per_s(dtype, device=device)
    found |= {"seconds_per_step": step_s, "minutes": minutes}
    without = (
        "evaluation and saving" if command.ranks == 1 else "evaluation, saving and exchange between ranks"
    )
    print(
        f"time: {minutes:,.1f} minutes of training steps, {step_s:.3g} s each, without {without}; the matrix "
        f"products run at {share:.0%} of the fastest that this machine multiplies in {precision}"
    )
    return found


def _n_steps(training: TrainingConfig, n_tokens: int | None, context: int) -> int | None:
    """The number of steps; None when the training time is the only limit."""
    if training.ends_by_clock:
        return None
    if training.epochs is not None and n_tokens is None:
        raise ConfigError(
            "a plan in epochs needs the size of the training text; give --tokens or --max-steps."
        )
    n_batches = max(1, ((n_tokens or 0) - 1) // context // training.batch_size)
    return planned_steps(training, Progress(), n_batches=n_batches)


def _share_of_rank(training: TrainingConfig, own: TrainingConfig, n_ranks: int) -> str:
    if n_ranks == 1:
        return ""
    part = f"1/{n_ranks} of" if training.sharding == "fsdp" else "all"
    return (
        f" of rank 0, which needs most of {n_ranks}; below it is for this rank, with {part} weights, gradients and "
        f"moments, and with {own.batch_size} of the {training.batch_size} examples of a batch"
    )


def _print_memory(found: dict[str, Any], memory: MemoryPlan, share: str) -> None:
    n_steps = "" if found["steps"] is None else f", {found['steps']:,} steps"
    print(f"{found['parameters']:,} parameters, {found['flops_per_step'] / 1e9:,.0f} GFLOP per step{n_steps}")
    print(f"memory: {memory.peak / MIB:,.0f} MiB at the peak{share}")
    for name, n_bytes in dataclasses.asdict(memory).items():
        if n_bytes:
            print(f"  {name:<14}{n_bytes / MIB:>10,.1f} MiB")
