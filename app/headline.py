"""Above the fold: what this is in a sentence, a result that was computed before, and two large numbers.

HTML without gradio, since the page that is shown while the voice loads (:mod:`app.waiting`) has the same. The result
comes from ``python -m app.precompute``, which is run again when another voice ships.
"""

from __future__ import annotations

import functools
import json
import tomllib
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PRECOMPUTED = HERE / "precomputed"
STATIC = HERE / "static"
PAPER = "https://arxiv.org/abs/2604.08558"
TITLE = "A voice whose memory does not grow"


@functools.cache
def precomputed() -> dict[str, Any]:
    """Return the stored result."""
    found: dict[str, Any] = json.loads((PRECOMPUTED / "result.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def repository() -> str:
    """Return the address of the code, which stands in pyproject.toml alone."""
    text = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["urls"]["Repository"])


def lead() -> str:
    """Say what this is."""
    seconds = precomputed()["window"] / precomputed()["codes_per_second"]
    return f"""<div id='hero'><h1>{TITLE}</h1><p class='lead'>A model that speaks keeps every sound it has
made in memory, and so each second costs more than the one before. Here a text is spoken twice: by a <b>teacher</b> that
keeps all of it, and by a <b>student</b> that was trained to need only the last {seconds:.2g} seconds. Hear the
difference, and see it.
</p></div>"""


def numbers(cache: tuple[str, str, str], step: tuple[str, str, str], codes_per_second: float, caption: str) -> str:
    """Draw the two large numbers: (teacher, student, difference) each."""
    meanings = (
        ("Cache memory", "cache: what the model keeps of text, voice and the sound so far", cache),
        (
            "Time a step",
            f"step: the model makes one code, about 1/{codes_per_second:.0f} second of sound; median",
            step,
        ),
    )
    boxes = ""
    for name, meaning, (teacher, student, difference) in meanings:
        change, _, unclear = difference.partition(", ")
        boxes += (
            f"<div class='number'><h2>{name}</h2><div class='values'><b>{escape(teacher)}</b>"
            f"<b aria-hidden='true'>→</b><b>{escape(student)}</b>"
            f"<b class='change{' unclear' if unclear else ''}'>{escape(change)}</b></div>"
            f"<small>{f'<em>{escape(unclear)}.</em> ' if unclear else ''}{meaning}</small></div>"
        )
    caption = f"<p class='terms'>{escape(caption)}</p>"
    return f"<div class='numbers' role='group' aria-label='Teacher, then student'>{boxes}</div>{caption}"


def example_numbers() -> str:
    """Draw the large numbers of the stored result."""
    shown = precomputed()["shown"]
    return numbers(
        tuple(shown["cache"]),
        tuple(shown["step"]),
        precomputed()["codes_per_second"],
        f"Teacher → student, measured before on {shown['machine']}, after {shown['seconds']:.0f} s of speech: "
        "the sound below. They change while you let it speak.",
    )


def example_player() -> str:
    """Return the stored result as a player."""
    found = precomputed()
    sides = [
        {
            "key": key,
            "label": side["label"],
            "color": side["color"],
            "url": f"wand/precomputed/{key}.ogg",
            "seconds": str(side["seconds"]),
        }
        for key, side in found["sides"].items()
    ]
    return player(sides, found["sample_rate"], live=False, name="example")


def player(sides: list[dict[str, str]], rate: int, *, live: bool, name: str, autoplay: bool = False) -> str:
    """Return the place of a player, which ``static/player.js`` fills."""
    return (
        f"<div class='wand-player' data-name='{escape(name)}' data-rate='{rate}' data-live='{int(live)}' "
        f"data-autoplay='{int(autoplay)}' data-sides='{escape(json.dumps(sides), quote=True)}'></div>"
    )


def terms() -> str:
    """Explain the words, and name paper, code and license."""
    window = precomputed()["window"]
    code = repository()
    return f"""<p class='terms'>You hear: <q>{escape(precomputed()["text"])}</q><br>
<b>Teacher</b>: full attention, every step looks at everything before it. <b>Student</b>: a copy of it that was trained
on; it looks at the text, the reference voice and the last <b>W</b> = {window} codes. Their weights differ.
<b>Untrained</b>: the teacher's own weights with the student's window, to hear what the training is for.
The embedded voice reads <b>English only</b>.<br>
<a href='{PAPER}' target='_blank' rel='noopener'>Paper</a>: <i>WAND: Windowed Attention and Knowledge Distillation for
Efficient Autoregressive Text-to-Speech Models</i>, Lee, Nguyen, Kang and Shim, Interspeech 2026.
<a href='{code}' target='_blank' rel='noopener'>Code</a> and embedded voice:
<a href='{code}/blob/main/LICENSE' target='_blank' rel='noopener'>Apache License 2.0</a>.
What you type and record stays on the server for an hour at most.</p>"""
