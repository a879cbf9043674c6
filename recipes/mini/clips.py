"""The five clips of docs/audio: ``python -m recipes.mini.clips``, after ``python -m recipes.mini.long_form``.

One sentence by the teacher, by the same weights under the window, and by the student; and the last 20 seconds of the
student's ten minutes in one decode, and of what full attention spoke until it was given up. Vorbis, at most 100 kB
each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from numpy.typing import NDArray

from recipes.mini.evaluate import kept_in
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.system import MiniSystem

HERE = Path(__file__).parents[2] / "docs" / "audio"
TEXT = "Thirty years ago there was nothing here but a narrow road, a few farms, and a wooden bridge."
BYTES = 100_000
BLOCK = 65_536
"""Samples that are written at once: libvorbis puts all of them on the stack."""


def write(path: Path, sound: NDArray[np.float32]) -> None:
    """Write a clip, as good as fits into :data:`BYTES`.

    Raises
    ------
    ValueError
        Where even the worst quality does not fit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for compression in (0.4, 0.6, 0.8, 1.0):
        with soundfile.SoundFile(
            path, "w", SAMPLE_RATE, 1, format="OGG", subtype="VORBIS", compression_level=compression
        ) as file:
            for start in range(0, len(sound), BLOCK):
                file.write(sound[start : start + BLOCK])
        if path.stat().st_size <= BYTES:
            return
    raise ValueError(
        f"{path} has {path.stat().st_size} bytes, of at most {BYTES}: {len(sound) / SAMPLE_RATE:.0f} s of sound"
    )


def ends(folder: Path, assets: Path | None, speaker: str) -> dict[str, NDArray[np.float32]]:
    """Return the last seconds of the ten minutes that student and teacher have spoken, in the voice of a speaker.

    Raises
    ------
    FileNotFoundError
        Where :mod:`recipes.mini.long_form` has not spoken them with these weights.
    """
    found = {}
    for attention, name in (("window", "student"), ("full", "full_attention")):
        paths = sorted(kept_in(folder, assets).glob(f"{attention}-{speaker}-10-*.flac"))
        if not paths:
            raise FileNotFoundError(
                f"no ten minutes by {name} and {speaker} in {folder}: run `python -m recipes.mini.long_form` with "
                "these weights first"
            )
        found[f"ten_minutes_{name}"] = soundfile.read(paths[0], dtype="float32")[0]
    return found


def main(
    assets: Annotated[Path | None, typer.Option(help="Voice folder; default: the shipped one.")] = None,
    folder: Annotated[Path, typer.Option(help="Where long decodes are kept.")] = Path("runs/mini/long_form"),
    target: Annotated[Path, typer.Option(help="Where the clips go.")] = HERE,
    speaker: Annotated[str | None, typer.Option(help="Who speaks; default: the first speaker.")] = None,
) -> None:
    """Write the clips."""
    system, untrained = MiniSystem.load(assets), MiniSystem.load(assets, student=False)
    speaker = speaker or system.speakers[0]
    clips = ends(folder, assets, speaker)
    clips["teacher"] = system.synthesize(TEXT, speaker, "full").waveform
    clips["untrained"] = untrained.synthesize(TEXT, speaker, "window").waveform
    clips["student"] = system.synthesize(TEXT, speaker, "window").waveform
    for name, sound in clips.items():
        write(target / f"{name}.ogg", sound)
        typer.echo(f"{target / name}.ogg: {len(sound) / SAMPLE_RATE:.1f} s")


if __name__ == "__main__":
    typer.run(main)
