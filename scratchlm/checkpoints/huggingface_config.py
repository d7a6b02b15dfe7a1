"""Convert Hugging Face's `config.json` to our config and back; unsupported settings are rejected."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from scratchlm.core.config import from_dict, to_dict
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.json_table import JSONTable
from scratchlm.model.config import GPTConfig, RopeScaling

ARCHITECTURES = {"gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
OUR_CONFIG = "scratchlm_config"  # our key in their file, for settings that they do not have
_REQUIRED = object()
_GPT2 = {  # our field -> their setting, its default
    "vocab_size": ("vocab_size", 50257),
    "context_length": ("n_positions", 1024),
    "emb_dim": ("n_embd", 768),
    "n_heads": ("n_head", 12),
    "n_layers": ("n_layer", 12),
    "drop_rate": ("resid_pdrop", 0.1),
    "tie_embeddings": ("tie_word_embeddings", True),
    "norm_eps": ("layer_norm_epsilon", 1e-5),
}
_LLAMA = {
    "vocab_size": ("vocab_size", _REQUIRED),
    "context_length": ("max_position_embeddings", 2048),
    "emb_dim": ("hidden_size", _REQUIRED),
    "n_heads": ("num_attention_heads", _REQUIRED),
    "n_layers": ("num_hidden_layers", _REQUIRED),
    "drop_rate": ("attention_dropout", 0.0),
    "tie_embeddings": ("tie_word_embeddings", False),
    "norm_eps": ("rms_norm_eps", 1e-6),
    "ff_dim": ("intermediate_size", _REQUIRED),
}
_GELUS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu", "gelu": "gelu_exact"}
_OLD_CONTEXT = "original_max_position_embeddings"
_SAME_IN_BOTH = (  # fields in which our own record must agree with theirs
    *("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "tie_embeddings", "norm", "norm_eps"),
    *("positions", "rope_base", "rope_scaling", "feed_forward", "feed_forward_dim", "head_dim", "qk_norm"),
    *("linear_bias", "is_causal"),
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
        config = _from_gpt2(values, where) if kind == "gpt2" else _from_llama(values, where)
        ours = values.get(OUR_CONFIG)
        return config if ours is None else _with_ours(config, ours, where)
    except ConfigError as cause:
        raise CheckpointError(f"{where}: {cause}") from cause


def config_to_huggingface(config: GPTConfig) -> dict[str, Any]:
    """The settings of a `config.json` from which transformers builds the same model.

    Raises: ConfigError naming the setting that fits none of its families.
    """
    values = _to_llama(config) if config.positions == "rotary" else _to_gpt2(config)
    return {**values, OUR_CONFIG: to_dict(config)}


def _from_gpt2(values: Mapping[str, Any], where: str) -> GPTConfig:
    _refuse_unless(values, where, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    _refuse_unless(values, where, add_cross_attention=False)
    activation = _choice(values, "activation_function", _GELUS, "gelu_new", where)
    old_name = {"n_positions": values["n_ctx"]} if "n_ctx" in values else {}
    shared = _fields(old_name | dict(values), _GPT2)
    width = values.get("n_inner")
    return GPTConfig(**shared, qkv_bias=True, init="gpt2", feed_forward=activation, ff_dim=width)


def _from_llama(values: Mapping[str, Any], where: str) -> GPTConfig:
    kind = values["model_type"]
    _choice(values, "hidden_act", {"silu": "silu", "swish": "silu"}, "silu", where)
    if kind == "mistral":
        _refuse_unless(values, where, sliding_window=None)
    _refuse_unless(values, where, use_sliding_window=False, partial_rotary_factor=1.0)
    table = JSONTable(values, where=where, error=CheckpointError)
    layer_types = table.texts("layer_types")
    if set(layer_types) - {"full_attention"}:
        raise _unsupported(where, "layer_types", layer_types)
    attention_bias = table.get("attention_bias", bool, kind == "qwen2")
    mlp_bias = table.get("mlp_bias", bool, False)
    if (attention_bias and kind != "qwen2") != mlp_bias:  # Qwen 2 has no bias in its output projection
        raise _unsupported(where, "attention_bias and mlp_bias", (attention_bias, mlp_bias))
    base, scaling = _from_rope(table)
    return GPTConfig(
        **_fields(values, _LLAMA),
        qkv_bias=attention_bias,
        init="gpt2",
        norm="rms",
        positions="rotary",
        rope_base=base,
        rope_scaling=scaling,
        feed_forward="swiglu",
        n_kv_heads=values.get("num_key_value_heads"),
        head_size=values.get("head_dim") or (128 if kind == "qwen3" else None),
        qk_norm=kind == "qwen3",
        linear_bias=mlp_bias,
    )


def _from_rope(table: JSONTable) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).

    Where a file has both, `rope_scaling` counts, as in transformers.
    """
    rope = table.table("rope_scaling" if table.values.get("rope_scaling") else "rope_parameters")
    base = rope.get("rope_theta", float) or table.get("rope_theta", float, 10000.0)
    kind = rope.get("rope_type", str) or rope.get("type", str, "default")
    if kind not in ("default", "llama3"):
        raise _unsupported(table.where, "rope_type", kind)
    if kind == "default":
        return base, None
    return base, RopeScaling(
        factor=rope.need("factor", float),
        low_freq_factor=rope.need("low_freq_factor", float),
        high_freq_factor=rope.need("high_freq_factor", float),
        original_context_length=rope.need(_OLD_CONTEXT, int),
    )


