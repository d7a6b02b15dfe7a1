"""Fetch assets: download a known file, check it, and put it into the cache."""

import functools
import hashlib
import logging
import os
import shutil
import urllib.parse
from pathlib import Path

from scratchlm.assets.archive_members import read_member
from scratchlm.assets.cache_folder import cache_folder
from scratchlm.assets.download import Progress, download
from scratchlm.assets.known_datasets import Asset
from scratchlm.assets.registry import (
    RECORD_SUFFIX,
    Check,
    asset_folders,
    asset_problem,
    checked_asset,
    known_asset,
    recorded_sha256,
)
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import ConfigError, DataError, DownloadError
from scratchlm.core.files import make_parent, new_file, write_bytes, write_text

_log = logging.getLogger(__name__)


def fetch_asset(
    name: str, *, target: Path | None = None, progress: Progress | None = None, check: Check | None = None
) -> Path:
    """Download an asset into the cache unless it is already on this machine; return its path.

    target: where to put it instead of the cache; it is copied if it is on this machine already.
    check: describes what is wrong with a file whose sha256 is unknown; None when nothing is. A damaged file in the
    cache or at `target` is replaced. One in `$SCRATCHLM_ASSETS` may belong to someone else and is an error.
    Raises: ConfigError for an unknown id; DataError for a damaged file in `$SCRATCHLM_ASSETS`; DownloadError when no
        address delivers the expected bytes.
    """
    asset = known_asset(name)
    found = _found_whole(asset, target, check)
    if target is None and found is not None:
        return found
    goal = cache_folder() / asset.id if target is None else target
    if found is None:
        _download(asset, goal, progress, check)
    elif found != goal:
        make_parent(goal, error=DownloadError)
        with new_file(goal, error=DownloadError) as partial:
            shutil.copyfile(found, partial)
    return _recorded(goal, asset, check)


def _found_whole(asset: Asset, target: Path | None, check: Check | None) -> Path | None:
    """Find a correct file at the target, in `$SCRATCHLM_ASSETS` or in the cache; a damaged one is logged."""
    of_others = [folder / asset.id for folder in asset_folders() if folder != cache_folder()]
    for path in (target, *of_others, cache_folder() / asset.id):
        if path is None or not path.is_file():
            continue
        if path in of_others:
            return checked_asset(path, asset, check)
        try:
            return _recorded(path, asset, check)
        except DataError as cause:
            _log.warning("%s is damaged and is fetched again (%s)", path, cause)
    return None


def _recorded(path: Path, asset: Asset, check: Check | None = None) -> Path:
    """Check a file and, if it is trusted on first use, record its sha256 beside it."""
    checked_asset(path, asset, check)
    if asset.sha256 is None and recorded_sha256(path) is None:
        write_text(path.with_name(path.name + RECORD_SUFFIX), f"{sha256_of_file(path)}  {path.name}\n")
    return path


def _download(asset: Asset, goal: Path, progress: Progress | None, check: Check | None) -> None:
    """Download the file from the first address that has it, `$SCRATCHLM_MIRROR` before the known ones."""
    sha256 = asset.sha256 or recorded_sha256(goal) or recorded_sha256(cache_folder() / asset.id)
    is_right = functools.partial(asset_problem, asset=asset, check=check if sha256 is None else None)
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
    """The asset's address at `$SCRATCHLM_MIRROR`, if it is set."""
    base = os.environ.get("SCRATCHLM_MIRROR", "").strip()
    if not base:
        return ()
    if not base.startswith(("http://", "https://")):
        raise ConfigError(f"SCRATCHLM_MIRROR must begin with http:// or https://, got {base!r}; change it.")
    return (f"{base.rstrip('/')}/{urllib.parse.quote(asset.id)}",)


def _read_member(archive: Path, member: str, asset: Asset) -> bytes:
    """Read the asset from a zip file, by exact name, size and sha256."""
    assert asset.size_bytes is not None
    data = read_member(archive, member, max_bytes=asset.size_bytes)
    digest = hashlib.sha256(data).hexdigest()
    if digest != asset.sha256:
        raise DownloadError(
            f"{member!r} in {archive} has sha256 {digest} instead of {asset.sha256}; delete the archive and run "
            f"`{asset.fetch_command}` again."
        )
    return data
