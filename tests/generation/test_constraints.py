import builtins
import json
import random
import re

import pytest
import torch

from scratchlm.core import seed
from scratchlm.core.errors import ConfigError, MissingDependencyError
from scratchlm.generation.choose import TokenChooser
from scratchlm.generation.config import GenerationConfig
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.word import LosslessWordTokenizer, WordTokenizer, build_vocab

pytest.importorskip("llguidance", reason="llguidance is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

MERGES = [
    (b"t", b"r"),
    (b"tr", b"u"),
    (b"tru", b"e"),
    (b"1", b"2"),
    (b'"', b":"),
    (b" ", b'"'),
    (b"y", b"e"),
    (b"ye", b"s"),
]
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    return BPETokenizer(MERGES, special_tokens=[END])


def written(tokenizer, *, stop_ids=None, number=0, max_new_tokens=400, end_bias=0.0, prompt=(1,), **settings):
    """A text of a model that scores at random; returns the text and whether the constraint was complete."""
    stop_ids = stop_ids if stop_ids is not None else (tokenizer.end_of_text_id,)
    config = GenerationConfig(temperature=1.0, stop_ids=stop_ids, max_new_tokens=max_new_tokens, **settings)
    generator = seed.generator(number)
    row = TokenChooser(config, prompt, generator=generator, tokenizer=tokenizer)
    ids: list[int] = []
    for _ in range(max_new_tokens):
        logits = torch.randn(tokenizer.vocab_size, generator=generator)
        for end in '"}]' * (end_bias > 0):  # ends of strings and lists are likely, as with a trained model
            logits[tokenizer.encode(end)[0]] += end_bias
        choice = row.choose(logits)
        if choice.id in stop_ids:
            return tokenizer.decode(ids), True
        ids.append(choice.id)
        if row.finished and not stop_ids:
            return tokenizer.decode(ids), True
    return tokenizer.decode(ids), False


@pytest.mark.parametrize(
    "pattern", [r"[a-c]{2,4}\d", r"(yes|no)(, (yes|no))*!", r"a/b\\/c", r"naïve (é|ü)+\.", "line\n(a|b)\\\n"]
)
def test_a_random_model_writes_only_what_the_expression_matches(bpe, pattern):
    for number in range(8):
        text, is_complete = written(bpe, number=number, regex=pattern)
        assert is_complete
        assert re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    "choices",
    [("yes", "no"), ("a+b", "a+c", "(x)"), ("one\ntwo", 'q"', "back\\slash"), ("yes", "yes, sir", "é")],
)
def test_every_choice_is_reached_and_nothing_else(bpe, choices):
    texts = {written(bpe, number=number, choices=choices)[0] for number in range(30)}
    assert texts == {*choices}


def test_without_stop_ids_a_complete_text_says_that_it_is_finished(bpe):
    text, is_complete = written(bpe, stop_ids=(), choices=("yes", "true"))
    assert is_complete
    assert text in {"yes", "true"}


def test_tokens_are_matched_whatever_their_cut(bpe):
    """The token for "true" is taken where the model prefers it, not only its letters."""
    config = GenerationConfig(choices=("true", "tricky"), stop_ids=(bpe.end_of_text_id,))
    row = TokenChooser(config, [1], generator=None, tokenizer=bpe)
    logits = torch.zeros(bpe.vocab_size)
    logits[bpe.encode("true")[0]] = 1.0
    assert bpe.decode([row.choose(logits).id]) == "true"
    assert row.choose(logits).id == bpe.end_of_text_id


def test_the_word_tokenizers_work_too():
    words = WordTokenizer(build_vocab("Is it good or bad, or very bad? ok", special_tokens=["<|unk|>", END]))
    for number in range(10):
        text, is_complete = written(
            words, number=number, regex="(very )*(bad|good)", prompt=words.encode("Is it")
        )
        assert is_complete
        assert re.fullmatch("(very )*(bad|good)", text)
    letters = LosslessWordTokenizer.from_text("yes or no?", special_tokens=[END])
    assert {written(letters, number=n, choices=("yes", "no"))[0] for n in range(10)} == {"yes", "no"}


