"""Tiny random models of every decoder that transformers registers for causal language modeling.

Configs are shrunk by the names of their fields. A feature that decides whether a window can be applied (layers of
several kinds, ALiBi, cross-attention, an encoder that may be a decoder) gives a family a variant of its own.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY, LAYERS, SLIDING = 97, 3, 12

SIZES: list[tuple[Any, str]] = [
    (VOCABULARY, "vocab_size vocab_size_per_layer_input pronunciation_vocab_size shape_vocab_size audio_vocab_size"),
    (
        32,
        "hidden_size d_model n_embd dim emb_dim embedding_size word_embed_proj_dim input_embedding_size lru_width "
        "output_embedding_size pronunciation_embed_dim shape_embed_dim embedding_dim router_hidden_size ple_embed_dim "
        "attention_hidden_size linear_hidden_size mamba_d_ssm hc_lowrank moe_latent_size",
    ),
    (
        64,
        "intermediate_size n_inner ffn_dim dff dim_ff ffn_hidden_size d_inner decoder_ffn_dim encoder_ffn_dim "
        "intermediate_size_mlp dense_intermediate_size shared_intermediate_size prompt_mid_dim feed_forward_size "
        "prefix_dense_intermediate_size",
    ),
    (
        16,
        "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size kv_lora_rank "
        "expert_ffn_hidden_size moe_shared_expert_intermediate_size q_lora_rank o_lora_rank "
        "hidden_size_per_layer_input laurel_rank mamba_d_state ssm_state_size state_size "
        "adapter_rank loop_gate_rank rel_extent gated_norm_rank",
    ),
    (
        LAYERS,
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_encoder_layers "
        "num_decoder_layers num_blocks",
    ),
    (
        4,
        "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads encoder_attention_heads "
        "num_encoder_attention_heads num_decoder_attention_heads num_experts n_routed_experts num_local_experts "
        "swa_num_attention_heads index_n_heads linear_num_value_heads mamba_n_heads mamba_num_heads n_mamba_heads "
        "linear_num_heads num_experts_total",
    ),
    (
        2,
        "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_experts_per_tok moe_topk "
        "num_experts_per_token moe_k top_k_experts n_groups mamba_n_groups mamba_ngroups o_groups swa_num_kv_heads "
        "num_global_key_value_heads num_query_groups",
    ),
    (1, "n_group topk_group num_expert_group n_shared_experts num_shared_experts moe_num_shared_experts"),
    (
        8,
        "head_dim v_head_dim qk_rope_head_dim qk_nope_head_dim swa_head_dim swa_v_head_dim attention_head_size "
        "linear_key_head_dim linear_value_head_dim index_head_dim index_topk kv_channels d_head dim_head "
        "linear_head_dim global_head_dim query_pre_attn_scalar mamba_d_head mamba_head_dim mamba_dt_rank "
        "attention_head_dim mamba_headdim time_step_rank d_rel",
    ),
    (4, "rotary_dim moe_num_experts"),
    (256, "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions model_max_length"),
    (SLIDING, "sliding_window sliding_window_size window_size attention_window_size local_attention keep_window_size"),
    (0.0, "attention_dropout dropout activation_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop emb_pdrop"),
    (0.0, "hidden_dropout_prob attention_probs_dropout_prob residual_dropout embedding_dropout resid_dropout"),
    (0.0, "embed_dropout dropout_p mlp_dropout layerdrop decoder_layerdrop local_attention_probs_dropout_prob"),
    (0, "pad_token_id first_k_dense_replace num_dense_layers moe_layer_start_index"),
]
SMALL = {name: value for value, names in SIZES for name in names.split()}


def fields_of(config: type[PreTrainedConfig]) -> dict[str, Any]:
    """Return the fields of a config class with their defaults."""
    named = {f.name: f.default for f in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else {}
    return named | {n: p.default for n, p in inspect.signature(config.__init__).parameters.items()}


def small(name: str, default: Any) -> Any:
    """Return a small value for a field of a config; ``default`` where it need not be small."""
    if name in SMALL:
        value = SMALL[name]
        return int(value) if isinstance(default, int) and value == 0.0 else value
    if name.endswith("_token_id") and isinstance(default, int):
        return min(default, 1)
    return default


def layer_kinds(kinds: list[str]) -> list[str]:
    """Return as many layers as a tiny model has, of the kinds that the default config has, in turn."""
    distinct = list(dict.fromkeys(kinds))
    return [distinct[layer % len(distinct)] for layer in range(LAYERS)]


def shrink(config: type[PreTrainedConfig], **changes: Any) -> PreTrainedConfig:
    """Build a config with every size made small."""
    name = config.model_type
    corrections = dict(CORRECTIONS.get(name, {}))
    values = {field: small(field, default) for field, default in fields_of(config).items()}
    values = {field: value for field, value in values.items() if value is not fields_of(config)[field]}
    if "kv_lora_rank" in fields_of(config):
        values["num_key_value_heads"] = 4  # each head has keys of its own
    if config.sub_configs or "layer_types" in fields_of(config):
        default = config(**DEFAULTS.get(name, {}))
        for sub in config.sub_configs:
            if isinstance(given := getattr(default, sub, None), PreTrainedConfig):
                values[sub] = shrink(type(given), **corrections.pop(sub, {}))
        if kinds := getattr(default, "layer_types", None):
            values["layer_types"] = layer_kinds(kinds)
    return config(**values | corrections | changes)


DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {
        "text_config": {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    },
}
"""What a config needs where it cannot be made with nothing given."""
CORRECTIONS: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_d_head": 16, "attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 97},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 64},
    },
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_output_size": 32},
    "dots3_note_vision_encoder": {"pyramid_num_routed": [-1] * LAYERS, "adapter_in_dim": 32, "adapter_out_dim": 32},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "gemma3n_text": {"num_kv_shared_layers": 1, "layer_types": ["sliding_attention", *["full_attention"] * 2]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1], [["global"], 1]]},
    "granitemoehybrid": {"mamba_d_head": 16},
    "inkling2_text": {"unpadded_vocab_size": VOCABULARY},
    "inkling2_loop_text": {"unpadded_vocab_size": VOCABULARY},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"head_dim": 16},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "layer_types": ["linear_attention", "indexed_attention", "full_attention"],
    },
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "lsh", "local"],
        "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [16, 16],
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}


@dataclass(frozen=True)
class Family:
    """One model class in one variant."""

    type: str
    """Its model type."""
    name: str
    """The class."""
    variant: str
    changes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.type}-{self.name}" + (f"-{self.variant}" if self.variant else "")

    def build(self) -> PreTrainedModel:
        """Build it with eager attention, no dropout and spread weights."""
        config = CONFIG_MAPPING[self.type]
        model = MODEL_FOR_CAUSAL_LM_MAPPING[config]
        if isinstance(model, tuple):
            model = model[0]
        small = shrink(config, **self.changes)
        if not isinstance(small, model.config_class):
            small = small.get_text_config(decoder=True)
        small._attn_implementation = "eager"
        torch.manual_seed(0)
        return spread(model(small)).eval()


def spread(model: PreTrainedModel) -> PreTrainedModel:
    """Draw matrices so large that attention is uneven: else a window changes nothing."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.25
    return model


