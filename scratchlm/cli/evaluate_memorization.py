"""`scratchlm evaluate memorization`: how much of a model's text is copied from its training text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.evaluate_loss import tokens_of
from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.cli.progress import work_progress
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import ShowsProgress
from scratchlm.data.row_files import RowSettings
from scratchlm.data.shards import token_folder
from scratchlm.data.sources import find_sources, read_documents, read_pieces
from scratchlm.evaluation.diversity import Diversity, diversity
from scratchlm.evaluation.memorization import Memorization, memorization, word_rows
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate
from scratchlm.serving.language_model import LanguageModel, load
from scratchlm.training.settings import resolve_data

DESCRIPTIONS = {
    "longest_tokens": "longest passage copied from training, in tokens",
    "mean_longest_tokens": "the same, mean over the texts",
    "longest_words": "longest passage copied from training, in words",
    "mean_longest_words": "the same, mean over the texts",
    "novel_5grams_tokens": "5-grams of tokens not in the training text",
    "novel_5grams_words": "5-grams of words not in the training text",
    "distinct_1": "different words, of all words",
    "distinct_2": "different pairs of words, of all pairs",
    "distinct_3": "different triples of words, of all triples",
    "repeated_4": "4-grams of words repeated within a text",
    "longest_repeat": "longest passage repeated within a text, mean",
}
SHARES = ("novel_5grams_tokens", "novel_5grams_words", "distinct_1", "distinct_2", "distinct_3", "repeated_4")


@dataclass(frozen=True, kw_only=True)
class EvaluateMemorization(Common):
    """How much of a model's text is copied word for word from its training text, and how much it repeats itself.

    Samples are generated with a seed (default 0), or read from --texts. With --reference, held-out text by
    people is measured too, in pieces of the same length: any two real texts share phrases, and only more is copying.

    Example: scratchlm evaluate memorization --model runs/books --data books/ --reference held_out.txt
    """

    model: Path | None = None  # a model folder or run folder
    data: tuple[str, ...] = ()  # the training text: files, folders, globs or known names
    texts: Path | None = None  # texts to measure instead of new samples: .txt is one, .jsonl one per line
    reference: Path | None = None  # held-out text written by people, for comparison
    rows: Annotated[RowSettings, tyro.conf.arg(name="")] = field(default_factory=RowSettings)
    skip_bad_lines: bool = False  # leave out lines that do not parse, instead of stopping
    n_samples: int = 20  # number of samples
    prompt: tuple[str, ...] = ()  # prompts of the samples, in turn; default: the beginning of a document
    max_new_tokens: int = 200  # maximum number of tokens per sample
    temperature: float = 1.0  # 1: the model's probabilities; 0: always the likeliest token
    top_k: int | None = None  # sample from this many likeliest tokens
    top_p: float | None = None  # sample from the fewest tokens with this total probability

    def __post_init__(self) -> None:
        check_at_least(1, n_samples=self.n_samples, max_new_tokens=self.max_new_tokens)
        GenerationConfig(**self.sampling)

    @property
    def sampling(self) -> dict[str, Any]:
        """Sampling settings: fields of GenerationConfig."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "seed": self.seed or 0,
        }


@command_line(EvaluateMemorization)
def main(command: EvaluateMemorization, console: Console) -> dict[str, Any]:
    """Generate samples, compare them with the training text, print the result; returns the `--json` keys."""
    needs = "evaluate memorization needs a model and its training text"
    model, data = required(command, needs, "model", "data")
    paths = resolve_data(data)
    if token_folder(paths) is not None:
        raise DataError(
            f"{data[0]} holds token shards, but evaluate memorization needs the training text; name the files that "
            "were tokenised."
        )
    lm = load(model, device=command.device)
    lm.check_generates("evaluate memorization")
    show = work_progress(console)
    if command.texts is None:
        texts = _drawn(command, lm, show)
    else:
        texts = _read(command, command.texts)
    sets = {"generated": texts}
    if command.reference is not None:
        held_out = _read(command, command.reference)
        sets["reference"] = _pieces_like(texts, held_out, lm, name=str(command.reference))
    measured = _measured(command, paths, sets, lm, show)
    figures = {name: _figures(*found) for name, found in measured.items()}
    by_token, by_word, _ = measured["generated"]
    items = [
        {
            "text": text,
            "longest_tokens": tokens.length,
            "longest_words": words.length,
            "passage": " ".join(text.split()[words.sample_start :][: words.length]),
            "novel_5grams_words": novel,
        }
        for text, tokens, words, novel in zip(texts, by_token.overlaps, by_word.overlaps, by_word.novel)
    ]
    longest = max(items, key=lambda item: int(item["longest_words"] or 0))
    _show(figures, {name: len(some) for name, some in sets.items()})
    if longest["passage"]:
        print(f"the longest passage copied from training:\n  {longest['passage']:.400}")
    return {
        "generated": figures["generated"],
        "reference": figures.get("reference"),
        "samples": len(texts),
        "reference_samples": len(sets.get("reference", [])),
        "items": items,
    }


