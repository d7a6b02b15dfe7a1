"""The larger data sets: safe names, pinned addresses, and no size or hash of a wrong shape."""

import re

import httpx
import pytest

from scratchlm.assets.known_datasets import ASSETS, DATASETS
from scratchlm.assets.registry import find_assets

NAMES = ("imdb", "ag_news", "alpaca", "dolly", "tiny_stories", "wikitext_2", "fineweb")


@pytest.mark.parametrize("asset", DATASETS, ids=lambda asset: asset.id)
def test_every_data_set_has_a_safe_name_a_licence_and_pinned_bytes(asset):
    assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+", asset.id)
    assert ".." not in asset.id
    assert asset.licence
    assert asset.purpose
    assert all(httpx.URL(url).scheme == "https" for url in asset.urls)
    assert asset.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", asset.sha256)
    assert asset.size_bytes is None or asset.size_bytes > 0
    if asset.archive is not None:  # a member is checked by size and sha256, so both must be known
        assert asset.size_bytes is not None
        assert asset.sha256 is not None
    for url in asset.urls:
        if url.startswith(("https://huggingface.co/datasets", "https://raw.githubusercontent.com")):
            assert re.search(r"/[0-9a-f]{40}/", url), "an address names its revision"


def test_every_name_of_the_list_is_found_and_ids_are_unique():
    assert {asset.id.partition("/")[0] for asset in DATASETS} == set(NAMES)
    for name in NAMES:
        assert find_assets(name)
    ids = [asset.id for asset in (*ASSETS, *DATASETS)]
    assert len(ids) == len(set(ids))
