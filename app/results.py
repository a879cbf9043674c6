"""A run in words and numbers: the two large figures, the sentence, warnings, the table, and the files to take home."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import psutil

from app.curves import bytes_in_use
from app.request import Request
from app.turns import Side
from wandlib.plots import byte_unit

ENDINGS = {
    "": "speaking",
    "end": "done",
    "limit": "length limit",
    "memory": "memory limit",
    "failed": "error",
    "stopped": "stopped",
}
WITHIN = ", within the spread of the steps"
"""Added to a difference that is smaller than the spread."""
FAR = 4
"""A window this many times smaller or larger than the trained one gets a warning."""


def size(count: float) -> str:
    """Write a number of bytes: 1.55 MB."""
    divisor, unit = byte_unit(max(count, 1))
    return f"{count / divisor:.3g} {unit}"


def percent(before: float, after: float) -> str:
    """Write a difference: "−52 %"; nothing where there is nothing to compare with."""
    if not before:
        return ""
    change = 100 * (after / before - 1)
    change = round(change, 1) if -100 < change < -99 else round(change)  # not all is gone
    return f"{'−' if change < 0 else '+' if change > 0 else '±'}{abs(change)} %"


def compared(sides: Sequence[Side]) -> tuple[Side, Side] | None:
    """Return the two sides that the page compares, full attention and the window, once both have made a step."""
    full = next((side for side in sides if side.attention == "full" and side.trace.steps), None)
    window = next((side for side in sides if side.key == "window" and side.trace.steps), None)
    return None if full is None or window is None else (full, window)


def figures(sides: Sequence[Side]) -> dict[str, Any] | None:
    """Return what the page's large numbers compare: full attention's cache and step time, and the window's."""
    pair = compared(sides)
    return pair and {
        "cache_bytes": [float(bytes_in_use(side)[-1]) for side in pair],
        "milliseconds": [side.trace.median_milliseconds for side in pair],
        "spread": [spread(side) for side in pair],
    }


def step_words(found: dict[str, Any]) -> tuple[str, str, str]:
    """Write both step times and their difference, and say where it is smaller than the times vary in each."""
    full, window = found["milliseconds"]
    (full_low, full_high), (window_low, window_high) = found["spread"]
    within = full_low <= window <= full_high and window_low <= full <= window_high
    return f"{full:.2f} ms", f"{window:.2f} ms", percent(full, window) + (WITHIN if within else "")


def spread(side: Side) -> tuple[float, float]:
    """Return the quartiles of a side's milliseconds per step."""
    ordered = sorted(step.milliseconds for step in list(side.trace.steps))
    return (ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]) if ordered else (0.0, 0.0)


def status(sides: Sequence[Side], before: int, finished: bool) -> str:
    """Say in a line what is going on; the page reads it out."""
    if before:
        return f"Waiting: {before} before you."
    if finished and any(side.ended == "stopped" for side in sides):
        return "Stopped. What was made so far stays." if any(side.samples for side in sides) else "Stopped."
    if not any(side.trace.steps for side in sides):
        return "Nothing to say." if finished else "Reading the text …"
    if not finished:
        at = " · ".join(
            f"{side.label}: {ENDINGS[side.ended] if side.ended else f'step {len(side.trace.steps):,}'}"
            for side in sides
        )
        return f"Speaking. {at}"
    if not any(side.samples for side in sides):
        return "Ended without a sound."
    return f"Done. {conclusion(sides)}"


def conclusion(sides: Sequence[Side]) -> str:
    """Put the result in a sentence."""
    pair = compared(sides)
    if pair is None:
        return "Listen to them."
    full, window = pair
    less = 100 * (1 - window.peak_bytes / full.peak_bytes)
    said = "less" if less > 0 else "more"
    return (
        f"At its largest, the window's cache took {size(window.peak_bytes)}, full attention's {size(full.peak_bytes)}: "
        f"{abs(less):.0f} % {said}."
    )