def test_gpt2s_own_vocabulary_writes_json(real_data):
    folder = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "maximum": 150},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    text, is_complete = written(tokenizer, json_schema=schema, end_bias=9.0)
    assert is_complete
    jsonschema.validate(json.loads(text), schema)


def random_schema(rng: random.Random, depth: int = 0) -> dict:
    """A schema of a random shape whose strings and lists are bounded."""
    kinds = ["boolean", "integer", "number", "null", "string", "enum", "const", "pattern"]
    kind = rng.choice(kinds + (["object", "array", "anyOf"] * 3 if depth < 3 else []))
    if kind == "object":
        names = rng.sample(["a", "name", "x y", "age", "tags", "ü", 'q"'], rng.randint(0, 4))
        return {
            "type": "object",
            "properties": {name: random_schema(rng, depth + 1) for name in names},
            "required": rng.sample(names, rng.randint(0, len(names))),
            "additionalProperties": False,
        }
    if kind == "array":
        least = rng.randint(0, 2)
        bounds = {"minItems": least, "maxItems": least + rng.randint(0, 2)}
        return {"type": "array", "items": random_schema(rng, depth + 1), **bounds}
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth + 1) for _ in range(2)]}
    if kind == "integer":
        least = rng.randint(-50, 50)
        return {"type": "integer", "minimum": least, "maximum": least + rng.randint(0, 2000)}
    if kind == "number":
        return {"type": "number", "minimum": 0, "maximum": rng.randint(1, 9)}
    if kind == "string":
        return {"type": "string", "maxLength": rng.randint(0, 12)}
    if kind == "enum":
        return {"enum": rng.sample(["red", "blue", 3, True, None, 2.5, "a\nb"], rng.randint(1, 4))}
    if kind == "const":
        return {"const": rng.choice(["x", 7, False, [1, 2], {"k": "v"}])}
    return {"type": "string", "pattern": "^[a-z]{2,5}-[0-9]{1,3}$"} if kind == "pattern" else {"type": kind}


def test_json_of_200_random_schemas_is_valid(bpe):
    n_complete = 0
    for number in range(200):
        schema = random_schema(random.Random(number))
        text, is_complete = written(bpe, number=number, json_schema=schema, end_bias=3.0)
        n_complete += is_complete
        if is_complete:
            jsonschema.validate(json.loads(text), schema)
    assert n_complete >= 195  # a number may have digits without end


def test_masks_and_sampling_steps_are_one_chain(bpe):
    """Top-k after the mask: the allowed tokens compete among themselves only."""
    config = GenerationConfig(temperature=1.0, top_k=1, choices=("yes", "no"), stop_ids=(bpe.end_of_text_id,))
    row = TokenChooser(config, [1], generator=seed.generator(0), tokenizer=bpe)
    logits = torch.zeros(bpe.vocab_size)
    logits[bpe.encode("n")[0]] = 1.0
    logits[bpe.encode("z")[0]] = 9.0
    assert row.choose(logits).id == bpe.encode("n")[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regex": "(ab"}, "regex is invalid, got '\\(ab'"),
        ({"json_schema": {"type": "strin"}}, "json_schema is invalid"),
    ],
)
def test_an_invalid_constraint_is_refused_at_once(bpe, settings, message):
    with pytest.raises(ConfigError, match=message):
        TokenChooser(GenerationConfig(**settings), [1], generator=None, tokenizer=bpe)


def test_a_constraint_needs_a_tokenizer():
    with pytest.raises(ConfigError, match="regex needs a tokenizer, got regex='a'"):
        TokenChooser(GenerationConfig(regex="a"), [1], generator=None, tokenizer=None)


def test_without_the_package_the_message_says_how_to_install_it(bpe, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "llguidance":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"scratchlm\[constrained\]"):
        TokenChooser(GenerationConfig(regex="a"), [1], generator=None, tokenizer=bpe)
