"""``wandlib say --from texts.jsonl --to folder``: many texts to many files, resumable, with a manifest.

Each line of the manifest says what became of one text. A run that was stopped goes on where it was: what is in the
manifest, and whose file exists, is not made again, as long as the model and the reference are those of then; what
failed is tried again. Under ``accelerate launch -m wandlib`` (or torchrun) each process takes every n-th text and has a
manifest of its own.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wandlib.cli.options import LIMIT_STATUS, console, say_line
from wandlib.systems import InputError

if TYPE_CHECKING:
    from wandlib.systems import Speech, SpeechSystem

KEYS = {"text", "id", "speaker", "reference", "transcript", "set"}
EXAMPLE = '{"text": "Good morning.", "id": "greeting", "speaker": "ruth"}'
MODEL_FILES = ("*.safetensors", "*.pt", "*.pth", "*.bin", "*.onnx", "*.yaml", "config.json")
"""What a model is read from, in its folder or one below: texts, sound and reports may lie there as well."""
LONGEST_NAME = 200  # of the 255 that file systems take
_NAME = re.compile(rf"[\w][\w .-]{{,{LONGEST_NAME - 1}}}", re.ASCII)
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|\s*$)", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One text.

    Attributes
    ----------
    name
        Of its file.
    text
        What to say.
    reference
        In whose voice; None: the system's own choice.
    settings
        What a line sets for itself, by name: its transcript, and what is in "set".
    """

    name: str
    text: str
    reference: str | None
    settings: tuple[tuple[str, Any], ...] = ()

    def lacks_transcript(self, voice: str | Path | None) -> bool:
        """Return whether a line names another voice than ``voice``, and not what that says."""
        return self.reference not in (None, str(voice)) and "transcript" not in dict(self.settings)


def read_texts(path: Path, voice: str | Path | None) -> list[Item]:
    """Return the texts of a .jsonl file.

    Parameters
    ----------
    voice
        The speaker or reference of lines that name none.

    Raises
    ------
    InputError
        If there are none, or a line is no text; the message names file and line.
    """
    items: dict[str, int] = {}
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of {str(path)!r}"
        try:
            given = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is no JSON ({error}): write a text a line, like {EXAMPLE}") from error
        if not isinstance(given, dict) or not isinstance(given.get("text"), str):
            raise InputError(f"{where} has no text: write a text a line, like {EXAMPLE}")
        if unknown := sorted(given.keys() - KEYS):
            raise InputError(f"{where} sets {', '.join(unknown)}: there are {', '.join(sorted(KEYS))}")
        if given.get("speaker") is not None and given.get("reference") is not None:
            raise InputError(f"{where} names a speaker and a reference: give one of them")
        name = str(given.get("id", f"{number:06}"))
        if not _NAME.fullmatch(name) or _DEVICE.match(name):
            raise InputError(
                f"{where} has the id {name!r}, which is to be a file's name on any system: letters, digits, . _ - "
                f"alone, at most {LONGEST_NAME}, and no device of Windows (con, nul, ...)"
            )
        if (alike := name.casefold()) in items:  # one file, on macOS and Windows
            raise InputError(f"lines {items[alike]} and {number} of {str(path)!r} have the same id, {name!r}")
        items[alike] = number
        own = given.get("speaker") or given.get("reference") or voice
        settings = given.get("set", {})
        if not isinstance(settings, dict):
            raise InputError(f'{where} sets {settings!r}: write {{"set": {{"pitch": "high"}}}}')
        settings |= {"transcript": given["transcript"]} if "transcript" in given else {}
        if not all(isinstance(value, str | int | float) for value in settings.values()):
            raise InputError(f"{where} sets {settings!r}: a setting is a text, a number, true or false")
        found.append(Item(name, given["text"], None if own is None else str(own), tuple(sorted(settings.items()))))
    if not found:
        raise InputError(f"no texts in {str(path)!r}: write one a line, like {EXAMPLE}")
    return found


def fingerprint(path: str | Path | None) -> int | None:
    """Return a number that changes with a file, or with the model in a folder; None: there is neither."""
    if path is None:
        return None
    root = Path(path)
    files = [root] if root.is_file() else model_files(root)
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return zlib.crc32(repr(facts).encode()) if facts else None


def model_files(root: Path) -> list[Path]:
    """Return the files that the model in a folder is read from."""
    return sorted(file for name in MODEL_FILES for file in (*root.glob(name), *root.glob(f"*/{name}")))


def sum_of_contents(root: Path | None) -> int | None:
    """Return a number that changes with what a model's files hold, wherever and whenever they were installed."""
    if root is None:
        return None
    found = 0
    for file in model_files(root):
        found = zlib.crc32(file.read_bytes(), zlib.crc32(file.name.encode(), found))
    return found


