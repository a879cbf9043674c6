"""The folder Spark-TTS-0.5B, as published: its files and settings.

Licenses: the published code is Apache-2.0; **the weights are CC-BY-NC-SA-4.0**: no commercial use, and whatever is made
of them (a student too) is shared under the same terms, with credit to SparkAudio.
"""

from __future__ import annotations

from wandlib.systems.published import Layout

WAV2VEC = "wav2vec2-large-xlsr-53"

LAYOUT = Layout(
    system="Spark-TTS",
    repository="SparkAudio/Spark-TTS-0.5B",
    files=(
        "config.yaml",
        "LLM/config.json",
        "LLM/model.safetensors",
        "LLM/tokenizer.json",
        "LLM/tokenizer_config.json",
        "BiCodec/config.yaml",
        "BiCodec/model.safetensors",
        f"{WAV2VEC}/config.json",
        f"{WAV2VEC}/preprocessor_config.json",
        f"{WAV2VEC}/pytorch_model.bin",
    ),
)
