"""Assets: found, verified, fetched on request and never otherwise."""

import dataclasses
import hashlib
import os
import re
import zipfile

import httpx
import pytest

from scratchlm.assets import registry as assets_module
from scratchlm.assets.cache_folder import cache_folder
from scratchlm.assets.fetch import fetch_asset
from scratchlm.assets.known_datasets import ASSETS, Archive, Asset
from scratchlm.assets.registry import asset_path, find_assets, find_file, recorded_sha256
from scratchlm.core.errors import ConfigError, DataError, DownloadError

DATA = b"label\ttext\n" * 1000


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """A cache of our own; no folder of assets unless a test sets one."""
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SCRATCHLM_ASSETS", raising=False)
    monkeypatch.delenv("SCRATCHLM_MIRROR", raising=False)
    return tmp_path


@pytest.fixture
def known(monkeypatch, server):
    """Replace the table by one asset on the test server."""

    def replace(**changes):
        asset = Asset(
            id="some/file.txt",
            urls=(server.url("/file.txt"),),
            size_bytes=len(DATA),
            sha256=hashlib.sha256(DATA).hexdigest(),
            licence="public domain",
            purpose="a test",
        )
        asset = dataclasses.replace(asset, **changes)
        monkeypatch.setattr(assets_module, "ASSETS", (asset,))
        monkeypatch.setattr(assets_module, "GPT2_ASSETS", ())
        return asset

    return replace


@pytest.fixture
def zipped(known, tmp_path, server, answers):
    """Serve an archive as the origin of the known asset's bytes."""

    def serve(members, **changes):
        path = tmp_path / "served.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
        data = path.read_bytes()
        server.routes["/file.txt"] = [answers.body(data)]
        promise = Archive(member="file.txt", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        return known(archive=promise, **changes)

    return serve


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.id)
def test_every_asset_promises_what_the_real_file_holds(asset, real_data):
    data = (real_data / asset.id).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (asset.size_bytes, asset.sha256)


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.id)
def test_every_asset_has_safe_names_and_a_licence(asset):
    assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+", asset.id)
    assert ".." not in asset.id
    assert asset.licence
    assert asset.purpose
    assert all(httpx.URL(url).scheme == "https" for url in asset.urls)


def test_ids_are_unique():
    assert len({asset.id for asset in ASSETS}) == len(ASSETS)


def test_a_folder_name_finds_all_its_assets():
    assert [asset.id for asset in find_assets("gpt2_bpe")] == ["gpt2_bpe/encoder.json", "gpt2_bpe/vocab.bpe"]
    assert find_assets("text/") == [asset for asset in ASSETS if asset.id.startswith("text/")]
    assert [asset.id for asset in find_assets("text/the-verdict.txt")] == ["text/the-verdict.txt"]


@pytest.mark.parametrize("use", [find_assets, asset_path, fetch_asset])
def test_an_unknown_name_is_a_config_error_with_the_nearest_one(use):
    with pytest.raises(ConfigError, match=r"did you mean 'text/the-verdict\.txt'"):
        use("text/the-verdikt.txt")


@pytest.mark.parametrize("name", ["../some/file.txt", "/etc/passwd", "some/../some/file.txt"])
def test_a_name_is_never_taken_as_a_path(known, name):
    known()
    with pytest.raises(ConfigError):
        asset_path(name)


def test_using_an_asset_that_is_not_here_names_the_command_and_downloads_nothing(known, server):
    known()
    with pytest.raises(DataError, match=r"scratchlm data fetch some/file\.txt.*SCRATCHLM_ASSETS"):
        asset_path("some/file.txt")
    assert server.requests == []
    assert not cache_folder().exists()


def test_fetching_brings_it_into_the_cache_and_then_it_is_found(known, server, answers):
    asset = known()
    server.routes["/file.txt"] = [answers.body(DATA)]
    seen = []
    path = fetch_asset(asset.id, progress=lambda done, total: seen.append((done, total)))
    assert path == cache_folder() / "some" / "file.txt"
    assert path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert asset_path(asset.id) == path
    fetch_asset(asset.id)
    assert len(server.requests) == 1


def test_the_folder_of_assets_goes_before_the_cache_and_before_the_network(
    known, server, folders, monkeypatch
):
    asset = known()
    for folder in ("class", "home"):
        (folders / folder / "some").mkdir(parents=True)
        (folders / folder / "some" / "file.txt").write_bytes(DATA)
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(folders / "class"))
    assert asset_path(asset.id) == folders / "class" / "some" / "file.txt"
    assert fetch_asset(asset.id) == folders / "class" / "some" / "file.txt"
    assert server.requests == []


