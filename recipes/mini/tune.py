"""Choose what is set after training, on held-out sentences of the corpus (not Harvard): about four minutes.

    python -m recipes.mini.tune

``contrast`` sharpens the spectra that the codec's decoder smooths; the temperature is that of the default sampling.
``--references NAME`` compares utterances of a speaker as the built-in reference instead (:data:`export.REFERENCES`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from recipes.mini import analysis
from recipes.mini.corpus import Utterance
from recipes.mini.train_teacher import HELD_OUT_UTTERANCES
from wandlib.evaluation.error_rates import ErrorRates, error_rates
from wandlib.evaluation.recognizers import FasterWhisper
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import clean_reference
from wandlib.systems.mini.system import MiniSystem

CONTRASTS = (1.0, 1.25, 1.5)
TEMPERATURES = (0.0, 0.2, 0.35, 0.5)


CANDIDATES, FINALISTS = 14, 4
"""Utterances of each speaker that might be the built-in reference, and how many of them are heard a second time."""
FIRST, SECOND = slice(0, 10), slice(10, 36)
"""Sentences of the two rounds."""


def sentences_of(folder: Path, count: int) -> list[analysis.Analysed]:
    """Held-out utterances of the corpus to tune on."""
    items = analysis.read(folder / "corpus")[:HELD_OUT_UTTERANCES]
    usual = [item for item in items if 5 <= len(item.utterance.text.split()) <= 14 and item.utterance.seconds > 3]
    return usual[:count]


def compare_references(system: MiniSystem, folder: Path, speakers: list[str]) -> None:
    """Print, for each speaker, how well the teacher is understood with one reference and another, in two rounds.

    The second round is of other sentences: the best of many by a few sentences is partly the luckiest.
    """
    recognize = FasterWhisper(threads=1)
    texts = [item.utterance.text for item in sentences_of(folder, SECOND.stop)]
    held_out = [item.utterance for item in analysis.read(folder / "corpus")[:HELD_OUT_UTTERANCES]]

    def rates(said: Utterance, texts: list[str]) -> ErrorRates:
        system.voices["candidate"] = system.voice_of(clean_reference(said.samples, SAMPLE_RATE))
        heard = [recognize(system.synthesize(text, "candidate").waveform, SAMPLE_RATE) for text in texts]
        return error_rates(texts, heard, recognize.normalize)

    for speaker in speakers:
        candidates = [said for said in held_out if said.speaker == speaker and 4 <= said.seconds <= 8][:CANDIDATES]
        for chosen in (FIRST, SECOND):
            heard = [(rates(said, texts[chosen]), said) for said in tqdm(candidates, desc=speaker, leave=False)]
            heard.sort(key=lambda row: row[0].wer + row[0].cer)
            for found, said in heard:
                print(f"{speaker}: WER {found.wer:.3f}, CER {found.cer:.3f}: {said.text!r}", flush=True)
            candidates = [said for _, said in heard[:FINALISTS]]
            print(flush=True)


@torch.inference_mode()
def main(
    folder: Annotated[Path, typer.Option(help="The recipe's folder.")] = Path("runs/mini"),
    assets: Annotated[Path | None, typer.Option(help="Weights; default: the shipped ones.")] = None,
    count: Annotated[int, typer.Option(help="Sentences.")] = 50,
    references: Annotated[list[str] | None, typer.Option(help="Compare references of this speaker instead.")] = None,
) -> None:
    """Print the CER of the codec by contrast, and of the teacher by temperature."""
    torch.set_num_threads(1)
    system, recognize = MiniSystem.load(assets), FasterWhisper(threads=1)
    if references:
        compare_references(system, folder, references)
        return
    chosen = sentences_of(folder, count)
    texts = [item.utterance.text for item in chosen]
    shipped = system.codec.contrast
    for contrast in CONTRASTS:
        system.codec.contrast = contrast
        heard = []
        for item in tqdm(chosen, desc=f"contrast {contrast}", leave=False):
            voice = system.voices[item.utterance.speaker]
            mel, _ = analysis.batch_of([(item, 0)], item.frames)
            codes = system.codec.encode(mel, voice.vector)[0].numpy()
            heard.append(recognize(system.decode(codes, voice), SAMPLE_RATE))
        print(f"codec, contrast {contrast}: CER {error_rates(texts, heard, recognize.normalize).cer:.3f}")
    system.codec.contrast = shipped
    for temperature in TEMPERATURES:
        heard = []
        for number, item in enumerate(tqdm(chosen, desc=f"temperature {temperature}", leave=False)):
            speech = system.synthesize(texts[number], item.utterance.speaker, temperature=temperature, seed=number)
            heard.append(recognize(speech.waveform, SAMPLE_RATE))
        print(f"teacher, temperature {temperature}: CER {error_rates(texts, heard, recognize.normalize).cer:.3f}")


if __name__ == "__main__":
    typer.run(main)
