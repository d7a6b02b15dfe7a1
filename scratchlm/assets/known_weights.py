"""The registry of GPT-2's published weights: the files of each size, their addresses, sizes and sha256.

There are two formats: Hugging Face's safetensors at a pinned revision, and the TensorFlow checkpoint of OpenAI.
Their table is known_weights.toml; a file without a sha256 there is trusted on first use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scratchlm.assets.known_datasets import Asset
from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.toml_tables import package_table

Source = Literal["hf", "openai"]

OPENAI_MODELS = "https://openaipublic.blob.core.windows.net/gpt-2/models"
BOOK_MIRROR = "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2"
HUGGING_FACE_MIRROR = "https://hf-mirror.com"  # the same paths, for networks without access to the origin
FILES: dict[Source, tuple[str, ...]] = {
    "hf": ("config.json", "model.safetensors"),
    "openai": (
        "checkpoint",
        "encoder.json",
        "hparams.json",
        "model.ckpt.data-00000-of-00001",
        "model.ckpt.index",
        "model.ckpt.meta",
        "vocab.bpe",
    ),
}
LICENCE = "Modified MIT (OpenAI, GPT-2)"


@dataclass(frozen=True, kw_only=True, slots=True)
class GPT2Size:
    """One of the four models that OpenAI published in 2019."""

    name: str  # ours
    folder: str  # OpenAI's and the book's
    repository: str  # at huggingface.co/openai-community
    revision: str
    n_parameters: int
    emb_dim: int
    n_heads: int
    n_layers: int

    @property
    def names(self) -> tuple[str, ...]:
        """All names of this size."""
        return tuple(dict.fromkeys((self.name, self.repository, self.folder)))


_TABLE = package_table("scratchlm.assets", "known_weights.toml")
GPT2_SIZES = tuple(
    GPT2Size(**{name: value for name, value in row.items() if name != "files"}) for row in _TABLE["size"]
)
_PROMISES: dict[str, Mapping[str, Any]] = {  # size_bytes and sha256 by size and file
    f"{row['folder']}/{file}": promise
    for row in _TABLE["size"]
    for file, promise in (_TABLE["every_size"] | row.get("files", {})).items()
}


def _addresses(size: GPT2Size, source: Source, file: str) -> tuple[str, ...]:
    if source == "openai":
        return (f"{OPENAI_MODELS}/{size.folder}/{file}", f"{BOOK_MIRROR}/{size.folder}/{file}")
    place = f"openai-community/{size.repository}/resolve/{size.revision}/{file}"
    return (f"https://huggingface.co/{place}", f"{HUGGING_FACE_MIRROR}/{place}")


def _settings(size: GPT2Size, file: str) -> tuple[tuple[str, int], ...]:
    """The values that the size's settings must have, under the names that OpenAI and Hugging Face both use."""
    if file not in ("config.json", "hparams.json"):
        return ()
    n_tokens = "vocab_size" if file == "config.json" else "n_vocab"
    sizes = {"n_embd": size.emb_dim, "n_head": size.n_heads, "n_layer": size.n_layers}
    return tuple({n_tokens: 50257, "n_ctx": 1024, **sizes}.items())


def _asset(size: GPT2Size, source: Source, file: str) -> Asset:
    form = "Hugging Face's safetensors" if source == "hf" else "OpenAI's TensorFlow checkpoint"
    return Asset(
        id=f"gpt2/{size.folder}/{file}",
        urls=_addresses(size, source, file),
        **_PROMISES.get(f"{size.folder}/{file}", {}),
        licence=LICENCE,
        purpose=f"{size.name} as {form}",
        settings=_settings(size, file),
        command=f"scratchlm weights fetch {size.name} --source {source}",
    )


GPT2_ASSETS = tuple(
    _asset(size, source, file) for size in GPT2_SIZES for source in FILES for file in FILES[source]
)


def gpt2_size(name: str) -> GPT2Size:
    """Find a size by any of its names: `gpt2-small`, `gpt2` and `124M` are the smallest.

    Raises: ConfigError for an unknown name, with the nearest known one.
    Example:
        >>> gpt2_size("355M").name
        'gpt2-medium'
    """
    for size in GPT2_SIZES:
        if name.lower() in (known.lower() for known in size.names):
            return size
    known = [known for size in GPT2_SIZES for known in size.names]
    raise ConfigError(
        f"there are no weights named {name!r}; {nearest(name, known)} `scratchlm weights list` shows them."
    )


def gpt2_files(size: GPT2Size, source: Source) -> list[Asset]:
    """The files of one size in one format, the small ones first."""
    ids = [f"gpt2/{size.folder}/{file}" for file in FILES[source]]
    found = [asset for asset in GPT2_ASSETS if asset.id in ids]
    return sorted(found, key=lambda asset: asset.id.endswith((".safetensors", "-of-00001")))