def _to_gpt2(config: GPTConfig) -> dict[str, Any]:
    _check_family(
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
        **{name: getattr(config, field) for field, (name, _) in _GPT2.items()},
        "n_ctx": config.context_length,
        "n_inner": config.ff_dim,
        "activation_function": "gelu_new" if config.feed_forward == "gelu" else "gelu",
        "resid_pdrop": config.drop_rate_of("drop_rate_shortcut"),
        "embd_pdrop": config.drop_rate_of("drop_rate_emb"),
        "attn_pdrop": config.drop_rate_of("drop_rate_attn"),
    }


def _to_llama(config: GPTConfig) -> dict[str, Any]:
    _check_family(config, "Llama", norm="rms", feed_forward="swiglu", is_causal=True)
    if config.qk_norm:
        kind = "qwen3"
        _check_family(config, "Qwen 3", linear_bias=False, qkv_bias=False)
    elif config.qkv_bias and not config.linear_bias:
        kind = "qwen2"
        _check_family(config, "Qwen 2", head_size=(None, config.emb_dim // config.n_heads))
    else:
        kind = "llama"
        _check_family(config, "Llama", linear_bias=config.qkv_bias)
    rope: dict[str, Any] = {"rope_type": "default"}
    if (scaling := config.rope_scaling) is not None:
        rope = {"rope_type": "llama3", **dataclasses.asdict(scaling)}
        rope[_OLD_CONTEXT] = rope.pop("original_context_length")
    values = {
        "model_type": kind,
        **{name: getattr(config, field) for field, (name, _) in _LLAMA.items()},
        "num_key_value_heads": config.n_kv_heads or config.n_heads,
        "intermediate_size": config.feed_forward_dim,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_dropout": config.drop_rate_of("drop_rate_attn"),
        "rope_parameters": {**rope, "rope_theta": config.rope_base},
        "rope_theta": config.rope_base,  # for transformers 4, as the next
        "rope_scaling": None if scaling is None else rope,
    }
    if kind == "llama":
        values |= {"attention_bias": config.qkv_bias, "mlp_bias": config.linear_bias}
    return values


def _with_ours(config: GPTConfig, ours: Any, where: str) -> GPTConfig:
    """Our own record of the config if it agrees with theirs, which may have been edited."""
    if not isinstance(ours, dict):
        raise _unsupported(where, OUR_CONFIG, ours)
    recorded = from_dict(GPTConfig, ours, where=f"{where}: {OUR_CONFIG}")

    def essence(config: GPTConfig) -> tuple[object, ...]:
        n_kv_heads, drop_rate = config.n_kv_heads or config.n_heads, config.drop_rate_of("drop_rate_shortcut")
        return (*(getattr(config, name) for name in _SAME_IN_BOTH), n_kv_heads, drop_rate)

    return recorded if essence(recorded) == essence(config) else config


def _check_family(config: GPTConfig, family: str, **wanted: Any) -> None:
    for name, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if getattr(config, name) not in allowed:
            raise ConfigError(
                f"a model of the {family} family has {name} {' or '.join(map(repr, allowed))}, got "
                f"{getattr(config, name)!r}; Hugging Face has no family for this mix: keep it as a model folder."
            )


def _refuse_unless(values: Mapping[str, Any], where: str, **allowed: Any) -> None:
    for name, value in allowed.items():
        if values.get(name, value) not in (value, None):
            raise _unsupported(where, name, values[name])


def _choice(values: Mapping[str, Any], name: str, known: Mapping[str, Any], default: str, where: str) -> Any:
    value = values.get(name, default)
    if not isinstance(value, str) or value not in known:
        raise _unsupported(where, name, value)
    return known[value]


def _fields(values: Mapping[str, Any], names: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The fields of our config that their settings give; null is no value."""
    found = {field: values.get(name, default) for field, (name, default) in names.items()}
    for field, value in found.items():
        if value is None or value is _REQUIRED:
            raise ConfigError(f"config.json lacks {names[field][0]}; fetch it again.")
    return found


def _unsupported(where: str, name: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"{where} has {name} = {value!r:.120}, which changes the results and is not supported; use transformers for "
        "this model."
    )
