"""Convert Hugging Face's `config.json` to our config and back, refusing settings that would change the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scratchlm.core.config import from_dict, to_dict
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.json_table import JSONTable
from scratchlm.model.config import GPTConfig, RopeScaling

LLAMA_TYPES = ("llama", "mistral", "qwen2", "qwen3")
ARCHITECTURES = {
    "gpt2": "GPT2",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
}
_GELUS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu", "gelu": "gelu_exact"}
OUR_CONFIG = (
    "scratchlm_config"  # our key in their file, for settings that theirs lacks, such as the initialisation
)


def config_from_huggingface(values: Any, *, where: str) -> GPTConfig:
    """Our config for the values of a `config.json`.

    Raises: CheckpointError for an unsupported family, a setting that would change the results, and a missing or
        impossible value.
    """
    kind = JSONTable(values, where=where, error=CheckpointError).get("model_type", str)
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"{where} has model_type {kind!r:.80}, which is not supported; use a model of the families "
            f"{', '.join(ARCHITECTURES)}."
        )
    try:
        read = _gpt2 if kind == "gpt2" else _llama
        config = read(values, where)
        ours = values.get(OUR_CONFIG)
        return config if ours is None else _with_ours(config, ours, where)
    except ConfigError as cause:
        raise CheckpointError(f"{where}: {cause}") from cause


def config_to_huggingface(config: GPTConfig) -> dict[str, Any]:
    """The settings of a `config.json` from which transformers builds the same model.

    Raises: ConfigError naming the setting that fits none of its families.
    """
    values = _as_llama(config) if config.positions == "rotary" else _as_gpt2(config)
    return {**values, "tie_word_embeddings": config.tie_embeddings, OUR_CONFIG: to_dict(config)}


def _gpt2(values: Mapping[str, Any], where: str) -> GPTConfig:
    _refuse(
        values,
        where,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    return GPTConfig(
        vocab_size=_get(values, "vocab_size", 50257),
        context_length=_get(values, "n_positions", values.get("n_ctx", 1024)),
        emb_dim=_get(values, "n_embd", 768),
        n_heads=_get(values, "n_head", 12),
        n_layers=_get(values, "n_layer", 12),
        drop_rate=_get(values, "resid_pdrop", 0.1),
        qkv_bias=True,
        tie_embeddings=_get(values, "tie_word_embeddings", True),
        init="gpt2",
        norm_eps=_get(values, "layer_norm_epsilon", 1e-5),
        feed_forward=_choice(values, "activation_function", _GELUS, "gelu_new", where),
        ff_dim=values.get("n_inner"),
    )


def _llama(values: Mapping[str, Any], where: str) -> GPTConfig:
    kind = values["model_type"]
    _choice(values, "hidden_act", {"silu": "silu", "swish": "silu"}, "silu", where)
    if kind == "mistral" and values.get("sliding_window") is not None:
        _refuse(values, where, sliding_window=None)
    _refuse(values, where, use_sliding_window=False, partial_rotary_factor=1.0)
    table = JSONTable(values, where=where, error=CheckpointError)
    layer_types = table.texts("layer_types")
    if set(layer_types) - {"full_attention"}:
        raise _unsupported(where, "layer_types", layer_types)
    attention_bias = table.get("attention_bias", bool, kind == "qwen2")
    mlp_bias = table.get("mlp_bias", bool, False)
    has_output_bias = attention_bias and kind != "qwen2"
    if has_output_bias != mlp_bias:
        raise _unsupported(where, "attention_bias and mlp_bias", (attention_bias, mlp_bias))
    base, scaling = _rope(values, where)
    return GPTConfig(
        vocab_size=_get(values, "vocab_size"),
        context_length=_get(values, "max_position_embeddings", 2048),
        emb_dim=_get(values, "hidden_size"),
        n_heads=_get(values, "num_attention_heads"),
        n_layers=_get(values, "num_hidden_layers"),
        drop_rate=_get(values, "attention_dropout", 0.0),
        qkv_bias=attention_bias,
        tie_embeddings=_get(values, "tie_word_embeddings", False),
        init="gpt2",
        norm="rms",
        norm_eps=_get(values, "rms_norm_eps", 1e-6),
        positions="rotary",
        rope_base=base,
        rope_scaling=scaling,
        feed_forward="swiglu",
        ff_dim=_get(values, "intermediate_size"),
        n_kv_heads=values.get("num_key_value_heads"),
        head_size=values.get("head_dim") or (128 if kind == "qwen3" else None),
        qk_norm=kind == "qwen3",
        linear_bias=mlp_bias,
    )


def _rope(values: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    table = JSONTable(values, where=where, error=CheckpointError)
    name = "rope_parameters" if values.get("rope_parameters") else "rope_scaling"
    rope = table.table(name)
    base = rope.get("rope_theta", float) or table.get("rope_theta", float, 10000.0)
    kind = rope.get("rope_type", str) or rope.get("type", str, "default")
    if kind not in ("default", "llama3"):
        raise _unsupported(where, "rope_type", kind)
    if kind == "default":
        return base, None
    return base, RopeScaling(
        factor=rope.need("factor", float),
        low_freq_factor=rope.need("low_freq_factor", float),
        high_freq_factor=rope.need("high_freq_factor", float),
        original_context_length=rope.need("original_max_position_embeddings", int),
    )


def _as_gpt2(config: GPTConfig) -> dict[str, Any]:
    _fits(
        config,
        "GPT-2",
        norm="layer",
        feed_forward=("gelu", "gelu_exact"),
        n_kv_heads=(None, config.n_heads),
        head_size=(None, config.emb_dim // config.n_heads),
        qk_norm=False,
        linear_bias=True,
        is_causal=True,
    )
    return {
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_ctx": config.context_length,
        "n_embd": config.emb_dim,
        "n_head": config.n_heads,
        "n_layer": config.n_layers,
        "n_inner": config.ff_dim,
        "activation_function": "gelu_new" if config.feed_forward == "gelu" else "gelu",
        "resid_pdrop": config.drop_rate_of("drop_rate_shortcut"),
        "embd_pdrop": config.drop_rate_of("drop_rate_emb"),
        "attn_pdrop": config.drop_rate_of("drop_rate_attn"),
        "layer_norm_epsilon": config.norm_eps,
    }


def _as_llama(config: GPTConfig) -> dict[str, Any]:
    _fits(config, "Llama", norm="rms", feed_forward="swiglu", is_causal=True)
    if config.qk_norm:
        kind = "qwen3"
        _fits(config, "Qwen 3", linear_bias=False, qkv_bias=False)
    elif config.qkv_bias and not config.linear_bias:
        kind = "qwen2"
        _fits(config, "Qwen 2", head_size=(None, config.emb_dim // config.n_heads))
    else:
        kind = "llama"
        _fits(config, "Llama", linear_bias=config.qkv_bias)
    rope: dict[str, Any] = {"rope_type": "default"}
    if (scaling := config.rope_scaling) is not None:
        rope = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context_length,
        }
    values = {
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.emb_dim,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads or config.n_heads,
        "num_hidden_layers": config.n_layers,
        "intermediate_size": config.feed_forward_dim,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_dropout": config.drop_rate_of("drop_rate_attn"),
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {**rope, "rope_theta": config.rope_base},
        "rope_theta": config.rope_base,  # for transformers 4, as the next
        "rope_scaling": None if config.rope_scaling is None else rope,
    }
    if kind == "llama":
        values |= {"attention_bias": config.qkv_bias, "mlp_bias": config.linear_bias}
    return values


def _with_ours(config: GPTConfig, ours: Any, where: str) -> GPTConfig:
    """Our own record of the config if it agrees with theirs, which somebody may have edited."""
    if not isinstance(ours, dict):
        raise _unsupported(where, OUR_CONFIG, ours)
    recorded = from_dict(GPTConfig, ours, where=f"{where}: {OUR_CONFIG}")
    return recorded if _essence(recorded) == _essence(config) else config


def _essence(config: GPTConfig) -> tuple[object, ...]:
    return (
        config.vocab_size, config.context_length, config.emb_dim, config.n_heads, config.n_layers,
        config.tie_embeddings, config.norm, config.norm_eps, config.positions, config.rope_base,
        config.rope_scaling, config.feed_forward, config.feed_forward_dim, config.head_dim, config.qk_norm,
        config.linear_bias, config.n_kv_heads or config.n_heads, config.drop_rate_of("drop_rate_shortcut"),
        config.is_causal,
    )  # fmt: skip


def _fits(config: GPTConfig, family: str, **wanted: Any) -> None:
    for name, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if getattr(config, name) not in allowed:
            raise ConfigError(
                f"a model of the {family} family has {name} {' or '.join(map(repr, allowed))}, got "
                f"{getattr(config, name)!r}; Hugging Face has no family for this mix: keep it as a model folder."
            )


def _refuse(values: Mapping[str, Any], where: str, **allowed: Any) -> None:
    for name, value in allowed.items():
        if values.get(name, value) not in (value, None):
            raise _unsupported(where, name, values[name])


def _choice(values: Mapping[str, Any], name: str, known: Mapping[str, Any], default: str, where: str) -> Any:
    value = values.get(name, default)
    if not isinstance(value, str) or value not in known:
        raise _unsupported(where, name, value)
    return known[value]


def _get(values: Mapping[str, Any], name: str, default: Any = None) -> Any:
    value = values.get(name, default)
    if value is None:
        raise ConfigError(f"config.json lacks {name}; fetch it again.")
    return value


def _unsupported(where: str, name: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"{where} has {name} = {value!r:.120}, which changes the results and is not supported; use transformers for "
        "this model."
    )
