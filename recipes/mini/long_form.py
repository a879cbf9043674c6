"""Ten minutes and an hour of prose in one decode: ``python -m recipes.mini.long_form --write``, about an hour.

The held-out novel is read sentence by sentence in one cache (:mod:`recipes.mini.endless`): by the student under its
window, and by the teacher with full attention on the same text, as far as it gets; and by the student in parts, each in
a cache of its own, to show what one cache costs, and what is the text's and not the time's. Groups of whole sentences
of about 12 s are judged by themselves: word errors by Whisper tiny.en, similarity to the speaker's reference by
resemblyzer, the cache, and the time of a step. A decode is given up after five sentences in a row without an end. Each
decode is kept on disk by the sum of the weights, and measured once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from tqdm import tqdm

from recipes.mini import endless, prose
from recipes.mini.endless import Endless, Sentence, Sound
from recipes.mini.evaluate import digest_of, kept_in
from recipes.mini.files import PROVENANCE, write_json, written_before
from recipes.mini.listening import identity, known_voices, recognizer
from recipes.mini.pool import Workers
from recipes.mini.tables import shown
from wandlib.evaluation.error_rates import Interval, between_draws, count_errors
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.recognizers import plain_english
from wandlib.evaluation.report import markdown_table, put_measured
from wandlib.evaluation.speakers import similarity
from wandlib.profiling.measure import machine
from wandlib.systems.base import Attention
from wandlib.systems.mini.features import CODES_PER_SECOND, SAMPLE_RATE
from wandlib.systems.mini.system import MiniSystem
from wandlib.systems.settings import Long

HERE = Path(__file__).parent
RESULTS, REPORT = HERE / "long_form.json", HERE / "LONG_FORM.md"
GROUP_SECONDS = 12.0
"""Whisper hears 30 s at once."""
EDGE = 120.0
"""Seconds at the start and at the end that are compared."""
GIVE_UP = 5
"""Sentences in a row that find no end."""
KEPT = 20
"""Seconds at the end whose sound is kept."""
Group = dict[str, Any]
Way = Literal["window", "parts", "full"]
WAYS: dict[Way, tuple[str, Attention, Long]] = {
    "window": ("student", "window", "one cache"),
    "parts": ("student in parts", "window", "parts"),
    "full": ("teacher", "full", "one cache"),
}
"""Who reads, and how."""
LONGEST_BY: tuple[Way, ...] = ("window", "parts")
"""Ways to read the longest text: in parts, an error is of the text and not of the time that went by."""
Decode = tuple[Path | None, Way, str, float, Path]
"""Voice folder, way, speaker, minutes, and where the answer is kept."""


def text_to_read() -> list[str]:
    """Sentences of the held-out novel, in their order: eight hours."""
    return list(chain.from_iterable(map(prose.sentences_of, prose.held_out_prose())))


class Judge:
    """Collects sentences into groups, and measures each group.

    Parameters
    ----------
    assets
        The voice folder, for the speaker's reference.
    speaker
        Who speaks.
    longest
        Seconds of a group; a longer sentence is one by itself. 0: every sentence is.
    """

    def __init__(self, assets: Path | None, speaker: str, longest: float = GROUP_SECONDS) -> None:
        self.listen, self.identity, self.longest = recognizer(), identity(), longest
        self.reference = known_voices(assets)[1].get(speaker)
        self.waiting: list[Sentence] = []
        self.sounds: list[Sound] = []
        self.groups: list[Group] = []
        self.codes = 0

    def add(self, sentence: Sentence, sound: Sound) -> None:
        """Take the next sentence; what was collected is measured where this one would make it too long."""
        codes = sentence.codes + sum(one.codes for one in self.waiting)
        if self.waiting and (not self.longest or codes / CODES_PER_SECOND > self.longest):
            self.finish()
        self.waiting.append(sentence)
        self.sounds.append(sound)

    def finish(self) -> None:
        """Measure what was collected."""
        if not self.waiting:
            return
        codes, sound = sum(one.codes for one in self.waiting), np.concatenate(self.sounds)
        steps = [ms for one in self.waiting for ms in one.milliseconds]
        group: Group = {
            "second": self.codes / CODES_PER_SECOND,
            "seconds": codes / CODES_PER_SECOND,
            "sentences": len(self.waiting),
            "without an end": sum(not one.ended for one in self.waiting),
            "ms a step": float(np.median(steps)) if steps else 0.0,
            "cache bytes": max((count for one in self.waiting for count in one.cache_bytes), default=0),
        }
        audible = len(sound) > SAMPLE_RATE // 10
        if not isinstance(self.listen, Unavailable):
            text = " ".join(one.text for one in self.waiting)
            counts = count_errors(text, self.listen(sound, SAMPLE_RATE) if audible else "", plain_english)
            group |= {"word errors": counts.word_errors, "words": counts.words}
        if not isinstance(self.identity, Unavailable) and self.reference is not None:
            vector = self.identity(sound, SAMPLE_RATE) if audible else None
            group["similarity"] = 0.0 if vector is None else similarity(vector, self.reference)
        self.groups.append(group)
        self.codes, self.waiting, self.sounds = self.codes + codes, [], []


def measure(
    assets: Path | None,
    attention: Attention,
    speaker: str,
    minutes: float,
    texts: Iterable[str],
    speak: Endless = endless.speak,
) -> tuple[dict[str, Any], Sound]:
    """Read until so many minutes are full; returns what was found, and the last seconds' sound."""
    system, judge = MiniSystem.load(assets), Judge(assets, speaker)
    lost, seconds, given_up, last = 0, 0.0, False, np.zeros(0, np.float32)

    def limited() -> Iterable[str]:
        for text in texts:
            if seconds >= 60 * minutes or given_up:
                return
            yield text

    for sentence, sound in speak(system, attention, speaker, limited()):
        judge.add(sentence, sound)
        last = np.concatenate((last, sound))[-KEPT * SAMPLE_RATE :]
        seconds += sentence.codes / CODES_PER_SECOND
        lost = 0 if sentence.ended else lost + 1
        given_up = given_up or lost == GIVE_UP
    judge.finish()
    return {"seconds": seconds, "given up": given_up, "groups": judge.groups}, last