def warnings(sides: Sequence[Side], window: int | None, trained: int) -> list[str]:
    """Return what a listener should know of this result."""
    found = []
    for side in sides:
        if side.ended == "limit":
            found.append(
                f"{side.label} never found the end of the text and was cut at the length limit: a known failure."
            )
        elif side.ended == "memory":
            found.append(f"{side.label} stopped after {side.sound_seconds:.0f} s: its cache took more than it may.")
        elif side.ended == "failed":
            found.append(f"{side.label} ended early: {side.failure}.")
    parts = max((len(side.trace.parts) for side in sides if not side.one_cache), default=0)
    if parts > 1:
        found.append(
            f"This voice says long texts in parts, {parts} here. Each begins with an empty cache: dotted lines above."
        )
    joined = max((len(side.trace.parts) for side in sides if side.one_cache), default=0)
    if joined > 1:
        found.append(
            f"This text was read in {joined} parts in one cache. Each brings a text of its own, so the cache's curves "
            "step up where one begins. The window forgets older parts; full attention keeps them all."
        )
    if window is not None and window * FAR <= trained:
        found.append(f"W = {window} is far below {trained}, for which the student was trained: expect lost words.")
    if window is not None and window >= FAR * trained:
        found.append(f"W = {window} is far above {trained}, for which the student was trained: it saves less.")
    return found


def rows(sides: Sequence[Side], request: Request) -> list[tuple[str, list[str]]]:
    """Return the table: a quantity and its value for each side."""
    speed = [side.sound_seconds / side.seconds if side.seconds else 0.0 for side in sides]
    quartiles = [spread(side) for side in sides]
    return [
        ("W, codes that it sees", ["all" if side.window is None else str(side.window) for side in sides]),
        ("speech", [f"{side.sound_seconds:.2f} s" for side in sides]),
        ("first sound after", [f"{side.trace.first_sound_milliseconds:,.0f} ms" for side in sides]),
        ("total time", [f"{side.seconds:.2f} s" for side in sides]),
        ("speed", [f"{times:.1f} × faster than speech" if times >= 1 else f"{times:.2f} × speech" for times in speed]),
        ("steps", [f"{len(side.trace.steps):,}" for side in sides]),
        ("prompt: text and voice", [f"{side.trace.conditioning:,} tokens" for side in sides]),
        ("cache, largest", [size(side.peak_bytes) for side in sides]),
        ("time a step, median", [f"{side.trace.median_milliseconds:.2f} ms" for side in sides]),
        ("half of all steps took", [f"{low:.2f} to {high:.2f} ms" for low, high in quartiles]),
        ("model weights", [size(side.weight_bytes) if side.weight_bytes else "–" for side in sides]),
        ("ended by", [ENDINGS[side.ended] for side in sides]),
        ("seed", [str(request.seed)] * len(sides)),
    ]


def table(sides: Sequence[Side], request: Request) -> str:
    """Draw the table and the memory of the whole process, as HTML."""
    heads = "".join(f"<th scope='col'>{escape(side.label)}</th>" for side in sides)
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for name, values in rows(sides, request)
    )
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='Numbers'><table><thead><tr><td></td>{heads}</tr>"
        f"</thead><tbody>{body}</tbody></table></div><p class='memory'>{escape(memory())}</p>"
    )


def memory() -> str:
    """Say what the whole process takes, and the GPU where one is in use."""
    said = f"The whole process takes {size(psutil.Process().memory_info().rss)} of memory"
    import torch

    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        said += f", and {size(torch.cuda.max_memory_allocated())} on the GPU"
    return f"{said}."


def as_json(sides: Sequence[Side], request: Request) -> dict[str, Any]:
    """Return the run with every step, for the file and for programs."""
    return {
        "text": request.text,
        **request.settings(),
        "sides": {
            side.key: {
                "label": side.label,
                "attention": side.attention,
                "window": side.window,
                "conditioning": side.trace.conditioning,
                "parts": side.trace.parts,
                "one_cache": side.one_cache,
                "ended": side.ended,
                "speech_seconds": side.sound_seconds,
                "seconds": side.seconds,
                "first_sound_milliseconds": side.trace.first_sound_milliseconds,
                "prefill_milliseconds": side.trace.prefill_milliseconds,
                "weight_bytes": side.weight_bytes,
                "milliseconds": [round(value, 4) for value in side.trace.milliseconds],
                "cache_bytes": side.trace.cache_bytes,
            }
            for side in sides
        },
    }


def as_csv(sides: Sequence[Side]) -> str:
    """Return every step as a row: side, step, milliseconds, cache_bytes."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["side", "step", "milliseconds", "cache_bytes"])
    for side in sides:
        writer.writerows(
            [side.key, step.index, f"{step.milliseconds:.4f}", step.cache_bytes] for step in side.trace.steps
        )
    return text.getvalue()
