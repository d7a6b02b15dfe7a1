"""The settings of LoRA and DoRA that every way of fine-tuning has, and what they do to a model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.dora import replace_linear_with_dora
from scratchlm.finetuning.lora import Scaling, replace_linear_with_lora
from scratchlm.finetuning.targets import EVERY_LINEAR_IN_BLOCKS
from scratchlm.model.gpt import GPTModel

ADAPTER_FOLDER = "adapter"  # in a run folder: the corrections alone, as peft reads them
USUAL_RANK = 16
CorrectionKind = Literal["lora", "dora"]


@dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """Corrections instead of weights: how thin, how strong, and where."""

    lora_rank: int | None = None  # learn corrections of this rank and leave the base frozen; None = no LoRA
    lora_kind: CorrectionKind = "lora"  # dora: the lengths of a matrix's rows learn by themselves too
    lora_alpha: float | None = None  # None = the rank, a scale of 1
    lora_scaling: Scaling = "alpha/rank"  # what corrections are multiplied by; alpha: as the book does
    lora_dropout: float = 0.0  # share of their inputs that is zeroed while training
    lora_targets: tuple[str, ...] = EVERY_LINEAR_IN_BLOCKS  # names of the layers to correct

    def check_lora(self) -> None:
        """Refuse what cannot be, and settings that would do nothing.

        Raises: ConfigError naming the setting.
        """
        if self.lora_rank is not None and self.lora_rank < 1:
            raise ConfigError(f"lora_rank must be at least 1, got {self.lora_rank}; 8 or 16 is usual.")
        own = {field.name for field in dataclasses.fields(LoRASettings)} - {"lora_rank"}
        changed = [
            field.name
            for field in dataclasses.fields(self)
            if field.name in own and getattr(self, field.name) != field.default
        ]
        if self.lora_rank is None and changed:
            raise ConfigError(f"{changed[0]} needs LoRA, found no lora_rank; set it, 8 or 16 is usual.")

    def add_corrections(self, model: GPTModel) -> list[str]:
        """Freeze the model and let corrections learn beside its layers, in place; returns those layers' names."""
        assert self.lora_rank is not None
        model.requires_grad_(False)
        replace = replace_linear_with_dora if self.lora_kind == "dora" else replace_linear_with_lora
        return replace(
            model,
            self.lora_rank,
            self.lora_rank if self.lora_alpha is None else self.lora_alpha,
            scaling=self.lora_scaling,
            dropout=self.lora_dropout,
            targets=self.lora_targets,
        )
