"""Kokoro's spectra without its sound: most of what codec and language models learn from, in a tenth of the time.

Nearly all of Kokoro's work is its generator, which makes 24,000 samples a second of 80 vectors, a pitch and a style.
The codec and the language models hear mel spectra and pitch alone, and a small network can read those off the vectors:
the shortcut. It learns from speech whose sound there is (stages pairs and shortcut). Then the jobs that follow those of
the speech are not spoken, but become shards of the corpus that have spectra and no sound (stage spectra).

Trained for 9 minutes on 36 minutes of speech, it gave four Harvard sentences by each of the eight speakers the WER .077
and DNSMOS 3.10, where Kokoro's own spectra through the same vocoder had .074 and 3.09, and its sound .074 and 3.29
(``python -m recipes.mini.spectra_check``).
"""

from __future__ import annotations

import functools
import itertools
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from recipes.mini.analysis import pitch_of
from recipes.mini.corpus import DETAILS
from recipes.mini.files import whole, write_json
from recipes.mini.kokoro import INSIDE_RATE, SAMPLE_RATE, Inside
from recipes.mini.loop import autocast, join, train
from recipes.mini.pool import each
from recipes.mini.sentences import HARVARD
from recipes.mini.speech import PER_SHARD, VOICES, Job, finished, jobs, keeps_pace, kokoro, shards
from recipes.mini.texts import passages
from wandlib.systems.mini import features
from wandlib.systems.mini.features import BANDS, FRAMES_PER_CODE, HOP, MEAN, SCALE, LogMel
from wandlib.systems.mini.layers import ConvNeXt
from wandlib.systems.mini.reference import LEVEL, loud_part

FRAMES_A_SECOND = features.SAMPLE_RATE // HOP
VOICED_HZ = 10.0
"""Kokoro's pitch is above this where it is voiced."""
CROP = 96
"""Vectors of Kokoro that are learned from at once: 1.2 s, whole frames of the spectrum."""
BATCH = 24
HELD_OUT = 0.05
"""Share of the pairs that only validation sees."""


