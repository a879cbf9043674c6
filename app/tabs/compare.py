"""Compare: what to say on the left; two players, live curves and the numbers on the right."""

from __future__ import annotations

import html
import logging
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from app.comparison import Comparison, Request, Run, Snapshot
from app.curves import cache_curves, milliseconds_curves
from wandlib.systems.base import InputError, Speech, SpeechSystem

TEXT_LIMIT = 1000
"""Characters."""
WINDOW_LIMITS = (2, 256)
"""Keys."""
SEED_LIMIT = 2**31 - 1

EXAMPLES = [
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background, then read these three numbers: 7, 12 and 90.",
    "A window forgets what was said long ago, but never what it was asked to say, and so it can speak for a long time "
    "without ever needing more memory than it needed in its first second.",
]

TEMPERATURES: list[tuple[str, str | float]] = [
    ("default", "default"),
    ("0 – greedy", 0.0),
    *((f"{value:g}", value) for value in (0.3, 0.5, 0.7, 0.9, 1.1)),
]

QUANTITIES = (
    "attention",
    "W",
    "seed",
    "speech (s)",
    "steps",
    "prompt (tokens)",
    "cache at the end (kB)",
    "median step (ms)",
    "real-time factor",
    "ended by",
)


def build(page: gr.Blocks, system: SpeechSystem) -> None:
    """Build the tab for any speech system."""
    comparison = Comparison(system)
    stops: dict[str, threading.Event] = {}

    def compare(
        text: str | None,
        speaker: str | None,
        recording: str | None,
        window: float,
        seed: float | None,
        temperature: str | float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        session = request.session_hash or ""
        halted = stops[session] = threading.Event()
        shown = 0
        try:
            settings = _read(system, text, speaker, recording, window, seed, temperature)
            yield None, None, *_curves(None, settings.window), [], "Starting …"
            for snapshot in comparison.stream(settings, halted):
                complete = sum(run.speech is not None for run in (snapshot.full, snapshot.window))
                players = [_player(snapshot.full), _player(snapshot.window)]
                # A player that receives the same sound again starts over: send it when it is new, and at the end.
                if complete == shown and not snapshot.finished:
                    players = [gr.skip(), gr.skip()]
                shown = complete
                yield *players, *_curves(snapshot, settings.window), _numbers(snapshot, settings), _status(snapshot)
        except InputError as problem:
            yield *[gr.skip()] * 5, "Nothing was synthesized."
            raise _shown(str(problem)) from problem
        except Exception as failure:
            logging.getLogger(__name__).exception("synthesis failed")
            yield *[gr.skip()] * 5, "Nothing was synthesized."
            raise _shown("Something went wrong in the server; see its console for the reason.") from failure
        finally:
            halted.set()
            if stops.get(session) is halted:
                del stops[session]

    def stop(request: gr.Request) -> None:
        if running := stops.get(request.session_hash or ""):
            running.set()

    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            text = gr.Textbox(
                EXAMPLES[0],
                label="Text",
                lines=3,
                max_lines=8,
                elem_id="text",
                autofocus=True,
            )
            speaker = gr.Dropdown(
                system.speakers, value=next(iter(system.speakers), None), label="Speaker", elem_id="speaker"
            )
            with gr.Accordion("Or use your own voice", open=False):
                recording = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Recording of the voice to imitate",
                    elem_id="recording",
                )
            window = gr.Slider(
                *WINDOW_LIMITS, value=system.window, step=1, label="Window W, in steps", elem_id="window"
            )
            with gr.Row():
                seed = gr.Number(
                    0,
                    label="Seed",
                    info="used above temperature 0",
                    precision=0,
                    minimum=0,
                    maximum=SEED_LIMIT,
                    min_width=120,
                )
                temperature = gr.Dropdown(TEMPERATURES, value="default", label="Temperature", min_width=120)
            with gr.Row():
                another = gr.Button("New seed", min_width=80)
                halt = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80)
            start = gr.Button("Synthesize both", variant="primary", size="lg", elem_id="start")
            gr.Examples([[example] for example in EXAMPLES], [text], label="Examples", elem_id="examples")
        with gr.Column(scale=5, min_width=480):
            status = gr.Markdown("", elem_id="status")
            with gr.Row():
                full_player = gr.Audio(label="Full attention", interactive=False, elem_id="full", buttons=["download"])
                window_player = gr.Audio(label="Window", interactive=False, elem_id="windowed", buttons=["download"])
            with gr.Row():
                empty = _curves(None, system.window)
                cache = gr.HTML(empty[0], elem_id="cache")
                milliseconds = gr.HTML(empty[1], elem_id="milliseconds")
            numbers = gr.Dataframe(
                headers=list(QUANTITIES),
                datatype="str",
                interactive=False,
                label="Numbers",
                elem_id="numbers",
                buttons=[],
                wrap=True,
                column_widths=["12%", "7%", "8%", "9%", "8%", "11%", "13%", "11%", "10%", "11%"],
                type="array",
            )
    gr.on(
        [start.click, text.submit],
        compare,
        [text, speaker, recording, window, seed, temperature],
        [full_player, window_player, cache, milliseconds, numbers, status],
        api_name="compare",
        show_progress="minimal",
        show_progress_on=status,
        concurrency_limit=1,
        trigger_mode="once",
    )
    halt.click(stop, api_name="stop", queue=False, show_progress="hidden")
    another.click(lambda: random.randrange(10_000), None, seed, api_visibility="private", queue=False)
    page.unload(stop)


