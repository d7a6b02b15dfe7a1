"""`scratchlm generate`: continue a prompt, token by token."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from scratchlm.cli.arguments import MARK
from scratchlm.cli.parsing import Common, command_line, flag_of, required
from scratchlm.cli.streams import read_piped_prompt
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import read_json, write_json
from scratchlm.generation.beam import Beam, BeamNode, beam_search, check_beams
from scratchlm.generation.best_of import best_of
from scratchlm.generation.config import (
    CONSTRAINTS,
    IDLE_WITHOUT,
    SAMPLING,
    DecodingSettings,
    GenerationConfig,
)
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

    decoding: Annotated[DecodingSettings, tyro.conf.arg(name="")] = field(default_factory=DecodingSettings)
    logit_bias: tuple[str, ...] = ()  # ID=NUMBER: add a number to the score of a token
    json_schema: str | None = None  # the new text must be JSON of this schema: a file, or the schema itself

    beams: int | None = None  # number of sequences that beam search keeps; the most likely one is shown
    length_penalty: float = 1.0  # beam search: 0 favours short texts, 1 compares means, above 1 long texts
    early_stopping: Stopping = "no"  # beam search: yes stops once enough beams have ended
    draft: Path | None = None  # a smaller model with the same tokenizer that guesses tokens, for speed
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
        elif self.length_penalty != 1.0:
            raise ConfigError(
                f"length_penalty is a setting of beam search, got {self.length_penalty} and no beams; add --beams, or "
                "leave it out."
            )
        elif config.n_best is not None and config.best_of is None:
            raise ConfigError(f"n_best={config.n_best} needs --beams or --best-of; add one, or leave it out.")
        if self.trace is not None and self.trace.is_dir():
            raise ConfigError(
                f"trace must be a file to write, got a folder: {self.trace}; choose another name."
            )
        for name, value in {"draft": self.draft, "trace": self.trace}.items():
            others = {"best_of": config.best_of, "penalty_alpha": config.penalty_alpha}
            others |= {"beams": self.beams, "prompt_lookup": config.prompt_lookup} if name == "draft" else {}
            for other, number in others.items():
                if value is not None and number is not None:
                    raise ConfigError(
                        f"{name} and {other} cannot be combined, got {name}={value} and {other}={number}; leave one of "
                        "them out."
                    )

    def generation_settings(self) -> dict[str, Any]:
        """The flags that are fields of GenerationConfig and were given."""
        names = {setting.name for setting in dataclasses.fields(GenerationConfig)}
        flags = {**vars(self), **dataclasses.asdict(self.decoding)}
        given = {name: value for name, value in flags.items() if name in names and value is not None}
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
    """The numbers of `ID=NUMBER` flags by id; ConfigError for a flag of another form."""
    found = {}
    for text in (one.removeprefix(MARK) for one in texts):
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
    _note_idle_settings(command, config, console)
    prompt_ids = [lm.encode_prompt(prompt) for prompt in prompts]
    act = _search if command.beams is not None or config.best_of is not None else _stream
    result = {"prompt_ids": prompt_ids, **act(command, lm, prompts, prompt_ids, config)}
    return {key: values[0] for key, values in result.items()} if len(prompts) == 1 else result


def _note_idle_settings(command: Generate, config: GenerationConfig, console: Console) -> None:
    idle: list[tuple[list[str], str]] = []  # settings, and why they have no effect
    if command.beams is None and config.is_greedy:
        used = ["top_k"] if config.penalty_alpha is not None else []
        names = [name for name in config.given(*SAMPLING) if name not in used]
        idle.append((names, "temperature 0 always takes the most likely token"))
    for needed, others in IDLE_WITHOUT.items():
        if getattr(config, needed) is None and not (needed == "prompt_lookup" and command.draft is not None):
            idle.append(([*config.given(*others)], f"{flag_of(needed)} is not given"))
    if command.draft is not None and (unguessed := [*config.given("mirostat_tau", *CONSTRAINTS)]):
        idle.append((["draft"], f"tokens are not guessed with {flag_of(unguessed[0])}"))
    for names, reason in idle:
        if names:
            has = "has" if len(names) == 1 else "have"
            console.print(f"{', '.join(map(flag_of, names))} {has} no effect: {reason}")


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
        steps = [with_texts(trace.steps, lm.tokenizer) for trace in traces]
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
    n_shown = config.n_best or 1
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
