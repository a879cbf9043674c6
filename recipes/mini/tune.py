"""Choose what is set after training, on held-out sentences of the corpus (not Harvard): about four minutes.

    python -m recipes.mini.tune

``contrast`` sharpens the spectra that the codec's decoder smooths; the temperature is that of the default sampling.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from recipes.mini import analysis
from recipes.mini.corpus import SAMPLE_RATE
from recipes.mini.train_teacher import HELD_OUT_UTTERANCES
from wandlib.metrics import PocketSphinx, error_rates
from wandlib.systems.mini.system import MiniSystem

CONTRASTS = (1.0, 1.25, 1.5)
TEMPERATURES = (0.0, 0.2, 0.35, 0.5)


@torch.inference_mode()
def main(
    folder: Annotated[Path, typer.Option(help="The recipe's folder.")] = Path("runs/mini"),
    assets: Annotated[Path | None, typer.Option(help="Weights; default: the shipped ones.")] = None,
    count: Annotated[int, typer.Option(help="Sentences.")] = 50,
) -> None:
    """Print the CER of the codec by contrast, and of the teacher by temperature."""
    torch.set_num_threads(1)
    system, recognise = MiniSystem.load(assets), PocketSphinx()
    items = analysis.read(folder / "corpus")[:HELD_OUT_UTTERANCES]
    chosen = [item for item in items if 5 <= len(item.utterance.text.split()) <= 14 and item.utterance.seconds > 3][
        :count
    ]
    texts = [item.utterance.text for item in chosen]
    shipped = system.codec.contrast
    for contrast in CONTRASTS:
        system.codec.contrast = contrast
        heard = []
        for item in tqdm(chosen, desc=f"contrast {contrast}", leave=False):
            voice = system.voices[item.utterance.speaker]
            mel, _ = analysis.batch_of([(item, 0)], item.frames)
            codes = system.codec.encode(mel, voice.vector)[0].numpy()
            heard.append(recognise(system.decode(codes, voice), SAMPLE_RATE))
        print(f"codec, contrast {contrast}: CER {error_rates(texts, heard).cer:.3f}")
    system.codec.contrast = shipped
    for temperature in TEMPERATURES:
        heard = []
        for number, item in enumerate(tqdm(chosen, desc=f"temperature {temperature}", leave=False)):
            speech = system.synthesize(texts[number], item.utterance.speaker, temperature=temperature, seed=number)
            heard.append(recognise(speech.waveform, SAMPLE_RATE))
        print(f"teacher, temperature {temperature}: CER {error_rates(texts, heard).cer:.3f}")


if __name__ == "__main__":
    typer.run(main)
