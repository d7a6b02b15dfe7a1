"""GGUF: a written model reads back bit for bit, and damaged files are refused."""

import random
import re
import struct
import sys

import gguf
import numpy as np
import pytest
import torch

from scratchlm.checkpoints.gguf.gguf_file import GGUFFile
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.core.errors import CheckpointError, ConfigError, MissingDependencyError
from scratchlm.model.config import GPTConfig, RopeScaling
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.word import WordTokenizer
from tests.faults.reading import attack
from tests.tiny import LLAMA_LAYERS

LLAMA = {**LLAMA_LAYERS, "n_kv_heads": 2, "ff_dim": 96}
KINDS = {
    "gpt2 of the book": {},
    "gpt2 of OpenAI": {"qkv_bias": True, "tie_embeddings": True, "drop_rate": 0.3, "ff_dim": 96},
    "llama": LLAMA,
    "llama 3": LLAMA
    | {
        "rope_base": 500000.0,
        "tie_embeddings": True,
        "rope_scaling": RopeScaling(factor=5.0, original_context_length=32),
    },
    "qwen2": LLAMA | {"qkv_bias": True, "rope_base": 1e6},
    "qwen3": LLAMA | {"qk_norm": True, "head_size": 32, "norm_eps": 1e-6},
}
LIMITS = {
    "f32": 0.0,
    "f16": 2e-3,
    "bf16": 2e-2,
    "q8_0": 4e-2,
}  # of the largest logit; measured: a third of it
SEED, N_FAST, N_SLOW = 20_260, 500, 10_000


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(
        ["The cat sat on the mat. They've 123 bones! " * 40], 280, special_tokens=["<|endoftext|>"]
    )


def make_model(kind: str = "gpt2 of the book", **changes) -> GPTModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "context_length": 24, "emb_dim": 64, "n_heads": 4, "n_layers": 2}
    return GPTModel(GPTConfig(**(sizes | KINDS[kind] | changes))).eval()


def can_be_unpacked(type_: gguf.GGMLQuantizationType) -> bool:
    try:
        with np.errstate(all="ignore"):
            gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[type_][1]), dtype=np.uint8), type_)
    except NotImplementedError:
        return False
    return True


def ids() -> torch.Tensor:
    return torch.arange(20)[None] * 7


@pytest.mark.parametrize("kind", KINDS)
def test_f32_keeps_every_bit_of_every_kind_of_model(tmp_path, tokenizer, kind):
    model = make_model(kind)
    task = {"kind": "instruction", "template": "alpaca"}
    path = export_gguf(tmp_path / "a.gguf", model, tokenizer, task=task)
    loaded = read_gguf(path)
    assert loaded.config == model.config
    assert loaded.task == task
    assert loaded.tokenizer.fingerprint == tokenizer.fingerprint
    ours, theirs = model.state_dict(), loaded.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_fewer_bits_change_logits_a_little(tmp_path, tokenizer, kind, dtype):
    model = make_model(kind)
    loaded = read_gguf(export_gguf(tmp_path / "a.gguf", model, tokenizer, dtype=dtype))
    expected = model(ids())
    difference = (loaded.model(ids()) - expected).abs().max()
    assert 0 < difference < LIMITS[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_our_reader_unpacks_as_the_gguf_library_does(tmp_path, tokenizer, dtype):
    path = export_gguf(
        tmp_path / "a.gguf", make_model("llama 3", emb_dim=80, ff_dim=96), tokenizer, dtype=dtype
    )
    ours = GGUFFile(path)
    theirs = gguf.GGUFReader(path)
    assert ours.shapes().keys() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.tensor(tensor.name).numpy(), expected)
    assert set(ours.metadata) == {name for name in theirs.fields if not name.startswith("GGUF.")}
    for key, value in ours.metadata.items():
        assert theirs.fields[key].contents() == value


def test_rows_that_do_not_split_into_blocks_are_stored_as_f16(tmp_path, tokenizer):
    path = export_gguf(
        tmp_path / "a.gguf", make_model("gpt2 of OpenAI", emb_dim=40, ff_dim=64), tokenizer, dtype="q8_0"
    )
    packed = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert packed["blk.0.attn_qkv.weight"] == "F16"
    assert packed["blk.0.ffn_down.weight"] == "Q8_0"
    assert packed["blk.0.attn_norm.weight"] == packed["position_embd.weight"] == "F32"


