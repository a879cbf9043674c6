"""Mel spectra and pitch of every shard, so that training only reads.

Beside ``NNNN.npy`` come ``NNNN.mel.npy`` (float16, [frames, 80]) and ``NNNN.pitch.npy`` (float16, Hz, 0 where
unvoiced), 100 frames a second, utterances end to end, each padded to whole codes. Pitch is Praat's autocorrelation
method.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import parselmouth
import torch
from numpy.typing import NDArray

from recipes.mini.corpus import Utterance, read_shards
from recipes.mini.files import whole
from recipes.mini.pool import each
from wandlib.systems.mini.features import BANDS, FRAMES_PER_CODE, SAMPLE_RATE, SAMPLES_PER_CODE, LogMel


def frames_of(samples: int) -> int:
    """Frames of a waveform of that many samples: whole codes, four frames each."""
    return -(-samples // SAMPLES_PER_CODE) * FRAMES_PER_CODE


def pitch_of(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pitch in Hz, 0 where unvoiced, at the mel frames' centers (5 ms, 15 ms, ...)."""
    frames = frames_of(len(samples))
    if len(samples) < SAMPLE_RATE // 10:  # shorter than Praat's analysis window
        return np.zeros(frames, np.float32)
    sound = parselmouth.Sound(samples.astype(np.float64), SAMPLE_RATE)
    track = sound.to_pitch_ac(time_step=0.01, pitch_floor=60.0, pitch_ceiling=400.0, voicing_threshold=0.35)
    hz, times = track.selected_array["frequency"], track.xs()
    centers = (np.arange(frames) + 0.5) * 0.01
    nearest = np.clip(np.searchsorted(times, centers - 0.005), 0, len(times) - 1)
    found = hz[nearest].astype(np.float32)
    found[(centers < times[0] - 0.01) | (centers > times[-1] + 0.01)] = 0
    return found


def analyse_shard(path: Path) -> None:
    """Write mel and pitch of one shard; nothing to do where both exist."""
    mel_path, pitch_path = path.with_suffix(".mel.npy"), path.with_suffix(".pitch.npy")
    if mel_path.exists() and pitch_path.exists():
        return
    torch.set_num_threads(1)
    log_mel = LogMel()
    mels, pitches = [], []
    for utterance in read_shards(path.parent, path.stem):
        samples = utterance.samples
        mels.append(log_mel(torch.from_numpy(samples)[None])[0].half().numpy())
        pitches.append(pitch_of(samples).astype(np.float16))
    for target, array in ((mel_path, np.concatenate(mels)), (pitch_path, np.concatenate(pitches))):
        with whole(target) as partial:
            np.save(partial, array)


def build(folder: Path, workers: int = 2) -> None:
    """Analyze every shard under ``folder`` that has sound; finished ones are kept."""
    shards = sorted({utterance.path for utterance in read_shards(folder) if utterance.has_sound})
    list(each(analyse_shard, shards, workers, "analysis"))


@dataclass(frozen=True)
class Analyzed:
    """An utterance with its analysis."""

    utterance: Utterance
    first_frame: int
    frames: int

    @property
    def mel(self) -> NDArray[np.float16]:
        """Normalized log-mel, [frames, 80]."""
        return _open(self.utterance.path.with_suffix(".mel.npy"))[self.first_frame : self.first_frame + self.frames]

    @property
    def pitch(self) -> NDArray[np.float16]:
        """Hz, 0 where unvoiced, [frames]."""
        return _open(self.utterance.path.with_suffix(".pitch.npy"))[self.first_frame : self.first_frame + self.frames]


@functools.lru_cache(maxsize=256)  # each holds a file open
def _open(path: Path) -> NDArray[np.float16]:
    return np.load(path, mmap_mode="r")


def read(folder: Path) -> list[Analyzed]:
    """Every analyzed utterance, in order."""
    found: list[Analyzed] = []
    position, current = 0, None
    for utterance in read_shards(folder):
        if utterance.path != current:
            position, current = 0, utterance.path
        frames = frames_of(utterance.end - utterance.start)
        found.append(Analyzed(utterance, position, frames))
        position += frames
    return found


def batch_of(items: list[tuple[Analyzed, int]], frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(mel [batch, frames, 80], pitch in Hz [batch, frames]) of (utterance, first frame) pairs, padded with silence."""
    silence = _silence()
    mel = silence.expand(len(items), frames, BANDS).clone()
    pitch = torch.zeros(len(items), frames)
    for row, (item, start) in enumerate(items):
        count = min(frames, item.frames - start)
        mel[row, :count] = torch.from_numpy(item.mel[start : start + count].astype(np.float32))
        pitch[row, :count] = torch.from_numpy(item.pitch[start : start + count].astype(np.float32))
    return mel, pitch


@functools.cache
def _silence() -> torch.Tensor:
    return LogMel()(torch.zeros(1, SAMPLES_PER_CODE))[0, 0]
