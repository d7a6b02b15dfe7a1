"""`scratchlm generate`: continue a prompt, token by token."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.streams import read_text
from scratchlm.core.errors import ConfigError
from scratchlm.generation.beam import beam_search, check_beams
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate
from scratchlm.serving.language_model import LanguageModel, load

SAMPLING = ("top_k", "top_p", "min_p", "seed")  # settings without effect in greedy decoding


@dataclass(frozen=True, kw_only=True)
class Generate(Common):
    """Continue one prompt, or several at once, and show the text as it is generated.

    Example: scratchlm generate --model runs/quickstart --prompt "Once upon a time" --temperature 0.8 --seed 1
    """

    model: Path | None = None  # a model folder or run folder
    prompt: tuple[str, ...] = ()  # text to continue; "-" reads it from standard input
    max_new_tokens: int = 100  # maximum number of tokens to generate for each prompt
    temperature: float = 0.0  # 0 takes the most likely token; 1 samples from the model's distribution
    top_k: int | None = None  # sample from the k most likely tokens only
    top_p: float | None = None  # sample from the fewest tokens whose total probability reaches p
    min_p: float | None = None  # sample from tokens with at least this fraction of the top probability
    repetition_penalty: float | None = None  # above 1 makes tokens that already occurred less likely
    beams: int | None = None  # number of sequences that beam search keeps; the most likely one is shown
    length_penalty: float = 1.0  # beam search: 0 favours short texts, 1 compares means, above 1 long texts
    stop: tuple[str, ...] = ()  # stop when one of these texts is generated
    overflow: str = "crop"  # prompt longer than the context: crop keeps its end, error refuses it
    seed: int | None = None  # seed of sampling; the same seed and prompt give the same text

    def __post_init__(self) -> None:
        config = GenerationConfig(**self.generation_settings())
        if self.beams is not None:
            check_beams(config, n_beams=self.beams, length_penalty=self.length_penalty)

    def generation_settings(self) -> dict[str, Any]:
        """The flags that are fields of GenerationConfig and were given."""
        names = {field.name for field in dataclasses.fields(GenerationConfig)}
        given = {name: value for name, value in vars(self).items() if name in names and value is not None}
        return {**given, "stop_texts": self.stop}


@command_line(Generate)
def main(command: Generate, console: Console) -> dict[str, Any]:
    """Generate text and print it; returns the `--json` keys."""
    if command.model is None or not command.prompt:
        missing = "--model" if command.model is None else "--prompt"
        raise ConfigError(
            f"generate needs a model and a prompt; add {missing} (see `scratchlm generate --help`)."
        )
    lm = load(command.model, device=command.device)
    lm.check_generates("generate", advice="; use classify")
    prompts = [read_text() if prompt == "-" else prompt for prompt in command.prompt]
    given = command.generation_settings()
    config = lm.generation_config(**given)
    if (
        command.beams is None
        and config.is_greedy
        and (idle := [f"--{name.replace('_', '-')}" for name in SAMPLING if name in given])
    ):
        console.print(
            f"{', '.join(idle)} without effect: temperature 0 always takes the most likely token",
            soft_wrap=True,
        )
    prompt_ids = [lm.encode_prompt(prompt) for prompt in prompts]
    if command.beams is not None:
        return _search(command, lm, prompts, prompt_ids, config)
    ids: list[list[int]] = [[] for _ in prompts]
    texts = [""] * len(prompts)
    streams = len(prompts) == 1
    shown = prompts[0]  # printed with the first token, so that nothing is printed for a rejected prompt
    for event in generate(lm.model, prompt_ids, config, tokenizer=lm.tokenizer):
        texts[event.row] += event.text
        if event.id is not None:
            ids[event.row].append(event.id)
        if streams:
            print(f"{shown}{event.text}", end="", flush=True)
            shown = ""
    if streams:
        print(shown)
    else:
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
    """Print the best beam, which is known only at the end; returns the same keys, and all beams."""
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
    for prompt, beams in zip(prompts, found):
        print(f"{prompt}{beams[0].text}" + ("\n" if len(prompts) > 1 else ""))
    result: dict[str, list[Any]] = {
        "prompt_ids": prompt_ids,
        "ids": [beams[0].ids for beams in found],
        "text": [beams[0].text for beams in found],
        "beams": [[dataclasses.asdict(beam) for beam in beams] for beams in found],
    }
    return {key: values[0] for key, values in result.items()} if len(prompts) == 1 else result
