"""Shapes of the paper's three systems: what a cost depends on, without weights.

Decoder configurations are the systems' published ones, the sizes of prompt and window are the paper's (arXiv
2604.08558): the mean prompt is the one that its cache reductions imply, P = (T - W) / reduction - T. Only the speech
tokens are in the vocabularies of CosyVoice 2 and IndexTTS: text is embedded before decoding starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import GPT2Config, PreTrainedConfig, Qwen2Config


@dataclass(frozen=True)
class Shape:
    """What the costs of a system depend on."""

    name: str
    """Name and version of the system."""
    config: PreTrainedConfig
    """Config of its causal decoder."""
    conditioning: int
    """Number of prompt tokens, P."""
    window: int
    """Generated keys that a query sees, W."""
    codes_per_second: float
    """Generated tokens for one second of sound."""
    beams: int = 1
    """Sequences that the system decodes for one utterance."""

    def steps(self, seconds: float) -> int:
        """Return the number of decoding steps for so many seconds of speech."""
        return round(seconds * self.codes_per_second)


def qwen2_half_billion(vocabulary: int, **changes: Any) -> Qwen2Config:
    """Return the config of Qwen2.5-0.5B with another vocabulary, and what else differs."""
    return Qwen2Config(
        vocab_size=vocabulary,
        num_hidden_layers=24,
        hidden_size=896,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        **changes,
    )


def _gpt2() -> GPT2Config:
    """Return the config of IndexTTS 1.5's decoder, with more positions than its own, to profile past their end."""
    return GPT2Config(
        vocab_size=8194, n_layer=24, n_embd=1280, n_head=20, n_positions=4096, bos_token_id=0, eos_token_id=0
    )


SHAPES = {
    "cosyvoice2": Shape("CosyVoice 2", qwen2_half_billion(6564), 187, window=32, codes_per_second=25.0),
    "indextts": Shape("IndexTTS 1.5", _gpt2(), 79, window=32, codes_per_second=24000 / 1024, beams=3),
    "sparktts": Shape("Spark-TTS", qwen2_half_billion(166_000), 221, window=64, codes_per_second=50.0),
}
"""Shapes of the paper's three systems, by the name of the system in this library."""

PAPER_TOKENS = {"cosyvoice2": 250, "indextts": 250, "sparktts": 500}
"""Generated tokens T for which the paper states its costs, those of 10 s: it counts 25 a second for IndexTTS."""