def test_what_the_folder_of_assets_lacks_comes_from_the_cache(known, folders, monkeypatch):
    asset = known()
    (folders / "class").mkdir()
    (folders / "home" / "some").mkdir(parents=True)
    (folders / "home" / "some" / "file.txt").write_bytes(DATA)
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(folders / "class"))
    assert asset_path(asset.id) == folders / "home" / "some" / "file.txt"


def test_a_folder_of_assets_that_does_not_exist_is_an_error_not_a_silence(known, folders, monkeypatch):
    known()
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(folders / "nowhere"))
    with pytest.raises(ConfigError, match="SCRATCHLM_ASSETS names a folder that does not exist"):
        asset_path("some/file.txt")


def test_wrong_bytes_are_an_error_that_names_both_hashes(known, folders):
    asset = known()
    path = folders / "home" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(DataError) as caught:
        asset_path(asset.id)
    assert asset.sha256 in str(caught.value)
    assert hashlib.sha256(DATA[:-1] + b"?").hexdigest() in str(caught.value)


def test_a_file_that_changes_after_it_was_checked_is_checked_again(known, folders):
    asset = known()
    path = folders / "home" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert asset_path(asset.id) == path
    path.write_bytes(b"?" * len(DATA))
    os.utime(path, (1, 1))
    with pytest.raises(DataError):
        asset_path(asset.id)


def test_fetching_replaces_a_damaged_file_in_the_cache(known, server, answers, folders):
    asset = known()
    path = folders / "home" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    server.routes["/file.txt"] = [answers.body(DATA)]
    assert fetch_asset(asset.id).read_bytes() == DATA


def test_fetching_never_overwrites_a_damaged_file_in_the_folder_of_assets(
    known, server, folders, monkeypatch
):
    asset = known()
    path = folders / "class" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(folders / "class"))
    with pytest.raises(DataError, match=r"instead of .*sha256"):
        fetch_asset(asset.id)
    assert path.read_bytes() == b"damaged"
    assert server.requests == []


def test_one_member_of_an_archive_becomes_the_asset_and_nothing_else_stays(zipped):
    asset = zipped([("readme", b"read me"), ("file.txt", DATA)])
    path = fetch_asset(asset.id)
    assert path.read_bytes() == DATA
    assert [file.name for file in cache_folder().rglob("*") if file.is_file()] == ["file.txt"]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([("readme", b"read me")], "got no such member"),
        ([("folder/file.txt", DATA)], "got no such member"),
        ([("file.txt", DATA + b"more")], "got 11,004 bytes"),
        ([("file.txt", b"?" * len(DATA))], "has sha256 .* instead of"),
        ([("file.txt", DATA), ("../evil", b"evil")], "unsafe name"),
        ([("file.txt", DATA), ("FILE.txt", DATA)], "case alone"),
    ],
)
def test_an_archive_without_the_promised_member_is_refused(zipped, members, found):
    asset = zipped(members)
    with pytest.raises(DownloadError, match=found):
        fetch_asset(asset.id)
    assert not (cache_folder() / asset.id).exists()


def test_an_archive_that_is_no_zip_is_refused(known, server, answers):
    junk = b"PK\x03\x04" + b"junk" * 100
    promise = Archive(member="file.txt", size_bytes=len(junk), sha256=hashlib.sha256(junk).hexdigest())
    asset = known(archive=promise)
    server.routes["/file.txt"] = [answers.body(junk)]
    with pytest.raises(DownloadError, match="is not a valid zip file"):
        fetch_asset(asset.id)


