"""A judge by its name, as a command line or a recipe gives it."""

from __future__ import annotations

from collections.abc import Callable

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Judge
from scratchlm.evaluation.judge.asking import JudgePatience
from scratchlm.evaluation.judge.local import LocalJudge
from scratchlm.evaluation.judge.ollama import OllamaJudge
from scratchlm.evaluation.judge.openai import OpenAIJudge

JUDGE_KINDS: dict[str, tuple[Callable[..., Judge], str, set[str]]] = {  # who, its form, the settings it takes
    "ollama": (OllamaJudge, "ollama:MODEL", {"base_url", "patience", "seed", "num_ctx"}),
    "openai": (OpenAIJudge, "openai:MODEL", {"base_url", "patience", "seed"}),
    "local": (LocalJudge, "local:PATH", {"device", "max_new_tokens"}),
}


def judge_parts(spec: str) -> tuple[str, str]:
    """The kind and the model that a judge's name is made of.

    Raises: ConfigError for a name of no such form.
    """
    kind, _, model = spec.strip().partition(":")
    if kind not in JUDGE_KINDS or not model.strip():
        forms = ", ".join(form for _, form, _ in JUDGE_KINDS.values())
        hint = "name the model, as in ollama:llama3." if kind in JUDGE_KINDS else nearest(kind, JUDGE_KINDS)
        raise ConfigError(
            f"a judge that is asked must be one of {forms} (offline asks nobody); got {spec!r}: {hint}"
        )
    return kind, model


def judge_named(
    spec: str,
    *,
    base_url: str | None = None,
    patience: JudgePatience | None = None,
    seed: int | None = None,
    num_ctx: int | None = None,
    device: str | None = None,
    max_new_tokens: int | None = None,
) -> Judge:
    """The judge behind `ollama:MODEL`, `openai:MODEL` or `local:PATH`. None leaves a setting at the judge's own.

    Nobody is asked yet; a local model is opened.
    Raises: ConfigError for a name of no such form, and for a setting that its judge has no use for; what the
        judge itself raises when it is made.
    """
    kind, model = judge_parts(spec)
    make, _, takes = JUDGE_KINDS[kind]
    settings = {
        "base_url": base_url,
        "patience": patience,
        "seed": seed,
        "num_ctx": num_ctx,
        "device": device,
        "max_new_tokens": max_new_tokens,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    useless = sorted(given.keys() - takes)
    if useless:
        raise ConfigError(
            f"the judge {spec} takes {', '.join(sorted(takes))}, got {', '.join(useless)} as well; leave that out."
        )
    return make(model, **given)
