"""Archives made to do harm are an error, whichever member of theirs was asked for."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from scratchlm.assets.archive_members import names_problem, read_member
from scratchlm.core.errors import DownloadError

GOOD = b"good bytes"


def zip_of(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression=method) as archive:
        for name, data in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, method
            archive.writestr(info, data)
    return path


def test_a_member_of_a_sound_archive_is_read(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("readme", b"read me"), ("folder/", b""), ("folder/file", GOOD))
    assert read_member(path, "folder/file", max_bytes=10) == GOOD


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ("/etc/passwd", "unsafe name"),
        ("../evil", "unsafe name"),
        ("a/../../evil", "unsafe name"),
        ("a//b", "unsafe name"),
        ("./a", "unsafe name"),
        ("C:evil", "unsafe name"),
        ("a\\..\\evil", "unsafe name"),
        ("line\nend", "unsafe name"),
        ("", "unsafe name"),
        ("FILE", "case alone"),
        ("file/", "case alone"),
        ("a" * 256, "over-long"),
        ("a/" * 501 + "a", "over-long"),
    ],
)
def test_one_bad_name_spoils_the_archive(tmp_path, other, found):
    path = zip_of(tmp_path / "a.zip", ("file", GOOD), (other, b"evil"))
    with pytest.raises(DownloadError, match=found):
        read_member(path, "file", max_bytes=100)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_repeated_name_spoils_the_archive(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("file", GOOD), ("file", b"evil"))
    with pytest.raises(DownloadError, match="twice"):
        read_member(path, "file", max_bytes=100)


def test_a_link_spoils_the_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("file", GOOD)
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DownloadError, match="'link' as a link"):
        read_member(tmp_path / "a.zip", "file", max_bytes=100)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("claim", [3, 9, 11, 1 << 20, 0xFFFFFFF0])
def test_a_size_that_lies_is_an_error(tmp_path, method, claim):
    path = zip_of(tmp_path / "a.zip", ("file", GOOD), method=method)
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(mark) + place, claim)
    path.write_bytes(data)
    with pytest.raises(DownloadError):
        read_member(path, "file", max_bytes=1 << 40)


@pytest.mark.parametrize("n", [0, 1, 20, 60])
def test_a_cut_archive_is_an_error(tmp_path, n):
    path = zip_of(tmp_path / "a.zip", ("file", GOOD))
    path.write_bytes(path.read_bytes()[:n])
    with pytest.raises(DownloadError, match="not a valid zip file"):
        read_member(path, "file", max_bytes=100)


def test_what_is_absent_or_too_large_is_an_error_that_says_so(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("folder/file", GOOD))
    with pytest.raises(DownloadError, match="got no such member"):
        read_member(path, "file", max_bytes=100)
    with pytest.raises(DownloadError, match="got 10 bytes"):
        read_member(path, "folder/file", max_bytes=9)


def test_arrays_may_differ_in_case_alone():
    assert names_problem([("w.npy", 0), ("W.npy", 0)], are_files=False) is None
    assert "case alone" in names_problem([("w.npy", 0), ("W.npy", 0)])
