from hypothesis import given
from hypothesis import strategies as st

from scratchlm.generation.stopping import StopTextGate

letters = st.text(alphabet="ab#", max_size=14)
stops = st.lists(st.text(alphabet="ab#", min_size=1, max_size=4), min_size=1, max_size=3)


def let_through(pieces: list[str], stop_texts: list[str]) -> tuple[str, str | None]:
    gate = StopTextGate(stop_texts)
    shown = "".join(gate.push(piece) for piece in pieces) + gate.flush()
    return shown, gate.found


@given(text=letters, stop_texts=stops)
def test_the_text_ends_before_the_stop_text_that_is_complete_first(text, stop_texts):
    for end in range(len(text) + 1):  # the plain rule, read letter by letter
        complete = [stop for stop in stop_texts if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            assert let_through([text], stop_texts) == (text[: end - len(longest)], longest)
            return
    assert let_through([text], stop_texts) == (text, None)


@given(pieces=st.lists(letters, max_size=6), stop_texts=stops)
def test_how_the_text_is_cut_makes_no_difference(pieces, stop_texts):
    whole = "".join(pieces)
    assert (
        let_through(pieces, stop_texts)
        == let_through([whole], stop_texts)
        == let_through(list(whole), stop_texts)
    )


@given(pieces=st.lists(letters, max_size=6), stop_texts=stops)
def test_only_what_may_become_a_stop_text_is_held_back(pieces, stop_texts):
    gate, shown, pushed = StopTextGate(stop_texts), "", ""
    for piece in pieces:
        shown, pushed = shown + gate.push(piece), pushed + piece
        if gate.found is not None:
            return
        held = pushed[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stop_texts)


def test_nothing_comes_out_after_the_stop_text():
    gate = StopTextGate(["."])
    assert [gate.push("a. b"), gate.push(" c"), gate.flush()] == ["a", "", ""]


def test_without_stop_texts_everything_passes_at_once():
    gate = StopTextGate([])
    assert gate.push("#") == "#"
    assert gate.flush() == ""
