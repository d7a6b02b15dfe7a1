"""The outside files that scratchlm knows: where each comes from, its exact bytes, and where it lies here.

An asset's id is its relative path, in `$SCRATCHLM_ASSETS` (looked in first: a class without network copies
files there) and in the cache, `$SCRATCHLM_HOME`. Using an asset never downloads it; only `fetch_asset` does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from scratchlm.core.config import nearest
from scratchlm.core.download import Progress, download
from scratchlm.core.errors import ConfigError, DataError, DownloadError
from scratchlm.core.files import sha256_of_file, write_bytes

GITHUB_RAW = "https://raw.githubusercontent.com"
BOOK_COMMIT = f"{GITHUB_RAW}/rasbt/LLMs-from-scratch/28c65cdfbc3338e2e040016eea4b7fdf556e4d57"
CHAR_RNN_COMMIT = f"{GITHUB_RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
OPENAI_ENCODINGS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """The zip file that holds an asset as one of its members."""

    member: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One outside file: a promise about its bytes, and the addresses that may keep it."""

    id: str  # relative path, in every folder of assets
    urls: tuple[str, ...]  # the origin, then mirrors
    size_bytes: int
    sha256: str
    licence: str
    purpose: str
    archive: Archive | None = None  # what the URLs deliver, when it is not the file itself


ASSETS = (
    Asset(
        id="gpt2_bpe/encoder.json",
        urls=(
            f"{OPENAI_ENCODINGS}/encoder.json",
            f"{BOOK_COMMIT}/ch02/02_bonus_bytepair-encoder/gpt2_model/encoder.json",
        ),
        size_bytes=1_042_301,
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        licence="Modified MIT (OpenAI, GPT-2)",
        purpose="GPT-2's vocabulary of 50,257 tokens",
    ),
    Asset(
        id="gpt2_bpe/vocab.bpe",
        urls=(
            f"{OPENAI_ENCODINGS}/vocab.bpe",
            f"{BOOK_COMMIT}/ch02/02_bonus_bytepair-encoder/gpt2_model/vocab.bpe",
        ),
        size_bytes=456_318,
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        licence="Modified MIT (OpenAI, GPT-2)",
        purpose="GPT-2's 50,000 byte-pair merges",
    ),
    Asset(
        id="sms_spam_collection/SMSSpamCollection",
        urls=(
            "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
            "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
        ),
        size_bytes=477_907,
        sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
        licence="CC BY 4.0 (Almeida, Gomez Hidalgo, Yamakami 2011; UCI data set 228, DOI 10.24432/C5CC84)",
        purpose="5,574 text messages marked ham or spam, for classification fine-tuning",
        archive=Archive(
            member="SMSSpamCollection",
            size_bytes=203_415,
            sha256="1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3",
        ),
    ),
    Asset(
        id="instruction/instruction-data.json",
        urls=(f"{BOOK_COMMIT}/ch07/01_main-chapter-code/instruction-data.json",),
        size_bytes=203_524,
        sha256="7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
        licence="Apache-2.0 (Sebastian Raschka)",
        purpose="the book's 1,100 instructions with answers, for instruction fine-tuning",
    ),
    Asset(
        id="text/the-verdict.txt",
        urls=(f"{BOOK_COMMIT}/ch02/01_main-chapter-code/the-verdict.txt",),
        size_bytes=20_479,
        sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
        licence="public domain (Edith Wharton, 1908)",
        purpose="the short story that the book trains on",
    ),
    Asset(
        id="text/tinyshakespeare.txt",
        urls=(f"{CHAR_RNN_COMMIT}/data/tinyshakespeare/input.txt",),
        size_bytes=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        licence="public domain (William Shakespeare)",
        purpose="40,000 lines of plays, for pre-training at laptop size",
    ),
)


def find_assets(name: str) -> list[Asset]:
    """The asset of that id, or all assets in the folder of that name.

    Raises: ConfigError for an unknown name, with the nearest known one.
    Example:
        >>> [asset.id for asset in find_assets("gpt2_bpe")]
        ['gpt2_bpe/encoder.json', 'gpt2_bpe/vocab.bpe']
    """
    found = [asset for asset in ASSETS if asset.id == name or asset.id.startswith(name.rstrip("/") + "/")]
    if not found:
        raise ConfigError(f"there should be an asset {name!r}; {nearest(name, set(_names()))}")
    return found


def cache_folder() -> Path:
    """Where downloads and derived files are kept: `$SCRATCHLM_HOME`, else this system's cache folder."""
    named = os.environ.get("SCRATCHLM_HOME")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("scratchlm", appauthor=False)


