"""Read peft's `adapter_config.json`: the modules that an adapter changes, with rank and scale."""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import regex

from scratchlm.checkpoints.store import ADAPTER_CONFIG
from scratchlm.core.errors import CheckpointError
from scratchlm.core.json_table import read_json_table

CLASSIFIER_HEADS = {"score", "classifier"}  # peft names both for every classifier
_PATTERN_SECONDS = 1.0  # time limit for matching one name, since some patterns take exponential time
# characters, and the product of the counts in braces: both take memory
_MAX_PATTERN, _MAX_REPEATS = (1000, 1000)
_COUNT = regex.compile(r"\{(\d*),?(\d*)\}")
_KNOWN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # other ones change the base's weights too
_READ = {
    "peft_type", "task_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout", "use_rslora", "use_dora",
    "modules_to_save", "bias",
}  # fmt: skip
_WITHOUT_EFFECT = {  # on the output of a trained adapter; peft sets fan_in_fan_out according to the layer itself
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "fan_in_fan_out",
    "megatron_config", "megatron_core", "runtime_config", "qalora_group_size", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config",
}  # fmt: skip


class PeftConfig:
    """The config of a LoRA adapter, matched against module names as peft does.

    Raises: CheckpointError naming a setting of a wrong type, an unsupported one, or one that matches nothing.
    Source: peft's tuners_utils.check_target_module_exists and utils.other.get_pattern_key.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ADAPTER_CONFIG
        self.table = read_json_table(self.path, error=CheckpointError)
        kind = self.table.get("peft_type", str)
        if kind != "LORA":
            raise CheckpointError(
                f"{self.path} must describe a LoRA adapter, got {kind!r:.80}; merge the adapter with peft and open "
                "the merged model."
            )
        self._refuse_others()
        self.is_classifier = self.table.get("task_type", str) == "SEQ_CLS"
        self.use_dora = self.table.get("use_dora", bool, False)
        self.use_rslora = self.table.get("use_rslora", bool, False)
        self.saved = self.table.texts("modules_to_save")
        self.bias = self.table.get("bias", str, "none")
        if self.bias not in ("none", "all", "lora_only"):
            raise self._unsupported("bias")
        self.dropout = self.table.get("lora_dropout", float, 0.0)
        if not 0 <= self.dropout < 1:
            raise self.table.wrong("lora_dropout", "a number from 0 to below 1")

    def check_patterns(self, names: Collection[str]) -> None:
        """Reject a key of rank_pattern or alpha_pattern that matches no linear module of the model."""
        for setting in ("rank_pattern", "alpha_pattern"):
            for key in self.table.get(setting, dict, {}):
                if not any(self._key_matches(key, name, setting) for name in names):
                    raise CheckpointError(
                        f"{self.path} has {setting} for {key!r:.120}, which matches no linear module of this model; "
                        "remove the key, or use the model that the adapter was trained for."
                    )

    def targets(self, names: Iterable[str], *, usual: Collection[str], head: str) -> set[str]:
        """The modules among `names` that the adapter changes.

        usual: peft's default for a config without target_modules; `all-linear` is every module but the `head`.
        """
        return {name for name in names if self._is_target(name, usual=usual, head=head)}

    def rank(self, name: str) -> int:
        """The rank of a module's update."""
        value = self._by_pattern("rank_pattern", name, self.table.get("r", int, 8))
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"ranks in {self.path} must be at least 1, got {value!r:.80}; correct the file."
            )
        return value

    def scale(self, name: str) -> float:
        """The factor of a module's update."""
        value = self._by_pattern("alpha_pattern", name, self.table.get("lora_alpha", float, 8.0))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e30 < value < 1e30:
            raise CheckpointError(
                f"lora_alpha and alpha_pattern in {self.path} must be numbers, got {value!r:.80}; correct the file."
            )
        rank = self.rank(name)
        return float(value) / (math.sqrt(rank) if self.use_rslora else rank)

    def is_saved(self, name: str) -> bool:
        """Whether `modules_to_save` replaces the module or one around it; names match by their ends."""
        parts = name.split(".")
        around = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        return any(module.endswith(saved) for module in around for saved in self.saved)

    def _unsupported(self, name: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} has {name} = {self.table.values.get(name)!r:.80}, which changes the results and is not "
            "supported; merge the adapter with peft (merge_and_unload, then save_pretrained) and open the merged model."
        )

    def _refuse_others(self) -> None:
        values = self.table.values
        start = values.get("init_lora_weights")
        refused = {
            name
            for name in values.keys() - _READ - _WITHOUT_EFFECT
            if values[name] not in (None, False, [], {})
        }
        if any(start is known or (start == known and isinstance(start, str)) for known in _KNOWN_STARTS):
            refused.discard("init_lora_weights")
        for name in sorted(refused):
            raise self._unsupported(name)

    def _is_target(self, name: str, *, usual: Collection[str], head: str) -> bool:
        excluded, targets = self._names("exclude_modules"), self._names("target_modules")
        if excluded and self._matches(excluded, name, "exclude_modules"):
            return False
        if any(self._search(rf"(^|.*\.){saved}($|\..*)", name, "modules_to_save") for saved in self.saved):
            return False
        if isinstance(targets, str) and targets.lower() == "all-linear":
            return name != head
        if isinstance(targets, list) and name in targets:
            return True  # a full name matches in any layer
        is_chosen = self._matches(usual if targets is None else targets, name, "target_modules")
        return is_chosen and (isinstance(targets, str) or self._is_in_a_chosen_layer(name))

    def _is_in_a_chosen_layer(self, name: str) -> bool:
        layers = self.table.values.get("layers_to_transform")
        chosen = layers if isinstance(layers, list) else [] if layers is None else [layers]
        if any(isinstance(layer, bool) or not isinstance(layer, int) for layer in chosen):
            raise self.table.wrong("layers_to_transform", "whole numbers")
        if not chosen:
            return True
        patterns = [rf"(?:^|.*?\.){pattern}" for pattern in self.table.texts("layers_pattern") if pattern]
        for pattern in patterns or [r".*?\.[^.]*"]:
            if match := self._search(rf"{pattern}\.(?P<idx>\d+)\.", name, "layers_pattern"):
                return int(match["idx"]) in chosen
        return False

    def _names(self, setting: str) -> str | list[str] | None:
        value = self.table.values.get(setting)
        return value if isinstance(value, str) else None if value is None else self.table.texts(setting)

    def _matches(self, wanted: str | Collection[str], name: str, setting: str) -> bool:
        """Whether the name equals or ends in one of the names; a single string is a pattern for all of it."""
        if isinstance(wanted, str):
            return self._search(f"(?:{wanted})\\Z", name, setting) is not None
        return any(name == one or name.endswith(f".{one}") for one in wanted)

    def _by_pattern(self, setting: str, name: str, default: Any) -> Any:
        patterns: Mapping[str, Any] = self.table.get(setting, dict, {})
        key = next((key for key in patterns if self._key_matches(key, name, setting)), None)
        return default if key is None else patterns[key]

    def _key_matches(self, key: str, name: str, setting: str) -> bool:
        return self._search(rf"(.*\.)?({key})$", name, setting) is not None

    def _search(self, pattern: str, name: str, setting: str) -> regex.Match[str] | None:
        """Match from the beginning of the name, in bounded time."""
        try:
            counts = [max(int(digits[:9] or 1) for digits in pair) for pair in _COUNT.findall(pattern)]
            if len(pattern) > _MAX_PATTERN or math.prod(max(1, count) for count in counts) > _MAX_REPEATS:
                raise regex.error("it is too long or repeats too often")
            return regex.compile(pattern).match(name, timeout=_PATTERN_SECONDS)
        except (regex.error, RecursionError, TimeoutError, IndexError) as cause:
            raise CheckpointError(
                f"{setting} in {self.path} must hold a valid regular expression, got {pattern!r:.160} "
                f"({cause or 'too slow'}); correct the file."
            ) from cause