def variants(config: type[PreTrainedConfig]) -> Iterator[tuple[str, dict[str, Any]]]:
    """List the features of a config that decide whether a window can be applied, each with its value."""
    fields = fields_of(config)
    default = config(**DEFAULTS.get(config.model_type, {}))
    yield "", {}
    if "is_decoder" in fields and not default.is_encoder_decoder:
        yield "is_decoder", {"is_decoder": True}
    if "alibi" in fields:
        yield "alibi", {"alibi": True}
    if isinstance(crossed := fields.get("add_cross_attention"), bool):
        yield f"add_cross_attention={not crossed}", {"add_cross_attention": not crossed, "is_decoder": True}
    if fields.get("attention_type") == "block_sparse" and not default.is_encoder_decoder:
        yield "original_full", {"attention_type": "original_full", "is_decoder": True}
    if fields.get("num_kv_shared_layers"):
        yield "no shared keys", {"num_kv_shared_layers": 0}
    if "use_sliding_window" in fields:
        yield "sliding", {"use_sliding_window": True, "max_window_layers": 1}
    if "layer_types" in fields and set(default.layer_types or ()) - {"full_attention", "sliding_attention"}:
        yield "full attention", {"layer_types": ["full_attention"] * LAYERS}
    if "attention_types" in fields:
        yield "global", {"attention_types": [[["global"], LAYERS]]}


def families() -> Iterator[Family]:
    """List every class that is registered, in every variant."""
    for model_type, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        try:
            found = list(variants(CONFIG_MAPPING[model_type]))
        except Exception:
            found = [("", {})]
        for variant, changes in found:
            yield Family(model_type, name, variant, changes)
