"""Where sound goes while it is being made: a file, a pipe, a player."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wandlib.systems import InputError
from wandlib.systems.speech import write_samples

PLAYERS = {
    "aplay": ("-q", "-"),
    "pw-play": ("-",),
    "ffplay": ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"),
    "play": ("-q", "-t", "wav", "-"),
    "mpv": ("--really-quiet", "-"),
}
"""Programs that play a WAV from their standard input, and how; the first one that is installed is taken."""
UNKNOWN = 2**32 - 1
"""The length of a WAV that readers of streams take for "until the end"."""


@runtime_checkable
class Sink(Protocol):
    """A place for sound."""

    def write(self, sound: NDArray[np.float32]) -> None:
        """Take the next piece, shape [samples]."""

    def close(self) -> None:
        """Take note that all has come."""


class FileSink:
    """A sound file that grows; after an error, Ctrl-C or SIGTERM it holds what came until then.

    A WAV does so at any moment; of an OGG, a kill -9 or a full disk may cost the last second, and of a FLAC all.

    Parameters
    ----------
    path
        With an ending that :func:`wandlib.systems.speech.sound_file` knows.
    sample_rate
        In Hz.
    force
        Write over a file that exists.

    Raises
    ------
    InputError
        If the file cannot be written, or exists by now.
    """

    def __init__(self, path: Path, sample_rate: int, *, force: bool = False) -> None:
        import soundfile

        self._path, self._errors = path, (OSError, soundfile.LibsndfileError)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=force)
            wav = path.suffix.lower() == ".wav"
            self._file: Any = GrowingWav(path, sample_rate) if wav else soundfile.SoundFile(path, "w", sample_rate, 1)
        except self._errors as error:
            if isinstance(error, FileExistsError) and path.exists():
                raise InputError(f"{str(path)!r} exists: name another file, or write over it with --force") from error
            raise InputError(f"cannot write {str(path)!r}: {error}") from error

    def write(self, sound: NDArray[np.float32]) -> None:
        """Add to the file."""
        try:
            write_samples(self._file, sound)
            self._file.flush()
        except self._errors as error:
            raise InputError(f"cannot write {str(self._path)!r} ({error}): is there room?") from error

    def close(self) -> None:
        """Complete the file."""
        self._file.close()


class WavSink:
    """A WAV, 16 bits, whose length is not known when it begins, into a pipe.

    Parameters
    ----------
    pipe
        A binary stream.
    sample_rate
        In Hz.
    """

    def __init__(self, pipe: Any, sample_rate: int) -> None:
        self._pipe = pipe
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
        self._send(b"RIFF" + struct.pack("<I", UNKNOWN) + b"WAVE" + form + b"data" + struct.pack("<I", UNKNOWN))

    def write(self, sound: NDArray[np.float32]) -> None:
        """Send the samples."""
        self._send((np.clip(sound, -1, 1) * 32767).round().astype("<i2").tobytes())

    def close(self) -> None:
        """Nothing to do: the pipe is its owner's."""

    def _send(self, data: bytes) -> None:
        self._pipe.write(data)
        self._pipe.flush()


class GrowingWav:
    """A WAV file whose header says at any moment how long it is.

    Parameters
    ----------
    path
        What to write, or to write over.
    sample_rate
        In Hz.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._file = path.open("wb")
        self._wav = WavSink(self._file, sample_rate)
        self.flush()

    def write(self, sound: NDArray[np.float32]) -> None:
        """Add samples."""
        self._wav.write(sound)

    def flush(self) -> None:
        """Put the length into the header, and all of it onto the disk."""
        size = self._file.tell()
        for place, length in ((4, size - 8), (40, size - 44)):
            self._file.seek(place)
            self._file.write(struct.pack("<I", min(length, UNKNOWN)))
        self._file.seek(size)
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class PlayerSink:
    """A program that plays sound as it comes.

    Parameters
    ----------
    sample_rate
        In Hz.

    Raises
    ------
    InputError
        If no program of :data:`PLAYERS` is installed.
    """

    def __init__(self, sample_rate: int) -> None:
        name = find_player()
        self._process = subprocess.Popen([name, *PLAYERS[Path(name).name]], stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._pipe: IO[bytes] = self._process.stdin
        self._name, self._wav = Path(name).name, WavSink(self._pipe, sample_rate)

    def write(self, sound: NDArray[np.float32]) -> None:
        """Play the sound after what came before."""
        try:
            self._wav.write(sound)
        except BrokenPipeError as error:
            raise InputError(
                f"{self._name} has ended with status {self._process.wait()}: no sound is played"
            ) from error

    def close(self) -> None:
        """Wait until all has been played."""
        with contextlib.suppress(BrokenPipeError):  # it has ended; its status says why
            self._pipe.close()
        if status := self._process.wait():
            raise InputError(f"{self._name} ended with status {status}: the sound may not have been played")


def find_player() -> str:
    """Return the path of an installed player.

    Raises
    ------
    InputError
        If there is none.
    """
    for name in PLAYERS:
        if path := shutil.which(name):
            return path
    raise InputError(f"no player is installed: install one of {', '.join(PLAYERS)} (aplay is in alsa-utils)")
