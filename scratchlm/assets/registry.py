"""Find and check assets: external data sets, tokenizer files and weights that are known by name.

An asset's id is its path relative to `$SCRATCHLM_ASSETS` (searched first, for classes without a network) and to the
cache, `$SCRATCHLM_HOME`. Using an asset never downloads it; only `fetch_asset` does. `$SCRATCHLM_MIRROR` is an address
that serves assets under their ids; it is tried before any other.

If a file's sha256 is unknown, its structure is checked, and the sha256 of the first download is recorded beside
it; later the file must match it.
"""

import functools
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from scratchlm.assets.cache_folder import cache_folder
from scratchlm.assets.file_structure import structure_problem
from scratchlm.assets.known_datasets import ASSETS, DATASETS, Asset
from scratchlm.assets.known_weights import GPT2_ASSETS
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import read_utf8

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
    asset = known_asset(name)
    return next((folder / asset.id for folder in asset_folders() if (folder / asset.id).is_file()), None)


def asset_path(name: str) -> Path:
    """The path of an asset on this machine, after checking it; nothing is downloaded.

    Raises: ConfigError for an unknown id; DataError when it is missing, with the command that fetches it, or damaged.
    """
    asset, path = known_asset(name), find_file(name)
    if path is not None:
        return checked_asset(path, asset)
    looked_in = " and ".join(str(folder) for folder in asset_folders())
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


def recorded_sha256(path: Path) -> str | None:
    """The sha256 recorded when a file was first downloaded, if any."""
    record = path.with_name(path.name + RECORD_SUFFIX)
    if not record.is_file():
        return None
    found = re.match(r"([0-9a-f]{64})  ", read_utf8(record))
    if found is None:
        raise DataError(f"{record} does not begin with a sha256; delete it.")
    return found[1]


def _known() -> tuple[Asset, ...]:
    return (*ASSETS, *DATASETS, *GPT2_ASSETS)


def known_asset(name: str) -> Asset:
    """The asset with that id.

    Raises: ConfigError for an unknown one.
    """
    for asset in _known():
        if asset.id == name:
            return asset
    raise ConfigError(f"there is no asset {name!r}; {nearest(name, (a.id for a in _known()))}")


def asset_folders() -> list[Path]:
    """The folders where assets are looked for, in this order.

    Raises: ConfigError when `$SCRATCHLM_ASSETS` names no folder.
    """
    named = os.environ.get("SCRATCHLM_ASSETS")
    if not named:
        return [cache_folder()]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"SCRATCHLM_ASSETS names a folder that does not exist, {named!r}; create or unset it."
        )
    return [folder, cache_folder()]


def asset_problem(path: Path, *, asset: Asset, check: Check | None) -> str | None:
    """Describe what is wrong with a file whose sha256 is unknown; None when nothing is."""
    problem = structure_problem(path, name=asset.id.rpartition("/")[2], settings=asset.settings)
    return problem if problem is not None or check is None else check(path)


def checked_asset(path: Path, asset: Asset, check: Check | None = None) -> Path:
    """The path, after checking the file by its sha256, or by its size and structure if that is unknown.

    Raises: DataError.
    """
    status = path.stat()
    expected = asset.sha256 or recorded_sha256(path)
    if expected is None:
        is_sized = asset.size_bytes in (None, status.st_size)
        problem = (
            asset_problem(path, asset=asset, check=check) if is_sized else f"it has {status.st_size:,} bytes"
        )
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