class Plan:
    """What is to be made, and what is made already.

    Parameters
    ----------
    items
        All texts.
    folder
        Where sound and manifests are.
    settings
        How they are spoken, for the manifest.
    models
        Checkpoint and student, for the manifest, and to know again what they hold.
    shipped
        The folder of the voice that is installed with the package, where it is the one that speaks.
    force
        Whether every text is made anew, over files of any origin.

    Raises
    ------
    InputError
        If the folder has files of other settings, texts, models or references, or of another origin.
    """

    def __init__(
        self,
        items: list[Item],
        folder: Path,
        settings: dict[str, Any],
        models: dict[str, Path | None],
        shipped: Path | None = None,
        *,
        force: bool,
    ) -> None:
        self.folder = folder
        self.settings = {name: None if value is None else str(value) for name, value in (settings | models).items()}
        self._contents = {name: fingerprint(path) for name, path in models.items()}
        self._contents["shipped"] = sum_of_contents(shipped)
        self._references = {item.reference: fingerprint(item.reference) for item in items}
        rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
        self.manifest = folder / ("manifest.jsonl" if world == 1 else f"manifest-{rank}.jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        entries = sorted(self._entries(), key=lambda entry: entry.get("time", ""))
        made = {entry["id"]: entry for entry in entries if entry["error"] is None}
        """The last success of each text, which is what its file holds."""
        if self.manifest.exists() and self.manifest.read_bytes()[-1:] not in {b"", b"\n"}:
            with self.manifest.open("a", encoding="utf-8") as file:
                file.write("\n")  # after a line that an earlier run died in
        self.items = []
        """Texts that this process still has to speak."""
        self.skipped = 0
        """Texts of this process that have been spoken."""
        for item in items[rank::world]:
            entry = made.get(item.name)
            if force or not self.file(item).exists():
                self.items.append(item)
            elif entry is not None and entry == entry | self._said(item):
                self.skipped += 1
            else:
                reason = "was made from another text, model or reference, or with other settings"
                raise InputError(
                    f"{str(self.file(item))!r} {reason if entry else 'is of another origin'}: name another folder, or "
                    "make all anew with --force"
                )

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self.items

    def file(self, item: Item) -> Path:
        """Return where the sound of a text goes."""
        return self.folder / f"{item.name}.wav"

    def keep(self, item: Item, made: Speech | InputError) -> str:
        """Write down what became of a text, and its sound; return it in a word."""
        entry = self._said(item) | {"file": None, "seconds": None, "codes": None, "finish": None, "error": None}
        if isinstance(made, InputError):
            self._write(entry | {"error": str(made)})
            return "failed"
        target = self.file(item)
        part = made.save(target.with_name(f".{target.stem}.part.wav"))
        done = {"file": target.name, "seconds": made.seconds, "codes": len(made.codes), "finish": made.trace.finish}
        target.unlink(missing_ok=True)
        self._write(entry | done)
        part.replace(target)  # whole or not there, whatever ends the program; never old sound beside a new entry
        return "limited" if made.trace.finish == "limit" else "made"

    def _said(self, item: Item) -> dict[str, Any]:
        settings = self.settings | {name: str(value) for name, value in item.settings}
        contents = self._contents | {"reference": self._references[item.reference]}
        own = {"id": item.name, "text": item.text, "reference": item.reference}
        return own | {"settings": settings, "contents": contents}

    def _write(self, entry: dict[str, Any]) -> None:
        entry = {"time": datetime.now(UTC).isoformat()} | entry
        with self.manifest.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Yield what earlier runs wrote down; a line that a run died in is left out.

        Raises
        ------
        InputError
            If a manifest is not of wandlib: nothing is to be written into it.
        """
        for path in sorted(self.folder.glob("manifest*.jsonl")):
            foreign = InputError(f"{str(path)!r} is no manifest of wandlib: name another folder")
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise foreign from error
            for number, line in enumerate(lines, 1):
                try:
                    entry = json.loads(line)
                except ValueError:
                    say_line(f"line {number} of {str(path)!r} is not complete JSON, and is left out")
                    continue
                if not isinstance(entry, dict) or not {"id", "error", "settings"} <= entry.keys():
                    raise foreign
                yield entry


def alike(items: list[Item]) -> dict[tuple[tuple[str, Any], ...], list[Item]]:
    """Return texts by what they set for themselves: one batch has one transcript."""
    found = defaultdict[tuple[tuple[str, Any], ...], list[Item]](list)
    for item in items:
        found[item.settings].append(item)
    return found


def say_many(plan: Plan, tts: SpeechSystem | None, batch_size: int, settings: dict[str, Any]) -> int:
    """Speak what is left, and return the exit status: 1 if a text failed, 3 if the length limit ended one.

    Parameters
    ----------
    tts
        The system; None where nothing is left.
    """
    counts: Counter[str] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("texts", total=len(plan.items))
        if tts is not None:
            groups = alike(plan.items)
            for own in groups:  # better said before the first text than in the midst of them
                tts.settings_type.make(settings | dict(own))
            for own, items in groups.items():
                texts, references = [item.text for item in items], [item.reference for item in items]
                together: dict[str, Any] = settings | dict(own)
                for index, made in tts.synthesize_as_completed(texts, references, batch_size=batch_size, **together):
                    counts[plan.keep(items[index], made)] += 1
                    progress.advance(task)
    said = [f"{counts['made'] + counts['limited']} made"]
    said += [f"{plan.skipped} were there"] if plan.skipped else []
    said += [f"{counts['limited']} ended by the length limit"] if counts["limited"] else []
    said += [f"{counts['failed']} failed"] if counts["failed"] else []
    say_line(f"{plan.folder}: {', '.join(said)}; see {plan.manifest.name}")
    return 1 if counts["failed"] else LIMIT_STATUS if counts["limited"] else 0
