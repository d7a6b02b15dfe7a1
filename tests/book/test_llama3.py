"""Llama 3 under the package's names, held against transformers."""

import base64

import pytest
import torch
from torch import nn

from scratchlm.book import llama3
from scratchlm.book.llama_family import default_dtype
from scratchlm.checkpoints.book import book_state_dict
from scratchlm.core.errors import CheckpointError, ConfigError, TokenizerError
from scratchlm.model.gpt import GPTModel

CFG = {
    "vocab_size": 97,
    "context_length": 64,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "hidden_dim": 48,
    "n_kv_groups": 2,
    "rope_base": 500_000.0,
    "rope_freq": {
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_context_length": 16,
    },
    "dtype": torch.float32,
}
IDS = torch.tensor([[5, 96, 0, 17, 3], [1, 2, 3, 4, 5]])


def test_it_is_our_model_with_the_names_of_the_package():
    model = llama3.Llama3Model(CFG)
    assert isinstance(model, GPTModel)
    assert (model.cfg, model(in_idx=IDS).shape) == (CFG, (2, 5, 97))
    assert llama3.Llama3ModelFast is llama3.Llama3Model


def test_weights_of_hugging_face_give_its_logits():
    transformers = pytest.importorskip("transformers")
    scaling = {"rope_type": "llama3", "rope_theta": CFG["rope_base"], **CFG["rope_freq"]}
    scaling["original_max_position_embeddings"] = scaling.pop("original_context_length")
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, rope_parameters=scaling,
            tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    model = llama3.Llama3Model(CFG).eval()
    llama3.load_weights_into_llama(model, CFG, theirs.state_dict())
    with torch.no_grad():  # 1e-5: some 100 float32 roundings of 6e-8 on logits of size 1
        torch.testing.assert_close(model(IDS), theirs(IDS).logits, rtol=0, atol=1e-5)


def test_without_a_head_of_its_own_the_embedding_is_the_head(capsys):
    source = llama3.Llama3Model(CFG)
    names = {"tok_emb.weight": "embed_tokens.weight", "final_norm.scale": "norm.weight"}
    parts = {
        "att.W_query": "self_attn.q_proj",
        "att.W_key": "self_attn.k_proj",
        "att.W_value": "self_attn.v_proj",
    }
    parts |= {"att.out_proj": "self_attn.o_proj", "ff.gate": "mlp.gate_proj", "ff.up": "mlp.up_proj"}
    parts |= {"ff.down": "mlp.down_proj"}
    for i in range(2):
        names |= {
            f"trf_blocks.{i}.{ours}.weight": f"layers.{i}.{theirs}.weight" for ours, theirs in parts.items()
        }
        names[f"trf_blocks.{i}.norm1.scale"] = f"layers.{i}.input_layernorm.weight"
        names[f"trf_blocks.{i}.norm2.scale"] = f"layers.{i}.post_attention_layernorm.weight"
    params = {f"model.{names[name]}": tensor for name, tensor in source.state_dict().items() if name in names}
    model = llama3.Llama3Model(CFG)
    llama3.load_weights_into_llama(model, CFG, params)
    assert model.out_head.weight is model.tok_emb.weight
    assert capsys.readouterr().out == "Model uses weight tying.\n"
    params.pop("model.norm.weight")
    with pytest.raises(CheckpointError, match=r"missing: final_norm\.scale"):
        llama3.load_weights_into_llama(model, CFG, params)


def test_a_seed_gives_the_weights_in_the_package_s_order_and_number_type():
    torch.manual_seed(7)
    model = llama3.Llama3Model(CFG | {"n_layers": 1, "dtype": torch.bfloat16})
    torch.manual_seed(7)
    with default_dtype(torch.bfloat16):
        embedding = nn.Embedding(97, 32)
        key, value, query = (nn.Linear(32, width, bias=False) for width in (16, 16, 32))
    att = model.trf_blocks[0].att
    pairs = [(model.tok_emb, embedding), (att.W_key, key), (att.W_value, value), (att.W_query, query)]
    assert all(ours.weight.equal(theirs.weight) for ours, theirs in pairs)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_the_package_s_files_load():
    source, model = llama3.Llama3Model(CFG), llama3.Llama3Model(CFG)
    model.load_state_dict(book_state_dict(source) | {"cos": torch.ones(2)})
    assert model(IDS).equal(source(IDS))


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="lacks hidden_dim, n_kv_groups, its keys are"):
        llama3.Llama3Model(
            {key: value for key, value in CFG.items() if key not in ("hidden_dim", "n_kv_groups")}
        )


