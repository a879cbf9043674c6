"""``python -m app.precompute``: speak the example of the page's head with the voice that ships, and store it.

Run it after another voice was trained. It writes ``app/precomputed/``: a sound for each side and ``result.json``.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from app.curves import colors
from app.headline import PRECOMPUTED
from app.results import figures, percent, size, step_words
from app.stage import long_of, three_sides
from app.tabs.compare import EXAMPLES
from app.turns import Side, take_turns
from wandlib.profiling.measure import machine
from wandlib.systems import load_system

TEXT = EXAMPLES[0]


def main() -> None:
    """Speak and write."""
    system, untrained = load_system("mini"), load_system("mini", student=False)
    speak(three_sides(system, lambda: untrained, system.window), "Ready.")  # a process's first steps are slow
    sides = three_sides(system, lambda: untrained, system.window)
    sounds = speak(sides, TEXT)
    PRECOMPUTED.mkdir(exist_ok=True)
    for key, sound in sounds.items():
        soundfile.write(PRECOMPUTED / f"{key}.ogg", sound, system.sample_rate, format="OGG", subtype="OPUS")
    result = describe(sides, system.window)
    (PRECOMPUTED / "result.json").write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result["shown"], indent=1))  # noqa: T201


def speak(sides: list[Side], text: str) -> dict[str, NDArray[np.float32]]:
    """Return the sound of each side, [samples], by its key."""
    pieces: dict[str, list[NDArray[np.float32]]] = {side.key: [] for side in sides}
    for side in sides:
        side.on_sound = pieces[side.key].append
        side.prepare([text], None, 0, None, long_of(sides[0].system))
    take_turns(sides, threading.Event())
    return {key: np.concatenate(found) for key, found in pieces.items()}


def describe(sides: list[Side], window: int) -> dict[str, Any]:
    """Return what the page shows."""
    found, system, shades = figures(sides), sides[0].system, colors(sides)
    assert found is not None
    cache = found["cache_bytes"]
    return {
        "text": TEXT,
        "window": window,
        "sample_rate": system.sample_rate,
        "codes_per_second": system.codes_per_second,
        "shown": {
            "cache": [size(cache[0]), size(cache[1]), percent(*cache)],
            "step": list(step_words(found)),
            "seconds": sides[0].sound_seconds,
            "machine": machine(),
        },
        "sides": {
            side.key: {
                "label": side.label,
                "color": shades[side.key],
                "attention": side.attention,
                "window": side.window,
                "conditioning": side.trace.conditioning,
                "parts": side.trace.parts,
                "one_cache": side.one_cache,
                "ended": side.ended,
                "seconds": side.sound_seconds,
                "milliseconds": [round(value, 2) for value in side.trace.milliseconds],
                "cache_bytes": side.trace.cache_bytes,
            }
            for side in sides
        },
    }


if __name__ == "__main__":
    main()
