"""The folder Spark-TTS-0.5B, as published: its files and settings.

Licenses: the published code is Apache-2.0; **the weights are CC-BY-NC-SA-4.0**: no commercial use, and whatever is made
of them (a student too) is shared under the same terms, with credit to SparkAudio.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

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


def write_student(model: PreTrainedModel, original: Path, folder: Path) -> None:
    """Write a student as an ``LLM/`` folder that upstream's code reads; it speaks there with full attention.

    All files but the weights are the original's: transformers 5 writes a config whose rotary base older releases
    misread.

    Parameters
    ----------
    model
        The trained language model.
    original
        The published ``LLM/``.
    folder
        Folder to write.
    """
    shutil.copytree(original, folder, dirs_exist_ok=True)
    trained = model.state_dict()
    before = load_file(original / "model.safetensors")
    back = {name: trained[name].to(old).contiguous() for name, old in before.items()}
    save_file(back, folder / "model.safetensors", metadata={"format": "pt"})
