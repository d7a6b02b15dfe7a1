"""nanoGPT's meta.pkl is read without running it, and any other pickle is refused."""

import os
import pickle

import pytest

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.nanogpt_meta import characters_of_nanogpt


class RunsACommand:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_characters_keep_their_ids(tmp_path, protocol):
    ids = {character: id_ for id_, character in enumerate("abc \n" + "äöü")}
    meta = {"vocab_size": len(ids), "itos": {id_: c for c, id_ in ids.items()}, "stoi": ids}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(meta, protocol=protocol))
    assert characters_of_nanogpt(tmp_path / "meta.pkl").encode("ab ü") == [0, 1, 3, 7]


HOSTILE = {
    "a command": pickle.dumps({"stoi": RunsACommand()}),
    "a global": b"\x80\x02cos\nsystem\n.",
    "a list": pickle.dumps({"stoi": [1, 2]}),
    "a tuple": pickle.dumps({"stoi": {("a", "b"): 1}}),
    "a key without a value": b"\x80\x02}(K\x01u.",
    "items for a number": b"\x80\x02K\x01K\x02K\x03s.",
    "a dictionary as a key": b"\x80\x02}}K\x01s.",
    "no mark": b"\x80\x02}u.",
    "no memory": b"\x80\x02h\x07.",
    "nothing on the stack": b"\x80\x02.",
    "no end": b"\x80\x02}",
    "no pickle": b"hello",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_another_pickle_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meta.pkl").write_bytes(HOSTILE[name])
    with pytest.raises(TokenizerError, match=r"is not nanoGPT's meta\.pkl"):
        characters_of_nanogpt(tmp_path / "meta.pkl")
    assert not (tmp_path / "canary").exists()


def test_tables_shared_without_end_are_refused_at_once(tmp_path):
    shared = b"\x80\x02}q\x00" + b"".join(b"}q%c(K\x01h%cK\x02h%cu" % (i + 1, i, i) for i in range(60))
    (tmp_path / "meta.pkl").write_bytes(shared + b".")
    with pytest.raises(TokenizerError, match="must hold nanoGPT's stoi"):
        characters_of_nanogpt(tmp_path / "meta.pkl")