@pytest.mark.parametrize("shape", [(8, 8), (1, 1, 8, 8)])
def test_attention_and_block_read_with_the_package_s_mask_as_without(shape):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 32)
    cos, sin = llama3.compute_rope_params(8, theta_base=50_000, context_length=8)
    mask = torch.ones(8, 8, dtype=torch.bool).triu(1).view(shape)
    for layer in (llama3.GroupedQueryAttention(32, 32, 4, 2), llama3.TransformerBlock(CFG)):
        torch.testing.assert_close(layer(x, mask, cos, sin), layer(x, cos, sin))


def test_the_feed_forward_layer_has_the_package_s_names():
    layer = llama3.FeedForward({"emb_dim": 6, "hidden_dim": 10, "dtype": torch.float64})
    x = torch.randn(1, 2, 6, dtype=torch.float64)
    expected = layer.fc3(nn.functional.silu(layer.fc1(x)) * layer.fc2(x))
    torch.testing.assert_close(layer(x), expected)


def test_rotation_keeps_lengths_and_the_first_position():
    cos, sin = llama3.compute_rope_params(8, context_length=5, freq_config=CFG["rope_freq"])
    x = torch.randn(1, 2, 5, 8)
    rotated = llama3.apply_rope(x, cos, sin)
    assert rotated[:, :, 0].equal(x[:, :, 0])
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))
    with pytest.raises(ConfigError, match="even head size, got 7"):
        llama3.compute_rope_params(7)


@pytest.fixture
def tokenizer(tmp_path) -> llama3.Llama3Tokenizer:
    tokens = [bytes([byte]) for byte in range(256)] + [b"us", b"er", b"user"]
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens))
    (tmp_path / "tokenizer.model").write_text("\n".join(lines))
    return llama3.Llama3Tokenizer(tmp_path / "tokenizer.model")


def test_the_tokenizer_marks_beginning_and_end_where_wanted(tokenizer):
    assert tokenizer.encode("user", bos=True, eos=True) == [128000, 258, 128001]
    assert tokenizer.decode(tokenizer.encode("Ünd 1234")) == "Ünd 1234"
    assert (len(tokenizer.special), tokenizer.special["<|reserved_255|>"]) == (258, 128257)


def test_a_special_token_in_a_message_is_text_unless_allowed(tokenizer):
    assert 128009 not in tokenizer.encode("<|eot_id|>")
    assert tokenizer.encode("<|eot_id|>", allowed_special={"<|eot_id|>"}) == [128009]


def test_a_chat_has_the_frame_of_the_model_card(tokenizer):
    chat = llama3.ChatFormat(tokenizer, default_system="er")
    ids = chat.encode("us")
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    asked = f"{header.format('system')}er<|eot_id|>{header.format('user')}us<|eot_id|>{header.format('assistant')}"
    assert chat.decode(ids) == f"<|begin_of_text|>{asked}"
    assert [id_ for id_ in ids if id_ >= 128000].count(128009) == 2
    assert llama3.clean_text(chat.decode(ids) + " Hello. ") == "Hello."
    assert llama3.clean_text("no header") == "no header"


ALL_BYTES = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"IQ==",
        b"IQ== x",
        b"\xff 1",
        ALL_BYTES[:-10],
        ALL_BYTES + b"IQ==",
        ALL_BYTES + b"dXM= 7",
        b"IQ== 1",
    ],
    ids=range(8),
)
def test_a_file_of_another_kind_is_a_tokenizer_error(tmp_path, text):
    (tmp_path / "tokenizer.model").write_bytes(text)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        llama3.Llama3Tokenizer(tmp_path / "tokenizer.model")
    with pytest.raises(TokenizerError, match="none"):
        llama3.Llama3Tokenizer(tmp_path / "none")
