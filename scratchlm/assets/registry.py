"""The outside files that scratchlm knows: where each comes from, its exact bytes, and where it lies here.

An asset's id is its relative path, in `$SCRATCHLM_ASSETS` (looked in first: a class without network copies
files there) and in the cache, `$SCRATCHLM_HOME`. Using an asset never downloads it; only `fetch_asset` does.
`$SCRATCHLM_MIRROR` is an address under which assets lie by their ids, asked before any other.

Where no source tells a file's sha256, its structure is checked, and the sha256 first seen is written beside it:
from then on the file must have it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from scratchlm.assets.archive_members import read_member
from scratchlm.assets.download import Progress, download
from scratchlm.assets.file_structure import structure_problem
from scratchlm.assets.known_datasets import DATASETS
from scratchlm.assets.known_files import ASSETS, Archive, Asset
from scratchlm.assets.known_weights import GPT2_ASSETS
from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError, DataError, DownloadError
from scratchlm.core.files import new_file, read_utf8, sha256_of_file, write_bytes, write_text

__all__ = [
    "ASSETS",
    "Archive",
    "Asset",
    "asset_path",
    "cache_folder",
    "fetch_asset",
    "find_assets",
    "find_file",
    "recorded_sha256",
]

Check = Callable[[Path], "str | None"]
_log = logging.getLogger(__name__)
RECORD_SUFFIX = ".sha256"  # beside a file that is trusted on first use; `sha256sum -c` reads it


def find_assets(name: str) -> list[Asset]:
    """The asset of that id, or all assets in the folder of that name.

    Raises: ConfigError for an unknown name, with the nearest known one.
    Example:
        >>> [asset.id for asset in find_assets("gpt2_bpe")]
        ['gpt2_bpe/encoder.json', 'gpt2_bpe/vocab.bpe']
    """
    found = [asset for asset in _known() if asset.id == name or asset.id.startswith(name.rstrip("/") + "/")]
    if not found:
        raise ConfigError(f"there should be an asset {name!r}; {nearest(name, set(_names()))}")
    return found


def cache_folder() -> Path:
    """Where downloads and derived files are kept: `$SCRATCHLM_HOME`, else this system's cache folder."""
    named = os.environ.get("SCRATCHLM_HOME")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("scratchlm", appauthor=False)


def find_file(name: str) -> Path | None:
    """Where an asset's file lies on this machine, its bytes not looked at; None when it is not here.

    Raises: ConfigError for an unknown id.
    """
    asset = _asset(name)
    return next((folder / asset.id for folder in _folders() if (folder / asset.id).is_file()), None)


def asset_path(name: str) -> Path:
    """Where an asset lies on this machine, its bytes checked; nothing is downloaded.

    Raises: ConfigError for an unknown id; DataError when it is not here, with the command that fetches it, or
    when its bytes are not the promised ones.
    """
    asset, path = _asset(name), find_file(name)
    if path is not None:
        return _checked(path, asset)
    looked_in = " and ".join(str(folder) for folder in _folders())
    raise DataError(
        f"{asset.id} ({asset.purpose}) should be on this machine, not found in {looked_in}; run "
        f"`{asset.fetch_command}` ({asset.size}), or put the file at that place "
        "in a folder of your own and set SCRATCHLM_ASSETS to the folder."
    )


def fetch_asset(
    name: str, *, target: Path | None = None, progress: Progress | None = None, check: Check | None = None
) -> Path:
    """Make sure that an asset is on this machine, downloading it into the cache if need be.

    target: have it there instead; copied if it is on this machine already.
    check: looks at a file whose sha256 is not known before it is believed, and tells what is wrong with it.
    A damaged file in the cache or at `target` is replaced; one in `$SCRATCHLM_ASSETS` is someone else's, and an
    error. Raises: ConfigError for an unknown id; DataError for a damaged file in `$SCRATCHLM_ASSETS`;
    DownloadError when no address delivers the promised bytes.
    """
    asset = _asset(name)
    found = _found_whole(asset, target, check)
    if target is None and found is not None:
        return found
    goal = cache_folder() / asset.id if target is None else target
    if found is None:
        _download(asset, goal, progress, check)
    elif found != goal:
        with new_file(_with_folder(goal), error=DownloadError) as partial:
            shutil.copyfile(found, partial)
    return _remembered(goal, asset, check)


def _with_folder(goal: Path) -> Path:
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise DownloadError(
            f"{goal.parent} should be a folder to write into, got: {cause}; choose another."
        ) from cause
    return goal


def recorded_sha256(path: Path) -> str | None:
    """The sha256 that a file had when it was first fetched, if that was written down."""
    record = path.with_name(path.name + RECORD_SUFFIX)
    if not record.is_file():
        return None
    found = re.match(r"([0-9a-f]{64})  ", read_utf8(record))
    if found is None:
        raise DataError(f"{record} should begin with a sha256, found something else; delete it.")
    return found[1]