class Shortcut(nn.Module):
    """Vectors, pitch and style of Kokoro to mel spectrum and voicing."""

    def __init__(self, hidden: int = 512, style: int = 256, width: int = 256, layers: int = 5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.enter = nn.Linear(hidden + 2, width)
        self.blocks = nn.ModuleList([ConvNeXt(width, condition=style) for _ in range(layers)])
        self.leave = nn.Linear(width, BANDS + 1)

    def forward(
        self,
        hidden: Float[Tensor, "batch vectors 512"],
        pitch: Float[Tensor, "batch vectors"],
        style: Float[Tensor, "batch 256"],
    ) -> tuple[Float[Tensor, "batch frames 80"], Float[Tensor, "batch frames"]]:
        """Return the normalized log-mel spectrum at Kokoro's own level, and logits of voicing; 5 frames of 4."""
        voiced = (pitch > VOICED_HZ).to(hidden.dtype)
        told = torch.stack((voiced, voiced * (pitch.clamp_min(VOICED_HZ) / 150).log()), -1)
        out = self.enter(torch.cat((self.norm(hidden), told), -1))
        out = at_frames(out.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            out = block(out, style)
        out = self.leave(out)
        return out[..., :BANDS], out[..., BANDS]


def at_frames(values: Float[Tensor, "batch channels vectors"]) -> Float[Tensor, "batch channels frames"]:
    """Interpolate from Kokoro's 80 vectors a second to the 100 frames of the spectrum, center to center."""
    frames = values.shape[-1] * FRAMES_A_SECOND // INSIDE_RATE
    return nn.functional.interpolate(values, frames, mode="linear", align_corners=False)


@dataclass(frozen=True)
class Pair:
    """What Kokoro was told, and the spectrum of what it said; where silence was cut, ``heard`` is not set."""

    hidden: NDArray[np.float16]
    pitch: NDArray[np.float32]
    style: NDArray[np.float32]
    mel: NDArray[np.float16]
    voiced: NDArray[np.bool_]
    heard: NDArray[np.bool_]


def pair_of(inside: Inside, sound: NDArray[np.float32], cut: int) -> Pair:
    """Put speech, in samples at 24 kHz, beside what it was made from; ``cut`` samples came before it."""
    vectors = len(inside.hidden) // 4 * 4
    whole = np.zeros(vectors * SAMPLE_RATE // INSIDE_RATE, np.float32)
    end = min(len(whole), cut + len(sound))
    whole[cut:end] = sound[: end - cut]
    said = soxr.resample(whole, SAMPLE_RATE, features.SAMPLE_RATE)
    frames = vectors * FRAMES_A_SECOND // INSIDE_RATE
    mel = _log_mel()(torch.from_numpy(said)[None])[0, :frames]
    heard = np.zeros(frames, bool)
    margin = 3  # a spectrum's window reaches 2.5 frames beyond its own
    heard[cut * FRAMES_A_SECOND // SAMPLE_RATE + margin : end * FRAMES_A_SECOND // SAMPLE_RATE - margin] = True
    return Pair(
        inside.hidden[:vectors].astype(np.float16),
        inside.pitch[:vectors].astype(np.float32),
        inside.style,
        mel.half().numpy(),
        pitch_of(said)[:frames] > 0,
        heard,
    )


def collect(job: tuple[Path, Path]) -> None:
    """Write the pairs of one shard of speech."""
    source, folder = job
    torch.set_num_threads(1)
    sound, _ = soundfile.read(source, dtype="float32")
    pairs = []
    for entry in json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))["utterances"]:
        if "cut" in entry:
            inside = kokoro().before_sound(entry["text"], VOICES[entry["speaker"]], entry["speed"])
            pairs.append(pair_of(inside, sound[entry["start"] : entry["end"]], entry["cut"]))
    stored = {f"{n}.{name}": value for n, pair in enumerate(pairs) for name, value in vars(pair).items()}
    with whole(folder / f"{source.stem}.npz") as partial:
        np.savez(partial, **stored)  # type: ignore[arg-type]  # numpy's stubs take the names for options


def pairs(speech: Path, folder: Path, workers: int = 2, hours: float = 2.0) -> None:
    """Write ``folder/pairs`` for the first ``hours`` of speech; what is there is kept."""
    target = folder / "pairs"
    target.mkdir(parents=True, exist_ok=True)
    sources, seconds = [], 0.0
    for source in shards(speech):
        if seconds < 3600 * hours:
            sources.append(source)
            seconds += soundfile.info(source).duration
    todo = [(source, target) for source in sources if not (target / f"{source.stem}.npz").exists()]
    list(each(collect, todo, workers, "pairs"))


def read_pairs(folder: Path) -> list[Pair]:
    """Every pair under ``folder/pairs`` that is long enough for a crop."""
    found = []
    for path in sorted((folder / "pairs").glob("[0-9][0-9][0-9][0-9].npz")):
        with np.load(path) as stored:
            for number in range(len(stored.files) // 6):
                pair = Pair(*(stored[f"{number}.{name}"] for name in Pair.__dataclass_fields__))
                if len(pair.hidden) >= CROP:
                    found.append(pair)
    return found


def sample(found: list[Pair], seed: int, batch: int = BATCH) -> tuple[Tensor, ...]:
    """(hidden, pitch, style, mel, voiced, heard) of random crops that ``seed`` determines."""
    rng = random.Random(seed)
    rows = []
    for pair in rng.choices(found, [len(pair.hidden) for pair in found], k=batch):
        start = 4 * rng.randrange((len(pair.hidden) - CROP) // 4 + 1)
        vectors = slice(start, start + CROP)
        frames = slice(5 * start // 4, 5 * (start + CROP) // 4)
        parts = (pair.hidden[vectors], pair.pitch[vectors], pair.style)
        rows.append((*parts, pair.mel[frames], pair.voiced[frames], pair.heard[frames]))
    return tuple(torch.from_numpy(np.stack(part).astype(np.float32)) for part in zip(*rows, strict=True))


def losses(model: Shortcut, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Absolute and squared error of the mel spectrum, and voicing, where there is sound; "loss" is their sum."""
    hidden, pitch, style, mel, voiced, heard = batch
    with autocast():
        made, voicing = model(hidden, pitch, style)
    error = (made.float() - mel) * heard.unsqueeze(-1)
    count = heard.sum().clamp_min(1)
    absolute, squared = error.abs().sum() / count / BANDS, error.square().sum() / count / BANDS
    wrong = nn.functional.binary_cross_entropy_with_logits(voicing.float(), voiced, heard, reduction="sum") / count
    return {"loss": absolute + 0.5 * squared + 0.15 * wrong, "mel": absolute, "voicing": wrong}


def run(folder: Path, total_steps: int, seconds: float | None = None) -> Shortcut:
    """Train the shortcut, or go on where ``folder/shortcut.pt`` stands; returns the averaged model."""
    world, rank = join()
    torch.manual_seed(0)
    found = read_pairs(folder)
    if not found:
        raise FileNotFoundError(f"no pairs in {folder / 'pairs'}: run `python -m recipes.mini pairs` first")
    apart = max(1, round(HELD_OUT * len(found)))
    model = Shortcut(found[0].hidden.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    held_out = [sample(found[:apart], 10_000_000 + number) for number in range(4)]

    def step(number: int) -> dict[str, Tensor]:
        return losses(model, sample(found[apart:] or found, number * world + rank))

    def validate() -> dict[str, float]:
        rows = [losses(model, batch) for batch in held_out]
        return {key: sum(float(row[key]) for row in rows) / len(rows) for key in rows[0]}

    train("shortcut", folder, model, [optimizer], step, total_steps, validate, hold=0.3, every=100, seconds=seconds)
    return model.eval()


def load(folder: Path) -> Shortcut:
    """Load the averaged weights of ``folder/shortcut.pt``."""
    weights = torch.load(folder / "shortcut.pt", weights_only=True)["average"]
    model = Shortcut(len(weights["norm.weight"]))
    model.load_state_dict(weights)
    return model.eval()


def loudness(mel: Float[Tensor, "frames 80"]) -> NDArray[np.float32]:
    """Root mean square of each frame's sound, by its mel spectrum: exact for noise, [frames]."""
    analysis = _log_mel()
    magnitudes = (mel * SCALE + MEAN).exp() / analysis.filters.sum(1)
    bins = (analysis.filters > 0).sum(1) / 2  # neighboring filters overlap by half
    power = (bins * magnitudes.square()).sum(1) * 4 / np.pi  # the mean magnitude of noise, squared, is pi / 4 of it
    return (2 * power / features.FFT / analysis.taper.square().sum()).sqrt().numpy()


@torch.inference_mode()
def spectrum_of(model: Shortcut, inside: Inside) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """(mel, pitch in Hz) as analysis would have it of the utterance: silence cut, leveled, padded to whole codes."""
    vectors = len(inside.hidden) // 4 * 4
    pitch = torch.from_numpy(inside.pitch[:vectors])
    hidden, style = torch.from_numpy(inside.hidden[:vectors]), torch.from_numpy(inside.style)
    mel, voicing = (each[0].float() for each in model(hidden[None], pitch[None], style[None]))
    voiced = (pitch > VOICED_HZ).float()
    # Interpolated where voiced alone, or the pitch would slide to zero.
    hz = at_frames((pitch * voiced)[None, None])[0, 0] / at_frames(voiced[None, None])[0, 0].clamp_min(1e-3)
    hz = torch.where((voicing > 0) & (hz > 0), hz, 0.0)
    loud = loudness(mel)
    part = loud_part(loud)
    mel, hz = mel[part], hz[part]
    if not len(mel):
        return np.zeros((0, BANDS), np.float16), np.zeros(0, np.float16)
    gain = LEVEL / float(np.sqrt((loud[part] ** 2).mean()))
    floor = (np.log(features.FLOOR) - MEAN) / SCALE
    mel = (mel + np.log(gain) / SCALE).clamp_min(floor)
    missing = -len(mel) % FRAMES_PER_CODE
    mel = nn.functional.pad(mel, (0, 0, 0, missing), value=float(floor))
    return mel.half().numpy(), nn.functional.pad(hz, (0, missing)).half().numpy()


@functools.cache
def _log_mel() -> LogMel:
    return LogMel()


@functools.cache
def _loaded(folder: Path) -> Shortcut:
    torch.set_num_threads(1)
    return load(folder)


def write_spectra(job: tuple[Path, Path, int, list[Job]]) -> None:
    """Write one shard of spectra."""
    folder, corpus, index, batch = job
    entries, mels, pitches, position = [], [], [], 0
    for one in batch:
        try:
            inside = kokoro().before_sound(one.text, VOICES[one.speaker], one.speed)
        except ValueError:  # too many phones, or none
            continue
        mel, pitch = spectrum_of(_loaded(folder), inside)
        if not len(mel) or not keeps_pace(one, len(mel) / FRAMES_A_SECOND):
            continue
        details = {name: value for name, value in asdict(one).items() if name in DETAILS}
        end = position + len(mel) * HOP
        entries.append({"text": one.text, "speaker": one.speaker, "start": position, "end": end} | details)
        mels.append(mel)
        pitches.append(pitch)
        position = end
    write_json(corpus / f"{index:04d}.json", entries)
    # The spectrum goes last: a shard counts as done when it is there.
    for kind, rows in (("pitch", pitches), ("mel", mels)):
        with whole(corpus / f"{index:04d}.{kind}.npy") as partial:
            np.save(partial, np.concatenate(rows))


def build(speech: Path, folder: Path, corpus: Path, hours: float, workers: int = 2, seed: int = 0) -> None:
    """Bring the corpus to ``hours`` by shards of spectra, where the speech ends; shards that are there are kept."""
    first, seconds = finished(speech)
    every = jobs(passages(seed, HARVARD), seed)
    batches = ((index, list(itertools.islice(every, PER_SHARD))) for index in itertools.count())
    todo = itertools.islice(batches, first, None)
    while seconds < 3600 * hours:
        group = [(folder, corpus, index, batch) for index, batch in itertools.islice(todo, 4 * workers)]
        paths = [corpus / f"{index:04d}.mel.npy" for _, _, index, _ in group]
        missing = [job for job, path in zip(group, paths, strict=True) if not path.exists()]
        list(each(write_spectra, missing, workers, f"spectra, {seconds / 3600:.1f} of {hours:g} h"))
        seconds += sum(len(np.load(path, mmap_mode="r")) / FRAMES_A_SECOND for path in paths)
