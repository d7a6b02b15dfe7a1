from scratchlm.generation.text_stream import RedecodingStream, stream_decoder
from scratchlm.tokenizers.word import WordTokenizer, build_vocab


def test_pieces_together_are_the_whole_text(make_tokenizer):
    tokenizer = make_tokenizer([b"He", b"llo", b" ", "wörld".encode(), b"!"])
    stream = stream_decoder(tokenizer)
    pieces = [stream.push(i) for i in range(5)]
    assert pieces == ["He", "llo", " ", "wörld", "!"]
    assert stream.flush() == ""


def test_half_a_character_waits_for_the_other_half(make_tokenizer):
    first, second = "ö".encode()[:1], "ö".encode()[1:]
    stream = stream_decoder(make_tokenizer([b"a" + first, second + b"b"]))
    assert [stream.push(0), stream.push(1), stream.flush()] == ["a", "öb", ""]


def test_half_a_character_at_the_very_end_is_shown_as_a_replacement(make_tokenizer):
    stream = stream_decoder(make_tokenizer([b"a\xc3"]))
    assert [stream.push(0), stream.flush()] == ["a", "\ufffd"]


def test_a_decoder_of_the_tokenizers_own_is_preferred(make_tokenizer):
    tokenizer = make_tokenizer([b"a"])
    has_own = hasattr(tokenizer, "stream_decoder")
    assert isinstance(stream_decoder(tokenizer), RedecodingStream) is not has_own


def test_a_space_that_a_word_tokenizer_takes_back_does_not_repeat_text():
    class JoinsWords:
        def decode(self, ids):
            return " ".join(["Hello", ",", "you"][i] for i in ids).replace(" ,", ",")

    stream = RedecodingStream(JoinsWords())
    assert [stream.push(i) for i in range(3)] == ["Hello", ",", " you"]


def test_text_after_a_prompt_begins_where_the_prompt_ended():
    tokenizer = WordTokenizer(build_vocab("the king , another", special_tokens=["<|unk|>"]))
    prompt = tokenizer.encode("the king")
    for make in (RedecodingStream, stream_decoder):
        stream = make(tokenizer, after=prompt)
        new = tokenizer.encode(", another king")
        text = "".join(stream.push(i) for i in new) + stream.flush()
        assert text == ", another king"
        assert make(tokenizer, after=prompt).push(prompt[0]) == " the"
