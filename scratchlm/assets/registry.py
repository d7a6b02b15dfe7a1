"""Find, check and fetch assets: external data sets, tokenizer files and weights that are known by name.

An asset's id is its path relative to `$SCRATCHLM_ASSETS` (searched first, for classes without a network) and to the
cache, `$SCRATCHLM_HOME`. Using an asset never downloads it; only `fetch_asset` does. `$SCRATCHLM_MIRROR` is an address
that serves assets under their ids; it is tried before any other.

If a file's sha256 is unknown, its structure is checked, and the sha256 of the first download is recorded beside
it; later the file must match it.
"""

import functools
import hashlib
import logging
import os
import re
import shutil
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from scratchlm.assets.archive_members import read_member
from scratchlm.assets.cache_folder import cache_folder
from scratchlm.assets.download import Progress, download
from scratchlm.assets.file_structure import structure_problem
from scratchlm.assets.known_datasets import ASSETS, DATASETS, Asset
from scratchlm.assets.known_weights import GPT2_ASSETS
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError, DataError, DownloadError
from scratchlm.core.files import make_parent, new_file, read_utf8, write_bytes, write_text

Check = Callable[[Path], "str | None"]
_log = logging.getLogger(__name__)
RECORD_SUFFIX = ".sha256"  # beside a file that is trusted on first use; `sha256sum -c` can read it


def find_assets(name: str) -> list[Asset]:
    """The asset with that id, or all assets in the folder of that name.

    Raises: ConfigError for an unknown name, with the nearest known one.
    Example:
        >>> [asset.id for asset in find_assets("gpt2_bpe")]
        ['gpt2_bpe/encoder.json', 'gpt2_bpe/vocab.bpe']
    """
    found = [asset for asset in _known() if asset.id == name or asset.id.startswith(name.rstrip("/") + "/")]
    if not found:
        names = {part for asset in _known() for part in (asset.id, asset.id.partition("/")[0])}
        raise ConfigError(f"there is no asset {name!r}; {nearest(name, names)}")
    return found


def find_file(name: str) -> Path | None:
    """The path of an asset on this machine, unchecked; None when it is not there.

    Raises: ConfigError for an unknown id.
    """
    asset = _asset(name)
    return next((folder / asset.id for folder in _folders() if (folder / asset.id).is_file()), None)


def asset_path(name: str) -> Path:
    """The path of an asset on this machine, after checking it; nothing is downloaded.

    Raises: ConfigError for an unknown id; DataError when it is missing, with the command that fetches it, or damaged.
    """
    asset, path = _asset(name), find_file(name)
    if path is not None:
        return _checked(path, asset)
    looked_in = " and ".join(str(folder) for folder in _folders())
    raise DataError(
        f"{asset.id} ({asset.purpose}) is not in {looked_in}; run `{asset.fetch_command}` ({asset.size}), or put the "
        "file under this name in a folder of your own and set SCRATCHLM_ASSETS to that folder."
    )


def is_here(name: str) -> bool:
    """Whether an asset is on this machine, undamaged."""
    try:
        asset_path(name)
    except DataError:
        return False
    return True


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
    asset = _asset(name)
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


def recorded_sha256(path: Path) -> str | None:
    """The sha256 recorded when a file was first downloaded, if any."""
    record = path.with_name(path.name + RECORD_SUFFIX)
    if not record.is_file():
        return None
    found = re.match(r"([0-9a-f]{64})  ", read_utf8(record))
    if found is None:
        raise DataError(f"{record} does not begin with a sha256; delete it.")
    return found[1]


def _found_whole(asset: Asset, target: Path | None, check: Check | None) -> Path | None:
    """Find a correct file at the target, in `$SCRATCHLM_ASSETS` or in the cache; a damaged one is logged."""
    of_others = [folder / asset.id for folder in _folders() if folder != cache_folder()]
    for path in (target, *of_others, cache_folder() / asset.id):
        if path is None or not path.is_file():
            continue
        if path in of_others:
            return _checked(path, asset, check)
        try:
            return _recorded(path, asset, check)
        except DataError as cause:
            _log.warning("%s is damaged and is fetched again (%s)", path, cause)
    return None


def _recorded(path: Path, asset: Asset, check: Check | None = None) -> Path:
    """Check a file and, if it is trusted on first use, record its sha256 beside it."""
    _checked(path, asset, check)
    if asset.sha256 is None and recorded_sha256(path) is None:
        write_text(path.with_name(path.name + RECORD_SUFFIX), f"{sha256_of_file(path)}  {path.name}\n")
    return path


def _download(asset: Asset, goal: Path, progress: Progress | None, check: Check | None) -> None:
    """Download the file from the first address that has it, `$SCRATCHLM_MIRROR` before the known ones."""
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


def _known() -> tuple[Asset, ...]:
    return (*ASSETS, *DATASETS, *GPT2_ASSETS)


def _asset(name: str) -> Asset:
    for asset in _known():
        if asset.id == name:
            return asset
    raise ConfigError(f"there is no asset {name!r}; {nearest(name, (a.id for a in _known()))}")


def _folders() -> list[Path]:
    named = os.environ.get("SCRATCHLM_ASSETS")
    if not named:
        return [cache_folder()]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"SCRATCHLM_ASSETS names a folder that does not exist, {named!r}; create or unset it."
        )
    return [folder, cache_folder()]


def _problem(path: Path, *, asset: Asset, check: Check | None) -> str | None:
    """Describe what is wrong with a file whose sha256 is unknown; None when nothing is."""
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
                f"{path} is not {asset.purpose} ({asset.size}): {problem}; delete it and run `{asset.fetch_command}`."
            )
        return path
    digest = _cached_sha256(path, status.st_size, status.st_mtime_ns)
    if digest != expected:
        origin = "" if asset.sha256 else f", as recorded in {path.name}{RECORD_SUFFIX}"
        size = "" if asset.size_bytes is None else f"{asset.size} and "
        raise DataError(
            f"{path} has {status.st_size:,} bytes and sha256 {digest} instead of {size}sha256 {expected}{origin}; "
            f"delete it and run `{asset.fetch_command}`."
        )
    return path


@functools.lru_cache(maxsize=256)
def _cached_sha256(path: Path, size_bytes: int, mtime_ns: int) -> str:  # noqa: ARG001
    return sha256_of_file(path)  # read again only after size or time has changed
