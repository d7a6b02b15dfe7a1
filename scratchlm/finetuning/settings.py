"""Settings of every kind of fine-tuning: the training settings, LoRA, dropout and maximum length."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.dora import LinearWithDoRA
from scratchlm.finetuning.lora import (
    EVERY_LINEAR_IN_BLOCKS,
    LinearWithLoRA,
    Scaling,
    check_dropout,
    replace_linear_with_lora,
)
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import check_trainable
from scratchlm.training.config import TrainingConfig

DEFAULT_RANK = 16
LORA_LAYERS = {"lora": LinearWithLoRA, "dora": LinearWithDoRA}


@dataclass(frozen=True, kw_only=True)
class FineTuningSettings(TrainingConfig):
    """The settings of fine-tuning for any task.

    Raises: ConfigError naming a setting that is invalid or has no effect.
    """

    lora_rank: int | None = None  # rank of the low-rank updates beside the frozen base; None = no LoRA
    lora_kind: Literal["lora", "dora"] = "lora"  # dora: also train the length of each weight row
    lora_alpha: float | None = None  # strength of the update; None = the rank, a scale of 1
    lora_scaling: Scaling = "alpha/rank"  # factor of the update; alpha: as the book does
    lora_dropout: float = 0.0  # dropout on the update's input during training
    lora_targets: tuple[str, ...] = EVERY_LINEAR_IN_BLOCKS  # names of the layers that get an update
    base_bits: Literal[8, 4] | None = None  # LoRA beside a quantized base (QLoRA); 4: NF4; None = as it is
    max_length: int | None = None  # maximum tokens of prompt and answer; None = the model's context length
    drop_rate: float | None = None  # dropout during fine-tuning; None = the base's

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_every_steps:  # it answers or classifies its test entries instead
            raise ConfigError(
                f"sample_every_steps is for pre-training only, got {self.sample_every_steps} for fine-tuning; leave it "
                "out."
            )
        check_at_least(1, lora_rank=self.lora_rank, max_length=self.max_length)
        GPTConfig(drop_rate=self.drop_rate or 0.0)  # raises for an invalid rate
        check_dropout(self.lora_dropout)
        if self.lora_alpha is not None and not self.lora_alpha > 0:
            raise ConfigError(f"lora_alpha must be above zero, got {self.lora_alpha}; lora_rank is usual.")
        if self.base_bits is not None and (self.lora_rank is None or self.lora_kind == "dora"):
            raise ConfigError(
                f"base_bits={self.base_bits} freezes the base in {self.base_bits} bits and needs LoRA beside it, got "
                f"lora_rank={self.lora_rank} and lora_kind={self.lora_kind}; set lora_rank, or leave base_bits out."
            )
        if self.lora_rank is None:
            for field in dataclasses.fields(self):
                if field.name.startswith("lora_") and getattr(self, field.name) != field.default:
                    raise ConfigError(
                        f"{field.name} has no effect without LoRA; set lora_rank too, 8 or 16 is usual."
                    )

    def add_lora(self, model: GPTModel) -> list[str]:
        """Freeze the model and add trainable low-rank updates, in place; returns the names of the layers.

        Without lora_rank the model is unchanged, and must not be quantized.
        Raises: ConfigError for a quantized model without lora_rank.
        """
        if self.lora_rank is None:
            check_trainable(model)
            return []
        model.requires_grad_(False)
        return replace_linear_with_lora(
            model,
            self.lora_rank,
            self.lora_rank if self.lora_alpha is None else self.lora_alpha,
            scaling=self.lora_scaling,
            dropout=self.lora_dropout,
            targets=self.lora_targets,
            layer_type=LORA_LAYERS[self.lora_kind],
        )