def work(job: Decode) -> dict[str, Any]:
    """Do one decode, or read what it found before; the sound of its end is written next to it."""
    import soundfile

    assets, way, speaker, minutes, path = job
    if not path.exists():
        torch.set_num_threads(1)
        _, attention, long = WAYS[way]
        speak = partial(endless.speak, long=long)
        found, last = measure(assets, attention, speaker, minutes, text_to_read(), speak)
        soundfile.write(path.with_suffix(".flac"), last, SAMPLE_RATE)
        write_json(path, found)
    answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return answer


def rate(groups: Sequence[Group], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(values, weights) of a metric by group."""
    if key == "WER":
        pairs = [(group["word errors"], group["words"]) for group in groups]
    else:
        pairs = [(group[key] * group["seconds"], group["seconds"]) for group in groups]
    values, weights = np.array(pairs, float).T
    return values, weights


def apart(one: Sequence[Group], other: Sequence[Group], key: str, draws: int = 4000) -> tuple[float, float, Interval]:
    """(one, the other, the other less the one with its 95 % interval, bootstrapped over groups of sentences)."""
    rng = np.random.default_rng(0)
    (first, drawn_first), (last, drawn_last) = (resampled(part, key, rng, draws) for part in (one, other))
    return first, last, between_draws(last - first, drawn_last - drawn_first, min(len(one), len(other)))


def resampled(groups: Sequence[Group], key: str, rng: np.random.Generator, draws: int) -> tuple[float, np.ndarray]:
    """Return a metric over groups, and over as many groups drawn with replacement, [draws]."""
    values, weights = rate(groups, key)
    times = rng.multinomial(len(groups), [1 / len(groups)] * len(groups), size=draws)
    return float(values.sum() / weights.sum()), (times @ values) / (times @ weights)


def compared(groups: Sequence[Group], key: str) -> tuple[float, float, Interval]:
    """Return the first minutes, the last minutes and their difference, as :func:`apart` does."""
    total = length(groups)
    first, last = [g for g in groups if g["second"] < EDGE], [g for g in groups if g["second"] >= total - EDGE]
    return apart(first, last, key)


def length(groups: Sequence[Group]) -> float:
    """Return the seconds of a decode."""
    return float(groups[-1]["second"] + groups[-1]["seconds"])


def halved(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Return the first and the second half of a decode."""
    middle = length(groups) / 2
    return [group for group in groups if group["second"] < middle], [g for g in groups if g["second"] >= middle]


def halves(name: str, groups: Sequence[Group]) -> dict[str, Any]:
    """Compare the second half of a decode with the first: another text, but many more words than two minutes have."""
    row, parts = dict[str, Any](decode=name), halved(groups)
    for key in ("WER", "similarity"):
        if all(("words" if key == "WER" else key) in group for group in groups):
            first, second, difference = apart(*parts, key)
            row |= {f"{key}, first half": first, f"second half ({key})": second}
            row[f"{key} apart"] = shown(difference, signed=True)
    return row


def line(name: str, decode: dict[str, Any]) -> dict[str, Any]:
    """One decode as a row."""
    groups = decode["groups"]
    row: dict[str, Any] = {"decode": name, "minutes": decode["seconds"] / 60}
    for key in ("WER", "similarity"):
        measured = all(("words" if key == "WER" else key) in group for group in groups)
        first, last, apart = compared(groups, key) if measured else (math.nan, math.nan, None)
        row |= {f"{key}, first 2 min": first, f"last 2 min ({key})": last, f"{key} apart": shown(apart, signed=True)}
    first_minute = [group for group in groups if group["second"] < 60]
    row["cache, kB, first minute"] = max(group["cache bytes"] for group in first_minute) / 1000
    row["cache, kB, largest"] = max(group["cache bytes"] for group in groups) / 1000
    times = compared(groups, "ms a step")
    row |= {"ms a step, first": times[0], "ms a step, last": times[1]}
    row["sentences without an end"] = (
        f"{sum(g['without an end'] for g in groups)} of {sum(g['sentences'] for g in groups)}"
    )
    return row | {"given up": "yes" if decode["given up"] else ""}


def course(decodes: dict[str, dict[str, Any]], minutes: float) -> list[dict[str, Any]]:
    """WER and similarity of each stretch of some minutes, a column for each decode."""
    longest = max(decode["seconds"] for decode in decodes.values())
    rows = []
    for number in range(math.ceil(longest / (60 * minutes))):
        row: dict[str, Any] = {"from minute": number * minutes}
        for name, decode in decodes.items():
            part = [g for g in decode["groups"] if int(g["second"] // (60 * minutes)) == number]
            for key in ("WER", "similarity"):
                if all(("words" if key == "WER" else key) in group for group in part):
                    values, weights = rate(part, key) if part else (np.zeros(1), np.zeros(1))
                    row[f"{key}, {name}"] = float(values.sum() / weights.sum()) if weights.sum() else math.nan
        rows.append(row)
    return rows


def cost_of_one_cache(decodes: dict[str, dict[str, Any]], which: str) -> list[str]:
    """Compare all that the student read in parts with the same text in one cache; nothing where it did not do both."""
    names = [name for name in decodes if name.startswith("student in parts, ")]
    whole = [name.replace(" in parts", "") for name in names]
    heard = all("words" in group for name in (*names, *whole) for group in decodes[name]["groups"])
    if not names or not heard:
        return []
    parts, one_cache = ([g for name in some for g in decodes[name]["groups"]] for some in (names, whole))
    in_parts, in_one, difference = apart(parts, one_cache, "WER")
    found = [
        f"WER of the student over all of {which}: {in_one:.3f} in one cache, {in_parts:.3f} in parts: "
        f"{shown(difference, signed=True)}."
    ]
    if len(names) == 1:
        found.append(
            f"From the first half to the second it rises by so much more in one cache: {drift(one_cache, parts)}."
        )
    return found


def drift(one: Sequence[Group], other: Sequence[Group], draws: int = 4000) -> str:
    """How much more the word errors rise from the first half to the second than in another decode of the same text."""
    rng, value, drawn = np.random.default_rng(0), 0.0, np.zeros(draws)
    for sign, decode in ((1, one), (-1, other)):
        first, second = (resampled(part, "WER", rng, draws) for part in halved(decode))
        value, drawn = value + sign * (second[0] - first[0]), drawn + sign * (second[1] - first[1])
    return shown(between_draws(value, drawn, min(len(one), len(other)) // 2), signed=True)


def document(result: dict[str, Any]) -> str:
    """Write the measured part of LONG_FORM.md."""
    decodes = result["decodes"]
    short = {name: decode for name, decode in decodes.items() if decode["minutes asked"] <= 10}
    long = {name: decode for name, decode in decodes.items() if decode["minutes asked"] > 10}
    lines = [
        *result.get("notes", []),
        "Intervals of 95 %, bootstrapped over groups of sentences of up to "
        f"{result['seconds of a group']:.0f} s. WER by Whisper tiny.en.",
        "",
        markdown_table([line(name, decode) for name, decode in decodes.items()]),
    ]
    if long:
        table = markdown_table([halves(name, decode["groups"]) for name, decode in long.items()])
        lines += ["", "The long decodes by halves:", "", table]
    lines += ["", *cost_of_one_cache(short, "the short decodes"), *cost_of_one_cache(long, "the long one")]
    for part, minutes in ((short, 1), (long, 5)):
        if part:
            lines += [
                "",
                f"By {'minute' if minutes == 1 else 'five minutes'}:",
                "",
                markdown_table(course(part, minutes)),
            ]
    return "\n".join([*lines, "", f"Measured on {result['machine']}, {result['date']}."])


def main(
    minutes: Annotated[float, typer.Option(help="Of each speaker and way.")] = 10.0,
    longest: Annotated[float, typer.Option(help="Of the first speaker, by the student; 0: not.")] = 60.0,
    speakers: Annotated[list[str] | None, typer.Option("--speaker", help="Default: three of the voice's.")] = None,
    assets: Annotated[Path | None, typer.Option(help="Voice folder; default: the shipped one.")] = None,
    folder: Annotated[Path, typer.Option(help="Where decodes are kept.")] = Path("runs/mini/long_form"),
    workers: Annotated[int, typer.Option(help="Decodes at a time, one thread each.")] = 2,
    write: Annotated[bool, typer.Option(help="Keep the numbers in long_form.json and LONG_FORM.md.")] = False,
) -> None:
    """Print word errors, similarity, cache and time a step of the first and of the last minutes of long decodes."""
    everybody = MiniSystem.load(assets).speakers
    chosen = speakers or everybody[:: max(1, len(everybody) // 3)][:3]
    kept = kept_in(folder, assets)
    kept.mkdir(parents=True, exist_ok=True)
    wanted: list[tuple[Way, str, float]] = [(way, name, minutes) for way in WAYS for name in chosen]
    wanted += [(way, chosen[0], longest) for way in LONGEST_BY] if longest else []
    text = hashlib.sha256(Path(prose.__file__).read_bytes()).hexdigest()[:6]
    jobs = [(assets, how, name, long, kept / f"{how}-{name}-{long:g}-{text}.json") for how, name, long in wanted]
    known = all(path.exists() for *_, path in jobs)
    os.environ["OMP_NUM_THREADS"] = "1"
    with Workers(workers) as pool:
        found = list(tqdm(pool.imap(work, jobs), total=len(jobs), desc="decodes"))
    result = {
        "seconds of a group": GROUP_SECONDS,
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "voice": digest_of(assets),
        "decodes": {
            f"{WAYS[how][0]}, {name}" + (f", {long:g} min" if long != minutes else ""): decode | {"minutes asked": long}
            for (how, name, long), decode in zip(wanted, found, strict=True)
        },
    }
    result |= written_before(RESULTS, digest_of(assets), "notes", *(PROVENANCE if known else ()))
    print(document(result))
    if write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        REPORT.write_text(put_measured(REPORT.read_text(encoding="utf-8"), document(result)), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
