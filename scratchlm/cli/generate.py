"""`scratchlm generate`: continue a prompt, token by token."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.cli.streams import read_piped_prompt
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import read_json, write_json
from scratchlm.generation.beam import Beam, BeamNode, beam_search, check_beams
from scratchlm.generation.best_of import best_of
from scratchlm.generation.config import SAMPLING, GenerationConfig
from scratchlm.generation.contrastive import contrastive_search
from scratchlm.generation.generate import generate
from scratchlm.generation.requests import TokenEvent
from scratchlm.generation.speculative import check_same_tokenizer
from scratchlm.generation.trace import RowTrace, with_texts
from scratchlm.model.gpt import GPTModel
from scratchlm.serving.language_model import LanguageModel, load

Stopping = Literal["no", "yes", "never"]
Ids = list[list[int]]  # of each prompt
EARLY_STOPPING: dict[Stopping, bool | Literal["never"]] = {"no": False, "yes": True, "never": "never"}


@dataclass(frozen=True, kw_only=True)
class Generate(Common):
    """Continue one prompt, or several at once, and show the text as it is generated.

    Example: scratchlm generate --model runs/quickstart --prompt "Once upon a time" --temperature 0.8 --seed 1
    """

    model: Path | None = None  # a model folder, run folder, Hugging Face folder or .gguf file
    prompt: tuple[str, ...] = ()  # text to continue; "-" reads it from standard input
    max_new_tokens: int = 100  # maximum number of tokens to generate for each prompt
    min_new_tokens: int = 0  # minimum number of tokens before an end-of-text token
    stop: tuple[str, ...] = ()  # stop when one of these texts is generated
    attention_sinks: int | None = None  # beyond the context, slide, but keep so many first tokens
    overflow: str = "crop"  # prompt longer than the context: crop keeps its end, error refuses it
    seed: int | None = None  # seed of sampling; the same seed and prompt give the same text

    temperature: float = 0.0  # 0 takes the most likely token; 1 samples from the model's distribution
    top_k: int | None = None  # sample from the k most likely tokens only
    top_p: float | None = None  # sample from the fewest tokens whose total probability reaches p
    min_p: float | None = None  # sample from tokens with at least this fraction of the top probability
    typical_p: float | None = None  # sample from the most typical tokens, up to this total probability
    epsilon_cutoff: float | None = None  # sample from tokens with at least this probability
    eta_cutoff: float | None = None  # like epsilon_cutoff, with a limit that falls for a flat distribution
    top_n_sigma: float | None = None  # sample from scores within this many standard deviations of the best
    mirostat_tau: float | None = None  # Mirostat: keep the surprise near this number of bits per token
    mirostat_eta: float = 0.1  # Mirostat: how fast it adapts

    repetition_penalty: float | None = None  # above 1 makes tokens that already occurred less likely
    presence_penalty: float | None = None  # subtracted from the score of every token generated before
    frequency_penalty: float | None = None  # subtracted for each time that a token was generated before
    no_repeat_ngram: int | None = None  # no sequence of this many tokens occurs twice
    dry_multiplier: float | None = None  # DRY: penalty of tokens that continue a repeated sequence
    dry_base: float = 1.75  # DRY: growth of the penalty with the length of the sequence
    dry_allowed_length: int = 2  # DRY: length of sequences that may repeat without penalty
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")  # DRY: texts at which a sequence ends
    logit_bias: tuple[str, ...] = ()  # ID=NUMBER: add a number to the score of a token
    banned_ids: tuple[int, ...] = ()  # ids of tokens that are never chosen
    forced_ids: tuple[int, ...] = ()  # ids of the first new tokens

    regex: str | None = None  # the new text must match this regular expression
    choices: tuple[str, ...] = ()  # the new text must be one of these
    json_schema: str | None = None  # the new text must be JSON of this schema: a file, or the schema itself

    beams: int | None = None  # number of sequences that beam search keeps; the most likely one is shown
    length_penalty: float = 1.0  # beam search: 0 favours short texts, 1 compares means, above 1 long texts
    early_stopping: Stopping = "no"  # beam search: yes stops once enough beams have ended
    num_beam_groups: int | None = None  # diverse beam search: number of groups of beams
    diversity_penalty: float | None = None  # diverse beam search: penalty of tokens taken by earlier groups
    best_of: int | None = None  # draw this many texts and show the most likely one
    n_best: int | None = None  # number of texts to show of beam search or best_of
    penalty_alpha: float | None = None  # contrastive search, with top_k: weight of the similarity penalty
    draft: Path | None = None  # a smaller model with the same tokenizer that guesses tokens, for speed
    draft_tokens: int | None = None  # number of tokens to guess at a time
    prompt_lookup: int | None = None  # guess what followed an earlier copy of the last tokens, up to so many
    trace: Path | None = None  # write the candidates of every step to this JSON file

    def __post_init__(self) -> None:
        config = GenerationConfig(**self.generation_settings())
        if self.beams is not None:
            check_beams(config, n_beams=self.beams, length_penalty=self.length_penalty)
        elif beam_only := config.given("num_beam_groups", "diversity_penalty", "early_stopping"):
            name = next(iter(beam_only))
            raise ConfigError(
                f"{name} is a setting of beam search, got no beams; add --beams, or leave it out."
            )
        elif self.n_best is not None and self.best_of is None:
            raise ConfigError(f"n_best={self.n_best} needs --beams or --best-of; add one, or leave it out.")
        for name, value in {"draft": self.draft, "trace": self.trace}.items():
            others = {"best_of": self.best_of, "penalty_alpha": self.penalty_alpha}
            others |= {"beams": self.beams} if name == "draft" else {}
            for other, number in others.items():
                if value is not None and number is not None:
                    raise ConfigError(
                        f"{name} and {other} cannot be combined, got {name}={value} and {other}={number}; leave one of "
                        "them out."
                    )

    def generation_settings(self) -> dict[str, Any]:
        """The flags that are fields of GenerationConfig and were given."""
        names = {field.name for field in dataclasses.fields(GenerationConfig)}
        given = {name: value for name, value in vars(self).items() if name in names and value is not None}
        given["early_stopping"] = EARLY_STOPPING[self.early_stopping]
        if self.schema_file is not None:
            given["json_schema"] = {}  # read later
        return {**given, "stop_texts": self.stop, "logit_bias": biases(self.logit_bias)}

    @property
    def schema_file(self) -> Path | None:
        """The file that `--json-schema` names, if it does not hold the schema itself."""
        text = self.json_schema
        return None if text is None or text.lstrip().startswith("{") else Path(text)


def biases(texts: Sequence[str]) -> dict[int, float]:
    """The numbers of `ID=NUMBER` flags by id.

    Raises: ConfigError.
    """
    found = {}
    for text in texts:
        token_id, _, number = text.partition("=")
        try:
            found[int(token_id)] = float(number)
        except ValueError as cause:
            raise ConfigError(f"logit_bias must be ID=NUMBER, got {text!r}; write e.g. 11=-2.5.") from cause
    return found


@command_line(Generate)
def main(command: Generate, console: Console) -> dict[str, Any]:
    """Generate text and print it; returns the `--json` keys."""
    model, prompts = required(command, "generate needs a model and a prompt", "model", "prompt")
    given = command.generation_settings()
    if command.schema_file is not None:
        given["json_schema"] = read_json(command.schema_file, error=ConfigError)
    lm = load(model, device=command.device)
    lm.check_generates("generate", advice="; use classify")
    prompts = [read_piped_prompt() if prompt == "-" else prompt for prompt in prompts]
    config = lm.generation_config(**given)
    if command.beams is None and config.is_greedy:
        _note_idle_settings(config, console)
    prompt_ids = [lm.encode_prompt(prompt) for prompt in prompts]
    act = _search if command.beams is not None or command.best_of is not None else _stream
    result = {"prompt_ids": prompt_ids, **act(command, lm, prompts, prompt_ids, config)}
    return {key: values[0] for key, values in result.items()} if len(prompts) == 1 else result


def _note_idle_settings(config: GenerationConfig, console: Console) -> None:
    used = ["top_k"] if config.penalty_alpha is not None else []
    idle = [f"--{name.replace('_', '-')}" for name in config.given(*SAMPLING) if name not in used]
    if idle:
        console.print(f"{', '.join(idle)} without effect: temperature 0 always takes the most likely token")


def _stream(
    command: Generate, lm: LanguageModel, prompts: list[str], prompt_ids: Ids, config: GenerationConfig
) -> dict[str, list[Any]]:
    """Print texts while they grow, if there is only one; returns the ids and texts."""
    ids: Ids = [[] for _ in prompts]
    texts = [""] * len(prompts)
    streams = len(prompts) == 1
    shown = prompts[0]  # printed with the first token, so that nothing is printed for a rejected prompt
    traces = None if command.trace is None else [RowTrace() for _ in prompts]
    events: Iterator[TokenEvent]
    if config.penalty_alpha is not None:
        # A list, so that all prompts are checked before the first event.
        searches = [contrastive_search(lm.model, ids, config, tokenizer=lm.tokenizer) for ids in prompt_ids]
        events = (dataclasses.replace(e, row=row) for row, search in enumerate(searches) for e in search)
    else:
        draft = None if command.draft is None else _draft(command, lm)
        events = generate(lm.model, prompt_ids, config, tokenizer=lm.tokenizer, draft=draft, traces=traces)
    for event in events:
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
    if command.trace is not None and traces is not None:
        steps = [with_texts(trace, lm.tokenizer) for trace in traces]
        _write_trace(command.trace, prompts, prompt_ids, [{"steps": one} for one in steps])
    return {"ids": ids, "text": texts}


def _draft(command: Generate, lm: LanguageModel) -> GPTModel:
    assert command.draft is not None
    draft = load(command.draft, device=command.device)
    draft.check_generates("draft")
    check_same_tokenizer(draft.tokenizer, lm.tokenizer)
    return draft.model


def _search(
    command: Generate, lm: LanguageModel, prompts: list[str], prompt_ids: Ids, config: GenerationConfig
) -> dict[str, list[Any]]:
    """Print the best texts, which are known only at the end; returns the same, and all texts found."""
    found: list[list[Beam]] = []
    trees: list[list[BeamNode]] = []
    for ids in prompt_ids:
        if command.beams is None:
            found.append(best_of(lm.model, ids, config, tokenizer=lm.tokenizer))
            continue
        trees.append([])
        found.append(
            beam_search(
                lm.model,
                ids,
                config,
                n_beams=command.beams,
                length_penalty=command.length_penalty,
                tokenizer=lm.tokenizer,
                tree=trees[-1] if command.trace is not None else None,
            )
        )
    n_shown = command.n_best or 1
    for prompt, texts in zip(prompts, found):
        for text in texts[:n_shown]:
            print(f"{prompt}{text.text}" + ("\n" if len(prompts) * n_shown > 1 else ""))
    if command.trace is not None:
        nodes = [
            [{**dataclasses.asdict(node), "text": lm.tokenizer.decode([node.id])} for node in t]
            for t in trees
        ]
        _write_trace(command.trace, prompts, prompt_ids, [{"tree": one} for one in nodes])
    return {
        "ids": [texts[0].ids for texts in found],
        "text": [texts[0].text for texts in found],
        "beams": [[dataclasses.asdict(text) for text in texts] for texts in found],
    }


def _write_trace(path: Path, prompts: list[str], prompt_ids: Ids, traces: list[dict[str, Any]]) -> None:
    rows = zip(prompts, prompt_ids, traces)
    texts = [{"prompt": prompt, "prompt_ids": ids, **trace} for prompt, ids, trace in rows]
    write_json(path, {"texts": texts})