def _read(
    system: SpeechSystem,
    text: str | None,
    speaker: str | None,
    recording: str | None,
    window: float,
    seed: float | None,
    temperature: str | float,
) -> Request:
    """Check a request: the page's own limits do not bind a client that calls the server directly."""
    text = text or ""
    if len(text) > TEXT_LIMIT:
        raise InputError(f"the text has {len(text):,} characters; the limit here is {TEXT_LIMIT:,}: shorten it")
    if recording is None and not system.speakers:
        raise InputError("this system has no built-in speaker: give a recording of the voice to imitate")
    if speaker not in system.speakers and system.speakers:
        raise InputError("unknown speaker: choose one from the list")
    low, high = WINDOW_LIMITS
    if not _whole(window, low, high):
        raise InputError(f"W must be a whole number from {low} to {high}")
    if not _whole(seed, 0, SEED_LIMIT):
        raise InputError(f"the seed must be a whole number from 0 to {SEED_LIMIT}")
    if temperature not in [value for _, value in TEMPERATURES]:
        raise InputError("unknown temperature: choose one from the list")
    return Request(
        text=text,
        reference=speaker if recording is None else Path(recording),
        window=int(window),
        seed=int(seed),
        temperature=None if temperature == "default" else float(temperature),
    )


def _whole(value: object, low: int, high: int) -> TypeGuard[float]:
    """Tell whether a value from the page, or from a handwritten request, is a whole number between the limits."""
    return isinstance(value, (int, float)) and low <= value <= high and value == int(value)


def _shown(message: str) -> gr.Error:
    """Make an error that stays on the page until it is closed; the message is plain text, not HTML."""
    return gr.Error(html.escape(message, quote=False), duration=None, print_exception=False)


def _curves(snapshot: Snapshot | None, window: int) -> tuple[str, str]:
    full, windowed = (snapshot.full.steps, snapshot.window.steps) if snapshot else ([], [])
    # The generating thread goes on appending: each picture takes a copy.
    return (
        cache_curves(list(full), list(windowed), window),
        milliseconds_curves(list(full), list(windowed), window),
    )


def _player(run: Run) -> tuple[int, NDArray[np.int16]] | None:
    """Return rate and 16-bit samples: gradio would scale floats to full range and make a quiet voice loud."""
    if run.speech is None:
        return None
    samples = np.clip(run.speech.waveform, -1, 1) * 32767
    return run.speech.sample_rate, samples.astype(np.int16)


def _status(snapshot: Snapshot) -> str:
    if snapshot.stopped:
        return "Stopped."
    if snapshot.finished:
        return "Done: play both."
    if snapshot.full.speech is None:
        return (
            f"Full attention: step {len(snapshot.full.steps)} …"
            if snapshot.full.steps
            else "Waiting for the first step …"
        )
    return f"Window: step {len(snapshot.window.steps)} …"


def _numbers(snapshot: Snapshot, settings: Request) -> list[list[str]]:
    """Return the rows of the table, one for each complete run, with a column for each quantity."""
    runs = [("full", "all", snapshot.full.speech), ("window", str(settings.window), snapshot.window.speech)]
    return [
        [
            attention,
            window,
            str(settings.seed),
            f"{speech.seconds:.2f}",
            str(len(speech.trace.steps)),
            str(speech.trace.conditioning),
            f"{_last_bytes(speech) / 1e3:,.1f}",
            f"{speech.trace.median_milliseconds:.2f}",
            f"{speech.real_time_factor:.3f}",
            {"end": "end token", "limit": "length limit"}[speech.trace.finish],
        ]
        for attention, window, speech in runs
        if speech
    ]


def _last_bytes(speech: Speech) -> int:
    return speech.trace.steps[-1].cache_bytes if speech.trace.steps else 0