def _found_whole(asset: Asset, target: Path | None, check: Check | None) -> Path | None:
    """A right file at the target, in `$SCRATCHLM_ASSETS` or in the cache."""
    if target is not None and target.is_file():
        try:
            return _remembered(target, asset, check)
        except DataError as cause:
            _log.warning("%s is not what it should be and is fetched again (%s)", target, cause)
    for folder in _folders():
        path = folder / asset.id
        if folder != cache_folder() and path.is_file():
            return _checked(path, asset, check)
        if path.is_file():
            try:
                return _remembered(path, asset, check)
            except DataError as cause:
                _log.warning("%s is not what it should be and is fetched again (%s)", path, cause)
    return None


def _remembered(path: Path, asset: Asset, check: Check | None = None) -> Path:
    """Check a file of ours; one that is trusted on first use gets its sha256 written beside it."""
    _checked(path, asset, check)
    if asset.sha256 is None and recorded_sha256(path) is None:
        write_text(path.with_name(path.name + RECORD_SUFFIX), f"{sha256_of_file(path)}  {path.name}\n")
    return path


def _download(asset: Asset, goal: Path, progress: Progress | None, check: Check | None) -> None:
    """Get the file from the first address that has it, the named mirror before the known ones."""
    sha256 = asset.sha256 or recorded_sha256(goal) or recorded_sha256(cache_folder() / asset.id)
    is_right = functools.partial(_problem, asset=asset, check=check if sha256 is None else None)
    urls = _mirrored(asset) + (asset.urls if asset.archive is None else ())
    try:
        if urls:
            download(
                urls, goal, sha256=sha256, size_bytes=asset.size_bytes, check=is_right, progress=progress
            )
            return
    except DownloadError:
        if asset.archive is None:
            raise
    assert asset.archive is not None
    archive_path = goal.with_name(goal.name + ".zip")
    archive = asset.archive
    download(
        asset.urls, archive_path, sha256=archive.sha256, size_bytes=archive.size_bytes, progress=progress
    )
    write_bytes(goal, _read_member(archive_path, archive.member, asset))
    archive_path.unlink()


def _mirrored(asset: Asset) -> tuple[str, ...]:
    """The asset's address at `$SCRATCHLM_MIRROR`, if that is set."""
    base = os.environ.get("SCRATCHLM_MIRROR", "").strip()
    if not base:
        return ()
    if not base.startswith(("http://", "https://")):
        raise ConfigError(f"SCRATCHLM_MIRROR should begin with http:// or https://, got {base!r}; change it.")
    return (f"{base.rstrip('/')}/{urllib.parse.quote(asset.id)}",)


def _read_member(archive: Path, member: str, asset: Asset) -> bytes:
    """The asset's bytes out of a zip file, by exact name, size and sha256."""
    assert asset.size_bytes is not None
    data = read_member(archive, member, max_bytes=asset.size_bytes)
    digest = hashlib.sha256(data).hexdigest()
    if digest != asset.sha256:
        raise DownloadError(
            f"{archive} should hold {member!r} with sha256 {asset.sha256}, found {digest}; delete it and run "
            f"`{asset.fetch_command}` again."
        )
    return data


def _known() -> tuple[Asset, ...]:
    return (*ASSETS, *DATASETS, *GPT2_ASSETS)


def _names() -> Iterator[str]:
    for asset in _known():
        yield asset.id
        yield asset.id.partition("/")[0]


def _asset(name: str) -> Asset:
    for asset in _known():
        if asset.id == name:
            return asset
    raise ConfigError(f"there should be an asset {name!r}; {nearest(name, (a.id for a in _known()))}")


def _folders() -> list[Path]:
    named = os.environ.get("SCRATCHLM_ASSETS")
    if not named:
        return [cache_folder()]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"SCRATCHLM_ASSETS should name a folder, got {named!r}; create or unset it.")
    return [folder, cache_folder()]


def _problem(path: Path, *, asset: Asset, check: Check | None) -> str | None:
    """What shows that these are not the asset's bytes, beside a sha256."""
    problem = structure_problem(path, name=asset.id.rpartition("/")[2], settings=asset.settings)
    return problem if problem is not None or check is None else check(path)


def _checked(path: Path, asset: Asset, check: Check | None = None) -> Path:
    status = path.stat()
    expected = asset.sha256 or recorded_sha256(path)
    if expected is None:
        is_sized = asset.size_bytes in (None, status.st_size)
        problem = _problem(path, asset=asset, check=check) if is_sized else f"it has {status.st_size:,} bytes"
        if problem is not None:
            raise DataError(
                f"{path} should be {asset.purpose} ({asset.size}), but {problem}; delete it and run "
                f"`{asset.fetch_command}`."
            )
        return path
    digest = _remembered_sha256(path, status.st_size, status.st_mtime_ns)
    if digest != expected:
        origin = "" if asset.sha256 else f" as {path.name}{RECORD_SUFFIX} says"
        raise DataError(
            f"{path} should have sha256 {expected}{origin} and {asset.size}, found {digest} and "
            f"{status.st_size:,} bytes; delete it and run `{asset.fetch_command}`."
        )
    return path


@functools.lru_cache(maxsize=256)
def _remembered_sha256(path: Path, size_bytes: int, mtime_ns: int) -> str:  # noqa: ARG001
    return sha256_of_file(path)  # read again only when size or time has changed