def _read(command: EvaluateMemorization, path: Path) -> list[str]:
    documents = read_documents(path, rows=command.rows, skip_bad_lines=command.skip_bad_lines)
    return [document.text for document in documents]


def _drawn(command: EvaluateMemorization, lm: LanguageModel, show: ShowsProgress) -> list[str]:
    """Generate samples, without their prompts; the same seed gives the same samples."""
    prompts = [lm.encode_prompt(prompt) for prompt in command.prompt or ("",)]
    prompts = [prompts[i % len(prompts)] for i in range(command.n_samples)]
    if not all(prompts) and lm.tokenizer.end_of_text_id is None:
        raise ConfigError("this vocabulary has no token for the beginning of a document; give a --prompt.")
    config = lm.generation_config(**command.sampling)
    texts = [""] * len(prompts)
    with show("generating samples") as report:
        for n_done, event in enumerate(generate(lm.model, prompts, config, tokenizer=lm.tokenizer), start=1):
            texts[event.row] += event.text
            report(n_done, len(prompts) * command.max_new_tokens)
    if not any(text.split() for text in texts):
        raise DataError(
            f"all {len(texts)} samples are empty, because the model ends its texts at once; give a --prompt, or train "
            "it longer."
        )
    return texts


def _pieces_like(texts: Sequence[str], held_out: Sequence[str], lm: LanguageModel, *, name: str) -> list[str]:
    """Cut a real text into consecutive pieces with the lengths of the texts, in tokens, until it ends."""
    ids = [token for text in held_out for token in lm.tokenizer.encode(text)]
    pieces: list[str] = []
    begin = 0
    for length in (len(lm.tokenizer.encode(text)) for text in texts):
        if begin + length > len(ids):
            break
        pieces.append(lm.tokenizer.decode(ids[begin : begin + length]))
        begin += length
    if not pieces:
        raise DataError(f"{name} has only {len(ids)} tokens, less than one sample; name a longer text.")
    return pieces


def _measured(
    command: EvaluateMemorization,
    paths: Sequence[str | Path],
    sets: dict[str, list[str]],
    lm: LanguageModel,
    show: ShowsProgress,
) -> dict[str, tuple[Memorization, Memorization, Diversity]]:
    """Compare each set of texts by tokens and by words, and measure its diversity."""
    reading: dict[str, Any] = {"rows": command.rows, "skip_bad_lines": command.skip_bad_lines}
    tokens = tokens_of(paths, lm.tokenizer, show, **reading)
    together = [text for texts in sets.values() for text in texts]
    pieces = read_pieces(find_sources(paths), **reading)
    with show("reading words"):
        words, training_words = word_rows(together, ((piece.text, piece.ends_document) for piece in pieces))
    measured = {}
    for name, texts in sets.items():
        mine, words = words[: len(texts)], words[len(texts) :]
        with show(f"comparing {name}") as report:
            by_token = memorization(
                [lm.tokenizer.encode(text) for text in texts], tokens.train, progress=report
            )
            by_word = memorization(mine, training_words, progress=report)
        measured[name] = (by_token, by_word, diversity(texts))
    return measured


def _figures(by_token: Memorization, by_word: Memorization, varied: Diversity) -> dict[str, float | None]:
    return {
        "longest_tokens": by_token.longest,
        "mean_longest_tokens": by_token.mean_longest,
        "longest_words": by_word.longest,
        "mean_longest_words": by_word.mean_longest,
        "novel_5grams_tokens": by_token.novel_share,
        "novel_5grams_words": by_word.novel_share,
        **asdict(varied),
    }


def _show(figures: dict[str, dict[str, float | None]], counts: dict[str, int]) -> None:
    print(f"{'':54}" + "".join(f"{f'{name} ({counts[name]})':>18}" for name in figures))
    for key, words in DESCRIPTIONS.items():
        print(f"{words:54}" + "".join(f"{_say(key, column[key]):>18}" for column in figures.values()))


def _say(key: str, value: float | None) -> str:
    if value is None:
        return "too short"
    return f"{value:.1%}" if key in SHARES else f"{value:,.1f}".removesuffix(".0")
