import io
import tarfile

import pytest

from scratchlm.core.errors import DataError
from scratchlm.data import imdb
from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.imdb import read_imdb

REVIEWS = {
    "aclImdb/README": "Large Movie Review Dataset v1.0",
    "aclImdb/test/neg/0_2.txt": "Once again Mr. Costner has dragged out a movie.",
    "aclImdb/test/pos/0_10.txt": "I went and saw this movie last night.<br /><br />Café society.",
    "aclImdb/train/neg/0_3.txt": "Story of a man who has unnatural feelings for a pig.",
    "aclImdb/train/pos/0_9.txt": "Bromwell High is a cartoon comedy.",
    "aclImdb/train/unsup/0_0.txt": "No label here.",
    "aclImdb/train/urls_pos.txt": "http://www.imdb.com/title/tt0453418/usercomments",
    "../aclImdb/train/pos/1_9.txt": "A name that climbs.",
}


def write(path, members=REVIEWS, *, links=()):
    """An archive of the true layout."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            data = text if isinstance(text, bytes) else text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return path


def test_reviews_come_with_the_label_of_their_folder(tmp_path):
    path = write(tmp_path / "aclImdb_v1.tar.gz")
    assert list(read_imdb(path)) == [
        (REVIEWS["aclImdb/test/neg/0_2.txt"], "neg"),
        (REVIEWS["aclImdb/test/pos/0_10.txt"], "pos"),
        (REVIEWS["aclImdb/train/neg/0_3.txt"], "neg"),
        (REVIEWS["aclImdb/train/pos/0_9.txt"], "pos"),
    ]


def test_the_archive_is_read_where_any_labelled_file_is(tmp_path):
    rows = read_labelled(write(tmp_path / "aclImdb_v1.tar.gz"))
    assert [(row.text, row.label) for row in rows][-1] == ("Bromwell High is a cartoon comedy.", "pos")


def test_a_link_is_not_followed(tmp_path):
    path = write(tmp_path / "a.tar.gz", {}, links=["aclImdb/train/pos/0_9.txt"])
    with pytest.raises(DataError, match=r"has no reviews such as aclImdb/train"):
        list(read_imdb(path))


def test_damage_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    path = write(
        tmp_path / "a.tar.gz", {f"aclImdb/train/pos/{i}_9.txt": f"{i * 7919}" * 99 for i in range(99)}
    )
    whole = path.read_bytes()
    for n_lost in (4, 40, len(whole) // 2):
        path.write_bytes(whole[:-n_lost])
        with pytest.raises(DataError, match=r"is not a complete \.tar\.gz"):
            list(read_imdb(path))
    with pytest.raises(DataError, match=r"cannot be read|whole \.tar\.gz"):
        list(read_imdb(tmp_path / "none.tar.gz"))
    with pytest.raises(DataError, match="is not UTF-8"):
        list(read_imdb(write(tmp_path / "b.tar.gz", {"aclImdb/train/pos/0_9.txt": b"caf\xe9"})))
    monkeypatch.setattr(imdb, "MAX_REVIEW_BYTES", 10)
    with pytest.raises(DataError, match="at most 10 bytes, got 34"):
        list(read_imdb(write(tmp_path / "c.tar.gz", {"aclImdb/train/pos/0_9.txt": "x" * 34})))
