"""The models that a server offers: a list that requests choose from by id, so that no name becomes a path."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.assistant_prompt import chosen_template, supports_conversations
from scratchlm.data.chat_template import ChatTemplate, TurnEnd
from scratchlm.data.prompt_templates import PromptTemplate
from scratchlm.model.config import GPTConfig
from scratchlm.serving.language_model import LanguageModel, load
from scratchlm.serving.request_errors import RequestError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
OLLAMA_TAG = ":latest"  # that Ollama's clients append to a name without a tag
MANIFEST = "manifest.json"


class ModelSource(NamedTuple):
    """A model as the command line names it."""

    id: str
    path: str


def model_sources(words: Sequence[str]) -> list[ModelSource]:
    """Read MODEL or NAME=MODEL: the id is NAME, or the last two parts of the path.

    Raises: ConfigError for an invalid NAME, and for two models with one id.
    Example:
        >>> model_sources(["runs/quickstart/instruct", "base=runs/quickstart"])
        [ModelSource(id='quickstart/instruct', path='runs/quickstart/instruct'), \
ModelSource(id='base', path='runs/quickstart')]
    """
    found: dict[str, ModelSource] = {}
    for word in words:
        name, equals, path = word.partition("=")
        is_named = bool(equals) and not Path(word).exists()
        if is_named and (not NAME.fullmatch(name) or not path):
            raise ConfigError(
                f"a model must be MODEL or NAME=MODEL, where NAME has letters, digits and ._:/- only, got {word!r}."
            )
        source = ModelSource(name, path) if is_named else ModelSource(_last_two_parts(word), word)
        if source.id in found:
            raise ConfigError(
                f"two models have the id {source.id!r}: {found[source.id].path} and {source.path}; name one of them: "
                f"NAME={source.path}."
            )
        found[source.id] = source
    return list(found.values())


def _last_two_parts(path: str) -> str:
    parts = [part for part in Path(path).parts if part not in ("..", Path(path).anchor)]
    return "/".join((parts or list(Path(path).resolve().parts))[-2:])


@dataclass(kw_only=True, eq=False)
class ServedModel:
    """One model of the list: what any thread may read, and the loaded model, which is the worker's.

    `lm` is None while the model is unloaded (Ollama's keep_alive); the worker loads it again when it is needed.
    """

    source: ModelSource
    config: GPTConfig
    tokenizer: Tokenizer
    task: Mapping[str, Any]
    kind: str
    class_names: Sequence[str]
    stop_ids: tuple[int, ...]
    n_parameters: int
    n_bits: int  # per weight of the quantized matrices; 32 without quantization
    size_bytes: int
    digest: str
    modified_at: float  # seconds since 1970
    reload: Callable[[], LanguageModel]
    lm: LanguageModel | None
    keep_s: float | None = None  # how long it stays loaded without requests; None for ever
    used_at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """The name that requests use."""
        return self.source.id

    @property
    def template(self) -> PromptTemplate | ChatTemplate | None:
        """The form of a conversation with this model; None for a model that was not tuned for conversations."""
        return None if self.kind == "classification" else chosen_template(self.task)

    @property
    def supports_conversations(self) -> bool:
        """Whether earlier turns belong in a prompt of this assistant."""
        return self.template is not None and supports_conversations(self.task)

    @cached_property
    def turn_end(self) -> TurnEnd:
        """What ends an answer in the template of the model's own files."""
        chosen = self.template
        return chosen.turn_end(self.tokenizer) if isinstance(chosen, ChatTemplate) else TurnEnd()

    @property
    def family(self) -> str:
        """The architecture, by the name that other programs use."""
        return "llama" if self.config.norm == "rms" else "gpt2"

    def keep(self, keep_alive: float | None) -> None:
        """Set for how many seconds the model stays loaded without requests; below 0 for ever, None changes nothing."""
        if keep_alive is not None:
            self.keep_s = None if keep_alive < 0 else keep_alive

    def check_generates(self) -> None:
        """Raise RequestError for a classifier, which does not predict tokens."""
        if self.kind == "classification":
            message = f"{self.id} is a classifier and cannot generate text; use /api/classify."
            raise RequestError(message, param="model")


def open_served(source: ModelSource, *, device: str = "auto") -> ServedModel:
    """Load a model and describe it.

    Raises: CheckpointError when there is no valid model.
    """
    reload = partial(load, source.path, device=device)
    return served(source, reload(), reload=reload)


def served(
    source: ModelSource, lm: LanguageModel, *, reload: Callable[[], LanguageModel] | None = None
) -> ServedModel:
    """Describe a loaded model; without `reload` it stays loaded, and clients cannot unload it."""
    tensors = (*lm.model.parameters(), *lm.model.buffers())  # each once, also where modules share it
    return ServedModel(
        source=source,
        config=lm.config,
        tokenizer=lm.tokenizer,
        task=dict(lm.task),
        kind=lm.kind,
        class_names=lm.class_names,
        stop_ids=lm.stop_ids,
        n_parameters=lm.model.n_parameters(),
        n_bits=min((int(getattr(m, "bits", 32)) for m in lm.model.modules()), default=32),
        size_bytes=sum(tensor.nbytes for tensor in tensors),
        digest=_digest(lm),
        modified_at=_modified_at(lm.folder),
        reload=(lambda: lm) if reload is None else reload,
        lm=lm,
    )


class ModelList:
    """The models of a server by id, in the order in which they were named.

    `replaced` are models whose place another has taken; the worker unloads them when their last text has ended.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.id: model for model in models}
        self.replaced: list[ServedModel] = []

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._models.values()))  # a copy: the worker's thread reads it as well

    def add(self, model: ServedModel) -> None:
        """Offer a model, in the place of an older one with its id."""
        if (older := self._models.get(model.id)) is not None:
            older.keep(0)
            self.replaced = [*(one for one in self.replaced if one.lm is not None), older]
        self._models[model.id] = model

    def __len__(self) -> int:
        return len(self._models)

    def find(self, name: str) -> ServedModel:
        """The model of that id; nothing but the list is searched.

        Raises: RequestError (404) with the nearest id.
        """
        found = self._models.get(name) or self._models.get(name.removesuffix(OLLAMA_TAG))
        if found is None:
            advice = nearest(name[:200], self._models) if self._models else "it offers none."
            message = f"this server has no model {name[:100]!r}; {advice}"
            raise RequestError(message, HTTPStatus.NOT_FOUND, code="model_not_found", param="model")
        return found


def _digest(lm: LanguageModel) -> str:
    """A sha256 that identifies the model's files, or its settings where there is no manifest."""
    manifest = lm.folder / MANIFEST
    if manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    return hashlib.sha256(f"{lm.config}{lm.tokenizer.fingerprint}{lm.folder.name}".encode()).hexdigest()


def _modified_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()
