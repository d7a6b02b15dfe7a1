"""The registry of GPT-2's published weights: the files of each size, their addresses, sizes and sha256.

There are two formats: Hugging Face's safetensors at a pinned revision, and the TensorFlow checkpoint of OpenAI.
A sha256 or size is given only where a public source shows it; other files are trusted on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scratchlm.assets.known_datasets import Asset
from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError

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


_COLUMNS = ("name", "folder", "repository", "n_parameters", "emb_dim", "n_heads", "n_layers", "revision")
_ROWS = (
    ("gpt2-small", "124M", "gpt2", 124_439_808, 768, 12, 12, "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    (
        "gpt2-medium",
        "355M",
        "gpt2-medium",
        354_823_168,
        1024,
        16,
        24,
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
    ),
    (
        "gpt2-large",
        "774M",
        "gpt2-large",
        774_030_080,
        1280,
        20,
        36,
        "32b71b12589c2f8d625668d2335a01cac3249519",
    ),
    ("gpt2-xl", "1558M", "gpt2-xl", 1_557_611_200, 1600, 25, 48, "15ea56dee5df4983c59b2538573817e1667135e2"),
)
GPT2_SIZES = tuple(GPT2Size(**dict(zip(_COLUMNS, row))) for row in _ROWS)  # type: ignore[arg-type]

# size in bytes and sha256 by size and file.
# Safetensors and config: lists in public repositories that pin the same revision (124M: several independent ones;
# 355M: ALLPROTO/core-lm-cross-model-lab, models.json; 1558M: two independent ones; 774M: none found).
# OpenAI's 124M: MontrealAI's download script; its list agrees with others on the weights, encoder.json and vocab.bpe,
# and with the text of checkpoint and hparams.json. Sizes of 124M and 355M: the tests of the book's repository.
_ENCODER = (1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783")  # of every size
_MERGES = (456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5")
_PROMISES: dict[str, tuple[int | None, str | None]] = {
    "124M/config.json": (665, "0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4"),
    "124M/model.safetensors": (
        548_105_171,
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "124M/checkpoint": (77, "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb"),
    "124M/hparams.json": (90, "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318"),
    "124M/model.ckpt.data-00000-of-00001": (
        497_759_232,
        "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118",
    ),
    "124M/model.ckpt.index": (5_215, "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687"),
    "124M/model.ckpt.meta": (471_155, "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b"),
    "355M/config.json": (718, "ef1a44d889ad1a0acc7731c78134f1b87d2d222f110e97dd10fd4117331caf22"),
    "355M/model.safetensors": (
        1_519_984_962,
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "355M/checkpoint": (77, None),
    "355M/hparams.json": (91, None),
    "355M/model.ckpt.data-00000-of-00001": (1_419_292_672, None),
    "355M/model.ckpt.index": (10_399, None),
    "355M/model.ckpt.meta": (926_519, None),
    "1558M/config.json": (None, "be48115d52314bc27327e160bf10197760db02ea689d10adb24db4102edf7a8a"),
    "1558M/model.safetensors": (
        None,
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
    **{f"{size.folder}/encoder.json": _ENCODER for size in GPT2_SIZES},
    **{f"{size.folder}/vocab.bpe": _MERGES for size in GPT2_SIZES},
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
    size_bytes, sha256 = _PROMISES.get(f"{size.folder}/{file}", (None, None))
    form = "Hugging Face's safetensors" if source == "hf" else "OpenAI's TensorFlow checkpoint"
    return Asset(
        id=f"gpt2/{size.folder}/{file}",
        urls=_addresses(size, source, file),
        size_bytes=size_bytes,
        sha256=sha256,
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
