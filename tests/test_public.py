"""The names that users rely on."""

import wandlib


def test_public_names() -> None:
    assert wandlib.__all__ == [
        "DistillationLoss",
        "InputError",
        "Speech",
        "SpeechSystem",
        "Step",
        "StreamCollator",
        "Trace",
        "WandCache",
        "WandCollator",
        "WandTrainer",
        "WandTrainingArguments",
        "WindowCurriculum",
        "attention_flops",
        "attention_mass",
        "cache_bytes",
        "compile_step",
        "convert",
        "full_attention",
        "load",
        "load_system",
        "profile",
        "restore",
        "set_window",
        "skew_kl",
        "streams_of",
        "suggest_blocks",
        "suggest_window",
    ]
    assert [name for name in wandlib.__all__ if not callable(getattr(wandlib, name))] == []
