"""The cards and the notice that are shipped with the weights, filled in from the run that made them.

The texts are in ``card_templates``; the measured parts of the cards come later, from :mod:`recipes.mini.evaluate`.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recipes.mini import corpus as shards
from recipes.mini import guidance, rows, train_codec
from recipes.mini.corpus import Utterance, read_shards
from recipes.mini.speakers import SPEAKERS
from recipes.mini.train_student import Variant, load_teacher
from wandlib.systems.mini.features import CODES_PER_SECOND
from wandlib.systems.mini.streaming import look_ahead
from wandlib.systems.mini.weights import load_acoustics

TEMPLATES = Path(__file__).parent / "card_templates"
KOKORO = """\
$hours hours ($utterances utterances) made on the spot by Kokoro-82M (Apache-2.0, 8-bit weights), at five speaking
rates from 0.85 to 1.2: $speakers speakers, which are its voices $voices. $sounding hours of it are sound; of the
rest there are mel spectra and pitch alone, which a small network reads off what Kokoro's generator is told. The texts
are five of Jane Austen's novels (public domain), WordNet's usage examples and definitions, and templates for numbers,
dates, money, abbreviations, questions, lists, dialogue and lone words. No recordings of people were used, and no
sentence of the evaluation. The source has 24 kHz; this voice keeps 16: about 1 % of the source's energy lies above
8 kHz, where neither recognizers nor DNSMOS nor speaker encoders hear."""
PEOPLE = """\
$hours hours ($utterances utterances): recordings of $speakers speakers. Their license is that of the data set."""


def fill(name: str, facts: dict[str, Any]) -> str:
    """Fill in a template; KeyError where a fact is missing."""
    return string.Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(facts)


def data_facts(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Say what the corpus is."""
    names = {utterance.speaker for utterance in utterances}
    voices = [speaker.voice for speaker in SPEAKERS if speaker.name in names]
    ours = len(voices) == len(names)
    facts = {
        "hours": f"{sum(utterance.seconds for utterance in utterances) / 3600:.1f}",
        "sounding": f"{sum(utterance.seconds for utterance in utterances if utterance.has_sound) / 3600:.1f}",
        "utterances": f"{len(utterances):,}",
        "speakers": str(len(names)),
        "voices": ", ".join(voices) if ours else "",
    }
    text = string.Template(KOKORO if ours else PEOPLE).substitute(facts)
    return facts | {"data": text, "and_people": " of Kokoro and no people" if ours else ""}


def spent(folder: Path, name: str) -> str:
    """Tell the steps of a part that was trained, and how long a processor worked for each of its processes."""
    path = folder / f"{name}.pt"
    state = torch.load(path, weights_only=True) if path.exists() else {}
    if "spent" not in state:
        return f"the {name.replace('_', ' ')} was not trained in this run"
    return f"{name.replace('_', ' ')} {state['step']:,} steps in {state['spent'] / 60:.0f} minutes"


def last_line(path: Path) -> dict[str, float]:
    """Return the last entry of a log; nothing where there is none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found: dict[str, float] = json.loads(lines[-1]) if lines else {}
    return found


def teacher_training(folder: Path) -> str:
    """Say how long the teacher trained, and where its losses ended."""
    said, log = f"{spent(folder, 'teacher').capitalize()}.", last_line(folder / "teacher.jsonl")
    losses = {
        "training": log.get("ce"),
        "held-out single utterances": log.get("validation_ce"),
        "held-out streams": log.get("validation_stream_ce"),
    }
    ends = ", ".join(f"{name} {value:.2f}" for name, value in losses.items() if value is not None)
    return f"{said} Cross-entropy at the end: {ends}." if ends else said


def guidance_training(folder: Path) -> str:
    """Say how the teacher was taught to speak as it does when guided by its text."""
    if not (folder / "guidance.pt").exists():
        return "Its text does not guide it (`recipes/mini/guidance.py`)."
    return (
        "Then it learned to give in one pass what classifier-free guidance gives in two: its prediction with the text, "
        f"pushed away from that without the text (weight {guidance.WEIGHT:g}, among codes at least "
        f"{guidance.PLAUSIBLE:g} times as probable as the best one); {spent(folder, 'guidance')}."
    )


def student_training(folder: Path) -> str:
    """Say how many steps the student had."""
    path = folder / "student" / "log.json"
    if not path.exists():
        return "The student was not trained in this run."
    state = json.loads(path.read_text(encoding="utf-8"))
    losses = [entry for entry in state["log_history"] if "ce" in entry][-1:]
    ends = [f"{name} {entry[name]:.2f}" for entry in losses for name in ("ce", "kl") if name in entry]
    return f"{state['global_step']} steps" + (f"; last training losses: {', '.join(ends)}." if ends else ".")


def write(folder: Path, corpus: Path, target: Path) -> None:
    """Write the three cards and the notice under ``target``."""
    teacher, variant = load_teacher(folder), Variant()
    config = teacher.config
    written = json.loads((target / "codec" / "config.json").read_text(encoding="utf-8"))
    acoustic = ("aligner", "codec", "vocoder", "tuned_vocoder")
    facts: dict[str, Any] = data_facts(read_shards(corpus)) | {
        "contrast": written["codec"]["contrast"],
        "look_ahead": look_ahead(*load_acoustics(target)[:2]),
        "acoustic_training": "; ".join(spent(folder, name) for name in acoustic),
        "parameters": f"{sum(value.numel() for value in teacher.parameters()) / 1e6:.1f}",
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "passes": rows.PASSES,
        "max_gap": f"{rows.MAX_GAP:,}",
        "held_out": shards.HELD_OUT,
        "teacher_training": teacher_training(folder),
        "guidance": guidance_training(folder),
        "rate": train_codec.RATE_WEIGHT,
        "student_training": student_training(folder),
        "ce_weight": variant.ce_weight,
        "window": variant.window,
        "seconds": f"{variant.window / CODES_PER_SECOND:.2f}",
        "blocks": variant.blocks,
        "window_start": variant.window_start,
        "soft": round(100 * (1 - variant.hard_fraction)),
        "learning_rate": variant.learning_rate,
    }
    for name in ("codec", "teacher", "student"):
        (target / name / "README.md").write_text(fill(f"{name}.md", facts), encoding="utf-8")
    notice = fill("NOTICE", facts) if facts["voices"] else "The embedded voice, Apache-2.0.\n\n" + facts["data"] + "\n"
    (target / "NOTICE").write_text(notice, encoding="utf-8")
