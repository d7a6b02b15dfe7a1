"""The known data sets and tokenizer files; their table is known_datasets.toml."""

from dataclasses import dataclass

from scratchlm.core.config import from_dict
from scratchlm.core.toml_tables import package_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """The zip file that holds an asset as one of its members."""

    member: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One external file: its expected bytes, and the addresses to download it from."""

    id: str  # path relative to the folder of assets
    urls: tuple[str, ...]  # the origin, then mirrors
    size_bytes: int | None = None  # None if unknown
    sha256: str | None = None  # None if unknown: the first bytes are trusted, and their sha256 is recorded
    licence: str
    purpose: str
    archive: Archive | None = None  # if the URLs lead to a zip file that holds the asset
    settings: tuple[tuple[str, int], ...] = ()  # values that a JSON file must contain
    command: str = ""  # that fetches it; if empty, `scratchlm data fetch` with its id

    @property
    def fetch_command(self) -> str:
        """The command that downloads it."""
        return self.command or f"scratchlm data fetch {self.id}"

    @property
    def size(self) -> str:
        """Its size as text."""
        return "size unknown" if self.size_bytes is None else f"{self.size_bytes:,} bytes"


_TABLE = package_table("scratchlm.assets", "known_datasets.toml")
ASSETS, DATASETS = (
    tuple(from_dict(Asset, row, where="known_datasets.toml") for row in _TABLE[kind])
    for kind in ("book", "other")
)
