"""Qwen 3 under the package's names, held against transformers and tokenizers."""

import pytest
import torch

from scratchlm.book import qwen3
from scratchlm.checkpoints.book import book_state_dict
from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.tokenizers.bpe_trainer import train_bpe

CFG = {
    "vocab_size": 97,
    "context_length": 64,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "hidden_dim": 48,
    "head_dim": 10,
    "qk_norm": True,
    "n_kv_groups": 2,
    "rope_base": 1_000_000.0,
    "dtype": torch.float32,
    "num_experts": 0,
}
IDS = torch.tensor([[5, 96, 0, 17, 3], [1, 2, 3, 4, 5]])


def test_weights_of_hugging_face_give_its_logits():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=10, max_position_embeddings=64, rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}, tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    model = qwen3.Qwen3Model(CFG).eval()
    qwen3.load_weights_into_qwen(model, CFG, theirs.state_dict())
    with torch.no_grad():  # 1e-5: some 100 float32 roundings of 6e-8 on logits of size 1
        torch.testing.assert_close(model(IDS), theirs(IDS).logits, rtol=0, atol=1e-5)


def test_the_package_s_files_load():
    source, model = qwen3.Qwen3Model(CFG), qwen3.Qwen3Model(CFG)
    model.load_state_dict(book_state_dict(source))
    assert model(IDS).equal(source(IDS))


def test_published_sizes_have_their_number_of_parameters():
    with torch.device("meta"):
        small, large = qwen3.Qwen3Model(qwen3.QWEN_CONFIG_06_B), qwen3.Qwen3Model(qwen3.QWEN3_CONFIG_32B)
    # the model cards: 0.6B, of which 0.44B are no embedding; 32.8B, of which 31.2B
    for model, n_millions in ((small, 440), (large, 31_200)):
        embeddings = 2 * model.tok_emb.weight.numel()
        assert round((model.n_parameters() - embeddings) / 1e6) == pytest.approx(n_millions, rel=0.01)


def test_a_mixture_of_experts_is_refused():
    experts = CFG | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    for make in (qwen3.Qwen3Model, qwen3.TransformerBlock, qwen3.MoEFeedForward):
        with pytest.raises(ConfigError, match="must be dense, got num_experts=4"):
            make(experts)


def test_attention_has_heads_of_any_width_and_may_normalise_them():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 32)
    cos, sin = qwen3.compute_rope_params(10, context_length=8)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    for qk_norm in (True, False):
        layer = qwen3.GroupedQueryAttention(32, 4, 2, head_dim=10, qk_norm=qk_norm)
        torch.testing.assert_close(layer(x, mask, cos, sin), layer(x, cos, sin))
        assert (layer.query_norm is not None) is qk_norm


def test_the_norm_is_the_published_formula():
    x = torch.randn(3, 8)
    expected = x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(qwen3.RMSNorm(8)(x), expected)
    with pytest.raises(ConfigError, match="bias=True"):
        qwen3.RMSNorm(8, bias=True)


@pytest.fixture
def file(tmp_path):
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    train_bpe(["the cat sat on the mat, user assistant " * 9], 300, special_tokens=marks).save(
        tmp_path / "tokenizer.json"
    )
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize(
    ("settings", "frame"),
    [
        ({}, "<|im_start|>user\n{}<|im_end|>\n"),
        ({"apply_chat_template": False}, "{}"),
        (
            {"add_generation_prompt": True, "add_thinking": True},
            "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            {"add_generation_prompt": True},
            "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_question_stands_in_qwen_s_frame(file, settings, frame):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = qwen3.Qwen3Tokenizer(file, **settings)
    framed = frame.format("the cat")
    assert tokenizer.decode(tokenizer.encode("the cat")) == framed
    assert tokenizer.encode("the cat") == tokenizers.Tokenizer.from_file(str(file)).encode(framed).ids
    assert tokenizer.encode("the cat", chat_wrapped=False) == tokenizer.encode("the cat", False)


def test_a_special_token_alone_is_its_id(file):
    tokenizer = qwen3.Qwen3Tokenizer(file)
    for token in ("<|im_end|>", "<think>"):
        [id_] = tokenizer.encode(f" {token} ")
        assert tokenizer.decode([id_]) == token


def test_chat_models_end_with_im_end_and_base_models_with_end_of_text(file):
    for repository, end in (("Qwen/Qwen3-0.6B", "<|im_end|>"), ("Qwen/Qwen3-0.6B-Base", "<|endoftext|>")):
        tokenizer = qwen3.Qwen3Tokenizer(file, repo_id=repository)
        assert tokenizer.decode([tokenizer.eos_token_id]) == end
        assert tokenizer.decode([tokenizer.pad_token_id]) == "<|endoftext|>"


def test_a_missing_file_without_a_repository_is_a_tokenizer_error(tmp_path):
    with pytest.raises(TokenizerError, match=r"none\.json"):
        qwen3.Qwen3Tokenizer(tmp_path / "none.json")
