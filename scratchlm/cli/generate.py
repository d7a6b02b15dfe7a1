"""`scratchlm generate`: continue a prompt, token by token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.standard_input import read_text
from scratchlm.core.errors import ConfigError
from scratchlm.generation.beam import beam_search, check_beams
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate
from scratchlm.serving.language_model import LanguageModel, load

DRAWING = ("top_k", "top_p", "min_p", "seed")  # settings that matter only when tokens are drawn


@dataclass(frozen=True, kw_only=True)
class Generate(Common):
    """Stream a continuation of one prompt, or of several at once.

    Example: scratchlm generate --model runs/quickstart --prompt "Once upon a time" --temperature 0.8 --seed 1
    """

    model: Path | None = None  # a model folder or run folder
    prompt: tuple[str, ...] = ()  # what to continue; "-" reads it from standard input
    max_new_tokens: int = 100  # per prompt; an end-of-text ends it earlier
    temperature: float = 0.0  # 0: always the likeliest token; 1: the model's own odds
    top_k: int | None = None  # choose among this many likeliest tokens
    top_p: float | None = None  # choose among the fewest tokens that together have this probability
    min_p: float | None = None  # choose among tokens at least this fraction as likely as the likeliest
    repetition_penalty: float | None = None  # above 1 makes tokens that are already there less likely
    beams: int | None = None  # follow so many beginnings at once and show the likeliest text (beam search)
    length_penalty: float = 1.0  # of beams: 0 favours short texts, 1 compares means, more long ones
    stop: tuple[str, ...] = ()  # end at one of these texts
    overflow: str = "crop"  # a prompt beyond the context: crop keeps its end, error refuses it
    seed: int | None = None  # same seed, same prompt: same text

    def __post_init__(self) -> None:
        config = GenerationConfig(**self.generation_settings())
        if self.beams is not None:
            check_beams(config, n_beams=self.beams, length_penalty=self.length_penalty)

    def generation_settings(self) -> dict[str, Any]:
        """The flags that are fields of GenerationConfig, as far as they are given."""
        names = {field.name for field in dataclasses.fields(GenerationConfig)}
        given = {name: value for name, value in vars(self).items() if name in names and value is not None}
        return {**given, "stop_texts": self.stop}


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(Generate, _act, args, prog=prog)


def _act(command: Generate, console: Console) -> dict[str, Any]:
    """Write the continuation as it comes; returns the `--json` keys."""
    if command.model is None or not command.prompt:
        missing = "--model" if command.model is None else "--prompt"
        raise ConfigError(
            f"generate needs a model and a prompt, found no {missing}; see `scratchlm generate --help`."
        )
    lm = load(command.model, device=command.device)
    lm.check_writes("generate", advice="; use classify")
    prompts = [read_text() if prompt == "-" else prompt for prompt in command.prompt]
    given = command.generation_settings()
    config = lm.generation_config(**given)
    if (
        command.beams is None
        and config.is_greedy
        and (idle := [f"--{name.replace('_', '-')}" for name in DRAWING if name in given])
    ):
        told = f"temperature 0 always takes the likeliest token: {', '.join(idle)} without effect"
        console.print(told, markup=False, soft_wrap=True)
    prompt_ids = [lm.encode_prompt(prompt) for prompt in prompts]
    if command.beams is not None:
        return _search(command, lm, prompts, prompt_ids, config)
    ids: list[list[int]] = [[] for _ in prompts]
    texts = [""] * len(prompts)
    streams = not command.json and len(prompts) == 1
    shown = prompts[0]  # printed with the first token: a prompt that is refused prints nothing
    for step in generate(lm.model, prompt_ids, config, tokenizer=lm.tokenizer):
        texts[step.row] += step.text
        if step.id is not None:
            ids[step.row].append(step.id)
        if streams:
            print(f"{shown}{step.text}", end="", flush=True)
            shown = ""
    if streams:
        print(shown)
    elif not command.json:
        for prompt, text in zip(prompts, texts):
            print(f"{prompt}{text}\n")
    if len(prompts) == 1:
        return {"prompt_ids": prompt_ids[0], "ids": ids[0], "text": texts[0]}
    return {"prompt_ids": prompt_ids, "ids": ids, "text": texts}


def _search(
    command: Generate,
    lm: LanguageModel,
    prompts: list[str],
    prompt_ids: list[list[int]],
    config: GenerationConfig,
) -> dict[str, Any]:
    """Show the best of the beams, which is known only at the end; returns the same keys, and all beams."""
    assert command.beams is not None
    found = [
        beam_search(
            lm.model,
            ids,
            config,
            n_beams=command.beams,
            length_penalty=command.length_penalty,
            tokenizer=lm.tokenizer,
        )
        for ids in prompt_ids
    ]
    if not command.json:
        for prompt, beams in zip(prompts, found):
            print(f"{prompt}{beams[0].text}" + ("\n" if len(prompts) > 1 else ""))
    result: dict[str, list[Any]] = {
        "prompt_ids": prompt_ids,
        "ids": [beams[0].ids for beams in found],
        "text": [beams[0].text for beams in found],
        "beams": [[dataclasses.asdict(beam) for beam in beams] for beams in found],
    }
    return {key: values[0] for key, values in result.items()} if len(prompts) == 1 else result
