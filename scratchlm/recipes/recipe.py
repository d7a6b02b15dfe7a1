"""A recipe: everything one complete named run depends on, as a TOML file that people read and change."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomli_w

from scratchlm.core.config import from_dict, nearest, to_dict
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import read_utf8, write_text
from scratchlm.finetuning.classifier_training import ClassifySettings
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.finetuning.preference import PreferSettings
from scratchlm.training.config import TrainingConfig
from scratchlm.training.settings import ModelSettings, TextSettings, TokenizerSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the same library, before it joined Python

Stage = Literal["pretrain", "classify", "instruct", "prefer"]
SAMPLES = "sample"  # data of this name is the built-in sample data


@dataclass(frozen=True, kw_only=True)
class DataSettings(TextSettings):
    """What a run learns from: files, folders, globs, known names, or `sample` for the built-in data."""

    text: tuple[str, ...] = ()  # to pre-train on
    val_text: tuple[str, ...] = ()  # validation text of its own, instead of a part of text
    messages: tuple[str, ...] = ()  # labelled texts for the classifier
    instructions: tuple[str, ...] = ()  # entries for the assistant
    preferences: tuple[str, ...] = ()  # pairs of answers for preference tuning


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One complete run; the sections are tables of the TOML file and dotted flags of the command line."""

    description: str = ""
    needs: str = ""  # what the user must bring, in words; told when it is missing
    stages: tuple[Stage, ...] = ("pretrain", "classify", "instruct")
    base: str | None = None  # what fine-tuning starts from; None = the model pre-trained in this run
    sample_prompt: str = "Once upon a time"  # what text samples begin with
    data: DataSettings = field(default_factory=DataSettings)
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    pretrain: TrainingConfig = field(default_factory=TrainingConfig)
    classify: ClassifySettings = field(default_factory=ClassifySettings)
    instruct: InstructSettings = field(default_factory=InstructSettings)
    prefer: PreferSettings = field(default_factory=PreferSettings)

    def check(self) -> None:
        """Make sure that every stage has what it needs.

        Raises: ConfigError naming the stage and the setting.
        """
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise ConfigError(f"stages must name each stage once and at least one, got {self.stages}.")
        if "pretrain" in self.stages[1:]:
            raise ConfigError(
                f"pretrain must be the first stage, got {', '.join(self.stages)}; reorder stages."
            )
        if SAMPLES in self.data.text and self.data.val_text:
            raise ConfigError(
                "the sample text brings its own validation side, found val_text beside it; remove it."
            )
        for key in ("text", "messages", "instructions", "preferences"):
            if SAMPLES in (names := getattr(self.data, key)) and len(names) > 1:
                raise ConfigError(f"data.{key} must be {SAMPLES!r} alone or files, got both; choose one.")
        if "prefer" in self.stages and "instruct" in self.stages[self.stages.index("prefer") :]:
            raise ConfigError(
                f"prefer must come after instruct, whose assistant it tunes, got {', '.join(self.stages)}; reorder "
                "stages."
            )
        if self.base is None and "pretrain" not in self.stages:
            raise ConfigError(
                "a run without the stage pretrain needs a base, found none; name a model with base."
            )
        wanted = {
            "pretrain": self.data.text,
            "classify": self.data.messages,
            "instruct": self.data.instructions,
            "prefer": self.data.preferences,
        }
        keys = {
            "pretrain": "text",
            "classify": "messages",
            "instruct": "instructions",
            "prefer": "preferences",
        }
        for stage in self.stages:
            if not wanted[stage]:
                raise ConfigError(
                    f"the stage {stage} needs data, found none; name it with data.{keys[stage]} "
                    f"(`--data.{keys[stage]} PATH`){'; it needs ' + self.needs if self.needs else ''}."
                )
            if not getattr(self, stage).has_end:
                raise ConfigError(
                    f"the stage {stage} needs an end, found none; set max_steps, epochs or max_minutes in [{stage}]."
                )


def builtin_recipes() -> dict[str, str]:
    """Names of the recipes that come with the package, and what each does."""
    found = {}
    for file in sorted(resources.files("scratchlm.recipes").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            values = tomllib.loads(file.read_text(encoding="utf-8"))
            found[file.name.removesuffix(".toml")] = values.get("description", "")
    return found


def load_recipe(name: str) -> tuple[str, Recipe]:
    """A recipe by name, or from a TOML file or a run folder, with the short name that its run folder gets.

    Raises: ConfigError for an unknown name (with the nearest), a file that is not TOML, or a wrong setting.
    """
    short, values = recipe_values(name)
    return short, from_dict(Recipe, values, where=short)


def recipe_values(name: str) -> tuple[str, dict[str, Any]]:
    """The plain values of a recipe, not yet checked: `--data.text` may still complete them."""
    path = Path(name)
    if path.is_dir() and (path / "recipe.toml").is_file():
        return path.name, _parse(read_utf8(path / "recipe.toml", error=ConfigError), where=str(path))
    if path.suffix == ".toml":
        short = path.parent.name if path.name == "recipe.toml" else path.stem
        return short, _parse(read_utf8(path, error=ConfigError), where=name)
    known = builtin_recipes()
    if name not in known:
        raise ConfigError(
            f"a recipe must be a known name, a .toml file or a run folder, got {name!r}; {nearest(name, known)}"
        )
    text = resources.files("scratchlm.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return name, _parse(text, where=name)


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with every setting resolved, so that the run can be repeated by later versions too."""
    write_text(path, tomli_w.dumps(to_dict(recipe)))


def differing_settings(one: Recipe, other: Recipe) -> list[str]:
    """Dotted names of the settings in which two recipes differ."""
    return _differences(dataclasses.asdict(one), dataclasses.asdict(other), prefix="")


def _differences(one: dict[str, Any], other: dict[str, Any], *, prefix: str) -> list[str]:
    found = []
    for key, value in one.items():
        if isinstance(value, dict):
            found += _differences(value, other[key], prefix=f"{prefix}{key}.")
        elif value != other[key]:
            found.append(f"{prefix}{key}")
    return found


def _parse(text: str, *, where: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise ConfigError(f"{where} must be a TOML recipe, found: {cause}; repair that line.") from cause
    return values