@pytest.mark.parametrize("kind", ["gpt2 of OpenAI", "llama", "qwen2", "qwen3"])
def test_a_file_without_our_own_settings_reads_as_the_same_model(tmp_path, tokenizer, kind):
    """A file as other programs write it: `scratchlm.` is renamed, keeping the length."""
    model = make_model(kind)
    path = export_gguf(tmp_path / "a.gguf", model, tokenizer)
    path.write_bytes(path.read_bytes().replace(b"scratchlm.", b"somebodys."))
    loaded = read_gguf(path)
    torch.testing.assert_close(loaded.model(ids()), model(ids()), rtol=0, atol=0)
    assert loaded.config.norm_eps == model.config.norm_eps


@pytest.mark.parametrize(("factor", "is_known"), [(8.0, True), (32.0, True), (5.0, False)])
def test_a_foreign_llama_3_is_known_by_its_factors(tmp_path, tokenizer, factor, is_known):
    model = make_model("llama 3", rope_scaling=RopeScaling(factor=factor))
    path = export_gguf(tmp_path / "a.gguf", model, tokenizer)
    path.write_bytes(path.read_bytes().replace(b"scratchlm.", b"somebodys."))
    if is_known:
        assert read_gguf(path).config.rope_scaling == model.config.rope_scaling
    else:
        with pytest.raises(CheckpointError, match="other than Llama 3's"):
            read_gguf(path)


@pytest.mark.parametrize("key", ["rope.scaling.factor", "rope.scale_linear"])
def test_a_rope_scaling_that_we_lack_is_refused_and_not_ignored(tmp_path, tokenizer, key, monkeypatch):
    path, original = export_gguf(tmp_path / "a.gguf", make_model("llama"), tokenizer), GGUFFile.__init__

    def with_scaling(file: GGUFFile, path) -> None:
        original(file, path)
        file.metadata[f"llama.{key}"] = 2.0

    monkeypatch.setattr(GGUFFile, "__init__", with_scaling)
    with pytest.raises(CheckpointError, match=rf"llama\.{key} is 2\.0.*use another version of the model"):
        read_gguf(path)


def test_settings_at_odds_with_each_other_are_an_error(tmp_path, tokenizer):
    path = export_gguf(tmp_path / "a.gguf", make_model(), tokenizer)
    path.write_bytes(path.read_bytes().replace(b'"n_heads": 4', b'"n_heads": 2'))
    with pytest.raises(CheckpointError, match="contradicts its other settings"):
        read_gguf(path)


