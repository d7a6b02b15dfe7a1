"""Create a judge from its name, such as `ollama:llama3`, as command lines and recipes give it."""

from collections.abc import Callable
from typing import Any

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Judge
from scratchlm.evaluation.judge.local import LocalJudge
from scratchlm.evaluation.judge.ollama import OllamaJudge
from scratchlm.evaluation.judge.openai import OpenAIJudge

JUDGE_KINDS: dict[str, tuple[Callable[..., Judge], str, set[str]]] = {  # class, format of its name, settings
    "ollama": (OllamaJudge, "ollama:MODEL", {"base_url", "patience", "seed", "num_ctx"}),
    "openai": (OpenAIJudge, "openai:MODEL", {"base_url", "patience", "seed"}),
    "local": (LocalJudge, "local:PATH", {"device", "max_new_tokens"}),
}


def judge_parts(spec: str) -> tuple[str, str]:
    """Split a judge's name into kind and model.

    Raises: ConfigError for any other format.
    """
    kind, _, model = spec.strip().partition(":")
    if kind not in JUDGE_KINDS or not model.strip():
        forms = ", ".join(form for _, form, _ in JUDGE_KINDS.values())
        hint = "name the model, as in ollama:llama3." if kind in JUDGE_KINDS else nearest(kind, JUDGE_KINDS)
        raise ConfigError(f"a judge must be one of {forms} or offline, got {spec!r}: {hint}")
    return kind, model


def judge_named(spec: str, **settings: Any) -> Judge:
    """Create the judge `ollama:MODEL`, `openai:MODEL` or `local:PATH`.

    `settings` are those of the judge's class; None keeps its default.

    No request is sent yet; a local model is opened.
    Raises: ConfigError for any other name, and for a setting that this judge does not have; what the judge's class
        raises.
    """
    kind, model = judge_parts(spec)
    make, _, takes = JUDGE_KINDS[kind]
    given = {name: value for name, value in settings.items() if value is not None}
    useless = sorted(given.keys() - takes)
    if useless:
        raise ConfigError(
            f"the judge {spec} has no setting {', '.join(useless)}, only {', '.join(sorted(takes))}; leave it out."
        )
    return make(model, **given)
