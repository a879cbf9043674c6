"""Whether the shortcut's spectra are as good as Kokoro's own: ``python -m recipes.mini.spectra_check``.

Harvard sentences, which nothing was trained on, by every speaker: Kokoro's sound; its spectra through the vocoder that
ships; and the shortcut's spectra through the same one.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import soxr
import torch
import typer

from recipes.mini.analysis import pitch_of
from recipes.mini.corpus import prepare
from recipes.mini.kokoro import SAMPLE_RATE
from recipes.mini.sentences import HARVARD
from recipes.mini.spectra import load, spectrum_of
from recipes.mini.speech import VOICES, kokoro
from recipes.mini.train_vocoder import acoustics_of
from wandlib.evaluation.error_rates import error_rates
from wandlib.evaluation.mos import Dnsmos
from wandlib.evaluation.recognizers import FasterWhisper
from wandlib.evaluation.report import markdown_table
from wandlib.systems.mini import features
from wandlib.systems.mini.features import LogMel
from wandlib.systems.mini.system import MiniSystem


@torch.inference_mode()
def main(
    folder: Annotated[Path, typer.Option(help="Where shortcut.pt is.")] = Path("runs/mini"),
    sentences: Annotated[int, typer.Option(help="By every speaker.")] = 4,
) -> None:
    """Print word error rate (Whisper tiny.en) and DNSMOS of each."""
    torch.set_num_threads(1)
    shortcut, vocoder, log_mel = load(folder), MiniSystem.load().vocoder, LogMel()
    recognize, predict = FasterWhisper(threads=1), Dnsmos()
    texts = HARVARD[:sentences] * len(VOICES)
    sounds = defaultdict[str, list[np.ndarray]](list)
    for number, text in enumerate(texts):
        voice = list(VOICES.values())[number // sentences]
        sound = soxr.resample(kokoro().speak(text, voice), SAMPLE_RATE, features.SAMPLE_RATE)
        said = prepare(sound) / np.float32(32768)
        mel, pitch = spectrum_of(shortcut, kokoro().before_sound(text, voice))
        own = acoustics_of(log_mel(torch.from_numpy(said)[None]), torch.from_numpy(pitch_of(said))[None])
        made = acoustics_of(*(torch.from_numpy(part.astype(np.float32))[None] for part in (mel, pitch)))
        sounds["Kokoro"].append(said)
        sounds["its spectra, vocoder"].append(vocoder(own)[0].numpy())
        sounds["the shortcut's, vocoder"].append(vocoder(made)[0].numpy())
    rows = []
    for name, each in sounds.items():
        heard = [recognize(sound, features.SAMPLE_RATE) for sound in each]
        score = np.mean([predict(sound, features.SAMPLE_RATE)["DNSMOS"] for sound in each])
        wer = error_rates(texts, heard, recognize.normalize).wer
        rows.append({"of": name, "WER": f"{wer:.3f}", "DNSMOS": f"{score:.2f}"})
    typer.echo(markdown_table(rows))


if __name__ == "__main__":
    typer.run(main)
