"""The shapes of the paper's systems: what a cost depends on, without weights.

Decoder configurations from the systems' published ones, the sizes of prompt and window from the paper (arXiv
2604.08558): the mean prompt is the one that its cache reductions imply, P = (T - W) / reduction - T.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import GPT2Config, PreTrainedConfig, Qwen2Config


@dataclass(frozen=True)
class Shape:
    """A system as far as costs go."""

    config: PreTrainedConfig
    """Of its causal decoder."""
    conditioning: int
    """Prompt tokens, P."""
    window: int
    """Generated keys that a query sees, W."""
    codes_per_second: int
    """Generated tokens for one second of sound."""


def _qwen2(vocabulary: int) -> Qwen2Config:
    """Qwen2.5-0.5B with another vocabulary."""
    return Qwen2Config(
        vocab_size=vocabulary,
        num_hidden_layers=24,
        hidden_size=896,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
    )


SHAPES = {
    "cosyvoice2": Shape(_qwen2(6564), conditioning=187, window=32, codes_per_second=25),
    "indextts": Shape(
        GPT2Config(
            vocab_size=8194, n_layer=24, n_embd=1280, n_head=20, n_positions=4096, bos_token_id=0, eos_token_id=0
        ),
        conditioning=79,
        window=32,
        codes_per_second=25,
    ),
    "sparktts": Shape(_qwen2(166_000), conditioning=221, window=64, codes_per_second=50),
}
"""Of the paper's three systems. The positions of "indextts" go further than its own, to profile past their end."""