def test_a_bias_where_the_config_has_none_is_an_error(tmp_path, tokenizer):
    path = export_gguf(tmp_path / "a.gguf", make_model("gpt2 of OpenAI"), tokenizer)
    path.write_bytes(path.read_bytes().replace(b'"qkv_bias": true', b'"qkv_bias":false'))
    with pytest.raises(CheckpointError, match="not zero"):
        read_gguf(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"feed_forward": "gelu_exact"},
        {"norm": "rms"},
        {"positions": "rotary"},
        {"linear_bias": False},
        {"n_kv_heads": 2},
        {"head_size": 8},
        {"qk_norm": True},
    ],
    ids=str,
)
def test_a_model_that_llama_cpp_does_not_know_is_an_error(tmp_path, tokenizer, changes):
    with pytest.raises(ConfigError, match="needs a model that llama"):
        export_gguf(tmp_path / "a.gguf", make_model(**changes), tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_is_an_error(tmp_path, tokenizer):
    model = make_model()
    model.out_head = torch.nn.Linear(64, 2)
    with pytest.raises(CheckpointError, match="a head for another task"):
        export_gguf(tmp_path / "a.gguf", model, tokenizer)


def test_a_tokenizer_that_llama_cpp_cannot_have_is_an_error(tmp_path):
    cases = {
        "WordTokenizer": WordTokenizer({"a": 0, "<|unk|>": 1, "<|endoftext|>": 2}),
        "GGUF needs the pre-tokenizer of": train_bpe(["a b " * 9], 257, pattern=r"\S+|\s+"),
        "got one without": train_bpe(["a b " * 9], 257, special_tokens=[]),
    }
    for message, tokenizer in cases.items():
        with pytest.raises(ConfigError, match=message):
            export_gguf(tmp_path / "a.gguf", make_model(), tokenizer)


def test_a_model_with_fewer_ids_than_its_tokenizer_is_an_error(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="do not belong together"):
        export_gguf(tmp_path / "a.gguf", make_model(vocab_size=100), tokenizer)


def test_without_the_library_the_error_says_how_to_install_it(tmp_path, tokenizer, monkeypatch):
    path = export_gguf(tmp_path / "a.gguf", make_model(), tokenizer)
    monkeypatch.setitem(sys.modules, "gguf", None)
    for use in (lambda: export_gguf(tmp_path / "b.gguf", make_model(), tokenizer), lambda: read_gguf(path)):
        with pytest.raises(MissingDependencyError, match=r"pip install 'scratchlm\[gguf\]'"):
            use()


TYPES = [type_ for type_ in gguf.GGMLQuantizationType if can_be_unpacked(type_)]


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.name)
def test_every_type_that_the_library_unpacks_is_read(tmp_path, type_):
    """A tensor of random bytes: the library can read most of these types, but not write them."""
    block, block_bytes = gguf.GGML_QUANT_SIZES[type_]
    packed = np.random.default_rng(0).integers(0, 256, (3, 2 * block_bytes), dtype=np.uint8)
    path = tmp_path / "a.gguf"
    start = header(1, 0, tensor("a", (2 * block, 3), 0, kind=int(type_)))
    path.write_bytes(start + bytes(-len(start) % 32) + packed.tobytes())
    (theirs,) = gguf.GGUFReader(path).tensors
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(theirs.data, type_)
    found = GGUFFile(path).tensor("a")
    assert found.shape == (3, 2 * block)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_type_that_the_library_cannot_unpack_is_called_by_its_name(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(
        header(1, 0, tensor("a", (32,), 0, kind=int(gguf.GGMLQuantizationType.Q8_1))) + bytes(96)
    )
    with pytest.raises(CheckpointError, match="'a' has the type Q8_1, which cannot be unpacked"):
        GGUFFile(path).tensor("a")


# ---------------------------------------------------------------- damaged files


def damage(good: bytes, number: int, *, n_header: int) -> bytes:
    """A few random changes, most of them in the header, which holds counts and names."""
    draw = random.Random(f"{SEED} {number}")
    data = bytearray(good)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(min(len(data), n_header if draw.random() < 0.8 else len(data)) or 1)
        match draw.randrange(6):
            case 0:
                data[at : at + 1] = bytes([data[at] ^ 1 << draw.randrange(8)]) if data else b""
            case 1:
                del data[at:]
            case 2:
                data[at:at] = draw.randbytes(draw.choice((1, 2, 8, 100)))
            case 3:
                data[at : at + 8] = bytes(8)
            case 4:
                huge = draw.choice(
                    (0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
                )
                size = draw.choice((1, 2, 4, 8))
                data[at : at + size] = (huge % (1 << 8 * size)).to_bytes(size, "little")
            case _:
                digits = [i for i in range(at, min(at + 400, len(data))) if 48 <= data[i] <= 57]
                if digits:
                    at = draw.choice(digits)
                    data[at] = draw.choice(b"0123456789-e.")
    return bytes(data)


def attack_gguf(tmp_path, tokenizer, kind: str, n: int, *, dtype: str = "f32") -> None:
    model = make_model(kind, emb_dim=32, ff_dim=32, head_size=None)
    task = {
        "stop_ids": [1, 2],
        "chat_template": "{{ messages[0].content }}",
        "chat_tokens": {"eos_token": "a"},
    }
    path = export_gguf(tmp_path / "a.gguf", model, tokenizer, dtype=dtype, task=task)
    good, shapes = path.read_bytes(), GGUFFile(path).shapes()
    n_header = good.rindex(list(shapes)[-1].encode()) + 60

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_gguf(path)

    attack(read, good=good, damage=lambda number: damage(good, number, n_header=n_header), n=n)


@pytest.mark.parametrize("kind", ["gpt2 of the book", "llama 3"])
def test_a_damaged_file_loads_or_is_our_error(tmp_path, tokenizer, kind):
    attack_gguf(tmp_path, tokenizer, kind, N_FAST)


def test_a_damaged_file_of_packed_numbers_loads_or_is_our_error(tmp_path, tokenizer):
    attack_gguf(tmp_path, tokenizer, "llama", N_FAST, dtype="q8_0")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2 of the book", "llama 3", "qwen3"])
def test_ten_thousand_damaged_files_load_or_are_our_error(tmp_path, tokenizer, kind):
    attack_gguf(tmp_path, tokenizer, kind, N_SLOW)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(n_tensors: int, n_settings: int, body: bytes = b"", *, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_settings) + body


def tensor(name: str, shape: tuple[int, ...], offset: int, *, kind: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


LIES = {
    "no magic": b"GGML" + bytes(20),
    "empty": b"",
    "other version": header(0, 0, version=1),
    "big-endian": header(0, 0, version=3 << 24),
    "endless settings": header(0, 1 << 60),
    "endless tensors": header(1 << 60, 0),
    "endless text": header(0, 1, struct.pack("<Q", 1 << 60)),
    "endless array": header(0, 1, text("a") + struct.pack("<IIQ", 9, 4, 1 << 60)),
    "endless array of texts": header(0, 1, text("a") + struct.pack("<IIQ", 9, 8, 1 << 60)),
    "array of arrays": header(0, 1, text("a") + struct.pack("<IIQ", 9, 9, 1) * 9),
    "unknown kind": header(0, 1, text("a") + struct.pack("<I", 13)),
    "setting twice": header(0, 2, (text("a") + struct.pack("<IB", 0, 1)) * 2),
    "tensor twice": header(2, 0, tensor("a", (2,), 0) * 2) + bytes(64),
    "tensor past the end": header(1, 0, tensor("a", (200,), 0)) + bytes(64),
    "tensor at the end of memory": header(1, 0, tensor("a", (2,), (1 << 64) - 1)) + bytes(64),
    "tensors over each other": header(2, 0, tensor("a", (8,), 0) + tensor("b", (8,), 16)) + bytes(128),
    "shape that overflows": header(1, 0, tensor("a", (1 << 62, 1 << 62), 0)) + bytes(64),
    "shape of zero": header(1, 0, tensor("a", (0,), 0)) + bytes(64),
    "no dimensions": header(1, 0, tensor("a", (), 0)) + bytes(64),
    "many dimensions": header(1, 0, tensor("a", (1,) * 9, 0)) + bytes(64),
    "unknown packing": header(1, 0, tensor("a", (2,), 0, kind=12)) + bytes(64),
    "half a block": header(1, 0, tensor("a", (33,), 0, kind=8)) + bytes(64),
    "odd alignment": header(0, 1, text("general.alignment") + struct.pack("<II", 4, 3)),
    "nothing in it": header(0, 0),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_header_is_our_error(tmp_path, name):
    (tmp_path / "a.gguf").write_bytes(LIES[name])
    with pytest.raises(CheckpointError, match=r"a\.gguf"):
        read_gguf(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("original_context_length", "9" * 200),
        ("factor", "1e300"),
        ("rope_base", "1e300"),
        ("norm_eps", "1e-300"),
        ("context_length", str(1 << 62)),
        ("n_kv_heads", "-1"),
    ],
)
def test_a_number_out_of_all_bounds_in_our_settings_is_our_error(tmp_path, tokenizer, setting, value):
    path = export_gguf(tmp_path / "a.gguf", make_model("llama 3"), tokenizer)
    saved = GGUFFile(path).metadata["scratchlm.config"]
    changed = re.sub(rf'("{setting}": )[^,}}]+', rf"\g<1>{value}", saved)
    assert changed != saved
    data = path.read_bytes().replace(text(saved), text(changed))
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        read_gguf(path)
