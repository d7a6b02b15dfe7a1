"""Recipes: TOML files with all settings of a complete run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomli_w

from scratchlm.core.config import from_dict, nearest, to_dict
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import read_utf8, write_text
from scratchlm.core.toml_tables import package_table, parse_toml
from scratchlm.data.mixture import check_mixture_weights
from scratchlm.finetuning.base import RANDOM, checked_size
from scratchlm.finetuning.classifier_training import ClassifySettings
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.finetuning.preference import PreferSettings
from scratchlm.training.config import TrainingConfig
from scratchlm.training.settings import ModelSettings, TextSettings, TokenizerSettings

Stage = Literal["pretrain", "classify", "instruct", "prefer"]
SAMPLES = "sample"  # data of this name is the built-in sample data
STAGE_DATA: dict[Stage, str] = {  # the field of DataSettings that each stage trains on
    "pretrain": "text",
    "classify": "messages",
    "instruct": "instructions",
    "prefer": "preferences",
}


@dataclass(frozen=True, kw_only=True)
class DataSettings(TextSettings):
    """The data of a run: files, folders, globs, known names, or `sample` for the built-in data."""

    text: tuple[str, ...] = ()  # to pre-train on
    text_weights: tuple[float, ...] = ()  # share of each of text in the training tokens; none = one text
    val_text: tuple[str, ...] = ()  # validation text of its own, instead of a part of text
    messages: tuple[str, ...] = ()  # labelled texts for the classifier
    instructions: tuple[str, ...] = ()  # entries for the assistant
    preferences: tuple[str, ...] = ()  # pairs of answers for preference tuning


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One complete run; the sections are tables of the TOML file and dotted flags of the command line."""

    description: str = ""
    needs: str = ""  # data that the user must provide; quoted in the error when it is missing
    stages: tuple[Stage, ...] = ("pretrain", "classify", "instruct")  # the stages to run
    base: str | None = None  # the base of fine-tuning; None = the model pre-trained in this run
    sample_prompt: str = "Once upon a time"  # prompt of the text samples
    data: DataSettings = field(default_factory=DataSettings)
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    pretrain: TrainingConfig = field(default_factory=TrainingConfig)
    classify: ClassifySettings = field(default_factory=ClassifySettings)
    instruct: InstructSettings = field(default_factory=InstructSettings)
    prefer: PreferSettings = field(default_factory=PreferSettings)

    def check(self) -> None:
        """Check that every stage has its data and base, and that the stages are in order.

        Raises: ConfigError naming the stage and the setting.
        """
        stages, data = self.stages, self.data
        if not stages or len(set(stages)) != len(stages):
            raise ConfigError(f"stages must name at least one stage, and each once, got {stages}.")
        if "pretrain" in stages[1:]:
            raise ConfigError(f"pretrain must be the first stage, got {', '.join(stages)}; reorder stages.")
        if "prefer" in stages and "instruct" in stages[stages.index("prefer") :]:
            raise ConfigError(
                f"prefer must come after instruct, whose assistant it tunes, got {', '.join(stages)}; reorder stages."
            )
        if self.base is None and "pretrain" not in stages:
            raise ConfigError("a run without the stage pretrain needs a base; name a model with base.")
        if self.base is not None and self.base.startswith(RANDOM):
            checked_size(self.base)
        if data.text_weights:
            check_mixture_weights(data.text_weights, data.text)
        if SAMPLES in data.text and data.val_text:
            raise ConfigError("the sample text has a validation side of its own; remove val_text.")
        for key in STAGE_DATA.values():
            if SAMPLES in (names := getattr(data, key)) and len(names) > 1:
                raise ConfigError(f"data.{key} must be {SAMPLES!r} alone or files, got both; choose one.")
        for stage in stages:
            if not getattr(data, key := STAGE_DATA[stage]):
                raise ConfigError(
                    f"the stage {stage} has no data; name it with data.{key} (`--data.{key} PATH`)"
                    f"{'; it needs ' + self.needs if self.needs else ''}."
                )
            if not getattr(self, stage).has_end:
                raise ConfigError(
                    f"the stage {stage} has no end; set max_steps, epochs or max_minutes in [{stage}]."
                )


def builtin_recipes() -> dict[str, str]:
    """The names of the built-in recipes, each with its description."""
    found = {}
    for file in sorted(resources.files("scratchlm.recipes").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            values = parse_toml(file.read_text(encoding="utf-8"), where=file.name)
            found[file.name.removesuffix(".toml")] = values.get("description", "")
    return found


def load_recipe(name: str) -> tuple[str, Recipe]:
    """Load a recipe by name, or from a TOML file or a run folder; also returns the name of its run folder.

    Raises: ConfigError for an unknown name (with the nearest), a file that is not TOML, or a wrong setting.
    """
    short, values = recipe_values(name)
    return short, from_dict(Recipe, values, where=short)


def recipe_values(name: str) -> tuple[str, dict[str, Any]]:
    """The plain values of a recipe, unchecked, since flags such as `--data.text` may still complete them."""
    path = Path(name)
    if path.is_dir() and (path / "recipe.toml").is_file():
        return path.name, parse_toml(read_utf8(path / "recipe.toml", error=ConfigError), where=str(path))
    if path.suffix == ".toml":
        short = path.parent.name if path.name == "recipe.toml" else path.stem
        return short, parse_toml(read_utf8(path, error=ConfigError), where=name)
    known = builtin_recipes()
    if name not in known:
        raise ConfigError(
            f"a recipe must be a known name, a .toml file or a run folder, got {name!r}; {nearest(name, known)}"
        )
    return name, package_table("scratchlm.recipes", f"{name}.toml")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with every setting, so that later versions with other defaults can repeat the run."""
    write_text(path, tomli_w.dumps(to_dict(recipe)))


def differing_settings(one: Recipe, other: Recipe) -> list[str]:
    """Dotted names of the settings in which two recipes differ."""
    values, others = (dict(flat_settings(dataclasses.asdict(recipe))) for recipe in (one, other))
    return [name for name, value in values.items() if value != others.get(name)]


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings with dotted names, as on the command line.

    Example:
        >>> flat_settings({"model": {"n_layers": 4}, "seed": 1})
        [('model.n_layers', 4), ('seed', 1)]
    """
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows.extend(flat_settings(value, f"{prefix}{name}."))
        else:
            rows.append((f"{prefix}{name}", value))
    return rows
