"""Start from what is shipped, instead of hours of training: all parts of the voice, and what they learned from.

    python -m recipes.mini shipped

leaves everything in place for the ablation, to train another student (remove ``student/`` first), or to go on with the
teacher. Codec and vocoder need speech to go on with: the stages up to ``aligner``.
"""

from __future__ import annotations

import json
from pathlib import Path

import typer
from safetensors.torch import save_file
from torch import nn

from recipes.mini.encode import STARTED_FROM
from recipes.mini.loop import save
from recipes.mini.spoken import lend
from wandlib.systems.mini.system import ASSETS, MiniSystem


def run(folder: Path, source: Path = ASSETS) -> None:
    """Write the checkpoints of all parts and ``corpus/spoken.npz`` under ``folder``, where they are missing."""
    system = MiniSystem.load(source)
    parts: dict[str, nn.Module] = {
        "codec": system.codec,
        "vocoder": system.vocoder,
        "teacher": system.language_model,
    }
    folder.mkdir(parents=True, exist_ok=True)
    if not any((folder / f"{name}.pt").exists() for name in ("codec", "vocoder")):
        settings = {"codec": system.codec.config, "vocoder": system.vocoder.config}
        (folder / STARTED_FROM).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if not (folder / "teacher.pt").exists():  # the recipe's own may be of another size
        system.language_model.config.save_pretrained(folder / "teacher")
    for name, module in parts.items():
        path = folder / f"{name}.pt"
        if not path.exists():
            weights = {key: value.detach().clone() for key, value in module.named_parameters()}
            save(path, {"model": weights, "average": weights, "step": 0})
    student = folder / "student" / "model.safetensors"
    if (source / "student").is_dir() and not student.exists():
        student.parent.mkdir(parents=True, exist_ok=True)
        weights = {key: value.detach() for key, value in system.models["window"].named_parameters()}
        save_file(weights, student)
    if not lend(system.codec, folder / "corpus"):
        typer.echo(
            f"what the voice in {source} learned from is not kept here; to train with it, make speech and its codes: "
            "`python -m recipes.mini speech hearing corpus analysis pairs shortcut spectra aligner alignment codes`"
        )