def test_an_archive_whose_packed_bytes_are_damaged_is_refused(zipped, server, answers, known, tmp_path):
    zipped([("file.txt", DATA)])
    data = bytearray((tmp_path / "served.zip").read_bytes())
    data[45:60] = b"\xff" * 15  # inside the deflated stream, after the local header of 30 + 8 bytes
    promise = Archive(member="file.txt", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    asset = known(archive=promise)
    server.routes["/file.txt"] = [answers.body(bytes(data))]
    with pytest.raises(DownloadError, match="is not a valid zip file"):
        fetch_asset(asset.id)


def test_the_cache_is_the_systems_own_unless_named(monkeypatch):
    monkeypatch.delenv("SCRATCHLM_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert cache_folder().name == "scratchlm"
    monkeypatch.setenv("SCRATCHLM_HOME", "~/elsewhere")
    assert cache_folder().is_absolute()
    assert cache_folder().name == "elsewhere"


def test_a_file_without_a_published_sha256_is_trusted_on_first_use_and_held_to_it(known, server, answers):
    asset = known(sha256=None, size_bytes=None)
    server.routes["/file.txt"] = [answers.body(DATA), answers.body(b"other" + DATA)]
    path = fetch_asset(asset.id)
    digest = hashlib.sha256(DATA).hexdigest()
    assert (path.parent / "file.txt.sha256").read_text() == f"{digest}  file.txt\n"
    assert recorded_sha256(path) == digest
    assert asset_path(asset.id) == path
    path.unlink()
    with pytest.raises(DownloadError, match=f"instead of {digest}"):
        fetch_asset(asset.id)
    assert not path.exists()


def test_a_change_after_the_first_use_is_found(known, server, answers):
    asset = known(sha256=None, size_bytes=None)
    server.routes["/file.txt"] = [answers.body(DATA)]
    path = fetch_asset(asset.id)
    path.write_bytes(b"?" + DATA)
    with pytest.raises(DataError, match=r"as recorded in file\.txt\.sha256"):
        asset_path(asset.id)
    assert fetch_asset(asset.id).read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_file_that_someone_put_there_is_remembered_when_it_is_asked_for(known, server, folders):
    asset = known(sha256=None, size_bytes=len(DATA))
    path = folders / "home" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert fetch_asset(asset.id) == path
    assert recorded_sha256(path) == hashlib.sha256(DATA).hexdigest()
    assert server.requests == []


def test_a_damaged_record_is_named(known, folders):
    asset = known(sha256=None)
    path = folders / "home" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    path.with_name("file.txt.sha256").write_text("nothing")
    with pytest.raises(DataError, match=r"file\.txt\.sha256 does not begin with a sha256"):
        asset_path(asset.id)


@pytest.mark.parametrize("data", [DATA[:-1], b"<html>".ljust(len(DATA))])
def test_without_a_sha256_size_and_structure_still_count(known, folders, data):
    asset = known(sha256=None, size_bytes=len(DATA))
    path = folders / "home" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"it has 10,999 bytes|it is a web page"):
        asset_path(asset.id)


def test_the_named_mirror_is_asked_before_the_known_addresses(known, server, answers, monkeypatch):
    asset = known()
    server.routes["/class/some/file.txt"] = [answers.body(DATA)]
    monkeypatch.setenv("SCRATCHLM_MIRROR", server.url("/class/"))
    assert fetch_asset(asset.id).read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/class/some/file.txt"]


def test_a_mirror_that_lacks_the_file_leaves_it_to_the_known_addresses(known, server, answers, monkeypatch):
    asset = known()
    server.routes["/file.txt"] = [answers.body(DATA)]
    monkeypatch.setenv("SCRATCHLM_MIRROR", server.url("/class"))
    assert fetch_asset(asset.id).read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/class/some/file.txt", "/file.txt"]


def test_a_mirror_serves_the_file_itself_where_the_origin_has_an_archive(
    zipped, server, answers, monkeypatch
):
    asset = zipped([("file.txt", DATA)])
    monkeypatch.setenv("SCRATCHLM_MIRROR", server.url("/class"))
    assert fetch_asset(asset.id).read_bytes() == DATA  # the mirror lacks it: out of the archive
    (cache_folder() / asset.id).unlink()
    server.routes["/class/some/file.txt"] = [answers.body(DATA)]
    assert fetch_asset(asset.id).read_bytes() == DATA
    assert server.requests[-1][0] == "/class/some/file.txt"


def test_a_mirror_that_is_no_address_is_an_error(known, monkeypatch):
    known()
    monkeypatch.setenv("SCRATCHLM_MIRROR", "file:///etc")
    with pytest.raises(ConfigError, match="SCRATCHLM_MIRROR must begin with http"):
        fetch_asset("some/file.txt")


def test_a_file_may_be_wanted_elsewhere(known, server, answers, folders):
    asset = known()
    server.routes["/file.txt"] = [answers.body(DATA)]
    goal = folders / "own" / "file.txt"
    assert fetch_asset(asset.id, target=goal) == goal
    assert goal.read_bytes() == DATA
    assert fetch_asset(asset.id, target=goal) == goal
    assert len(server.requests) == 1
    assert not cache_folder().exists()
    goal.write_bytes(b"damaged")
    assert fetch_asset(asset.id, target=goal).read_bytes() == DATA


def test_what_is_here_already_is_copied_and_not_downloaded_again(known, server, folders, monkeypatch):
    asset = known()
    (folders / "class" / "some").mkdir(parents=True)
    (folders / "class" / "some" / "file.txt").write_bytes(DATA)
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(folders / "class"))
    goal = fetch_asset(asset.id, target=folders / "own" / "file.txt")
    assert goal.read_bytes() == DATA
    assert server.requests == []
    goal.write_bytes(b"mine")
    assert (folders / "class" / "some" / "file.txt").read_bytes() == DATA


def test_looking_for_a_file_does_not_read_it(known, folders):
    asset = known()
    assert find_file(asset.id) is None
    path = folders / "home" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"anything")
    assert find_file(asset.id) == path