def asset_path(name: str) -> Path:
    """Where an asset lies on this machine, its bytes checked; nothing is downloaded.

    Raises: ConfigError for an unknown id; DataError when it is not here, with the command that fetches it, or
    when its bytes are not the promised ones.
    """
    asset = _asset(name)
    for folder in _folders():
        if (folder / asset.id).is_file():
            return _checked(folder / asset.id, asset)
    looked_in = " and ".join(str(folder) for folder in _folders())
    raise DataError(
        f"{asset.id} ({asset.purpose}) should be on this machine, not found in {looked_in}; run "
        f"`scratchlm data fetch {asset.id}` ({asset.size_bytes:,} bytes), or put the file at that place "
        "in a folder of your own and set SCRATCHLM_ASSETS to the folder."
    )


def fetch_asset(name: str, *, progress: Progress | None = None) -> Path:
    """Make sure that an asset is on this machine, downloading it into the cache if need be.

    A damaged file in the cache is replaced; one in `$SCRATCHLM_ASSETS` is someone else's, and an error.
    Raises: ConfigError for an unknown id; DataError for a damaged file in `$SCRATCHLM_ASSETS`; DownloadError
    when no address delivers the promised bytes.
    """
    asset = _asset(name)
    target = cache_folder() / asset.id
    for folder in _folders():
        if folder != cache_folder() and (folder / asset.id).is_file():
            return _checked(folder / asset.id, asset)
    if target.is_file():
        with contextlib.suppress(DataError):
            return _checked(target, asset)
    if asset.archive is None:
        return download(
            asset.urls, target, sha256=asset.sha256, size_bytes=asset.size_bytes, progress=progress
        )
    archive_path = target.with_name(target.name + ".zip")
    download(
        asset.urls,
        archive_path,
        sha256=asset.archive.sha256,
        size_bytes=asset.archive.size_bytes,
        progress=progress,
    )
    write_bytes(target, _read_member(archive_path, asset.archive.member, asset))
    archive_path.unlink()
    return target


def _read_member(archive: Path, member: str, asset: Asset) -> bytes:
    """The asset's bytes out of a zip file, by exact name, size and sha256.

    Nothing else in the archive is touched, and no name inside it ever becomes a path.
    """
    problem = f"no {member!r}"
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.filename != member:
                    continue
                is_encrypted = bool(info.flag_bits & 1)
                if is_encrypted or info.file_size != asset.size_bytes:
                    problem = f"{member!r} {'encrypted' if is_encrypted else f'of {info.file_size:,} bytes'}"
                    continue
                data = opened.read(info)  # no more than the size just checked
                if hashlib.sha256(data).hexdigest() == asset.sha256:
                    return data
                problem = f"{member!r} with sha256 {hashlib.sha256(data).hexdigest()}"
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError) as cause:
        problem = f"a damaged archive ({cause})"
    raise DownloadError(
        f"{archive} should hold {member!r} of {asset.size_bytes:,} bytes with sha256 {asset.sha256}, found "
        f"{problem}; delete it and run `scratchlm data fetch {asset.id}` again."
    )


def _names() -> Iterator[str]:
    for asset in ASSETS:
        yield asset.id
        yield asset.id.partition("/")[0]


def _asset(name: str) -> Asset:
    for asset in ASSETS:
        if asset.id == name:
            return asset
    raise ConfigError(f"there should be an asset {name!r}; {nearest(name, (a.id for a in ASSETS))}")


def _folders() -> list[Path]:
    named = os.environ.get("SCRATCHLM_ASSETS")
    if not named:
        return [cache_folder()]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"SCRATCHLM_ASSETS should name a folder, got {named!r}; create or unset it.")
    return [folder, cache_folder()]


def _checked(path: Path, asset: Asset) -> Path:
    status = path.stat()
    digest = _remembered_sha256(path, status.st_size, status.st_mtime_ns)
    if digest != asset.sha256:
        raise DataError(
            f"{path} should have sha256 {asset.sha256} and {asset.size_bytes:,} bytes, found {digest} and "
            f"{status.st_size:,} bytes; delete it and run `scratchlm data fetch {asset.id}`."
        )
    return path


@functools.lru_cache(maxsize=256)
def _remembered_sha256(path: Path, size_bytes: int, mtime_ns: int) -> str:  # noqa: ARG001
    return sha256_of_file(path)  # read again only when size or time has changed
