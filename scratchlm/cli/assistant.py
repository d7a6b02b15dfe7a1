"""Open an assistant for a conversation, and describe it."""

from pathlib import Path

from scratchlm.core.errors import ConfigError
from scratchlm.data.assistant_prompt import chosen_template
from scratchlm.serving.language_model import LanguageModel, load


def open_assistant(path: Path, *, device: str, template: str | None) -> LanguageModel:
    """Load a model that can take part in a conversation.

    Raises: ConfigError for a classifier, or a model without a template; CheckpointError when there is no valid model.
    """
    lm = load(path, device=device)
    if lm.kind == "classification" or chosen_template(lm.task, template) is None:
        beside = lm.stage_beside("instruct")
        advice = f"name {beside}" if beside else "train one with `scratchlm finetune instruct`"
        raise ConfigError(f"chat needs an assistant, got a {lm.kind}; {advice}, or choose a --template.")
    return lm


def description(lm: LanguageModel, path: Path, *, template: str | None) -> str:
    """Describe the model and its training in a sentence."""
    size = f"{lm.model.n_parameters() / 1e6:,.1f} million parameters, {lm.config.context_length:,} tokens of context"
    if lm.kind != "instruction":
        used = f"the template {template}" if template else "the chat template in its own files"
        trained = f"a {lm.kind}, used with {used}"
    else:
        data = "conversations" if lm.supports_conversations else "single instructions and their answers"
        trained = f"an assistant fine-tuned on {data} (template {template or lm.task.get('template')})"
    return f"You are talking to {path}: {trained}; {size}."
