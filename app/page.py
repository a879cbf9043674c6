"""The page: what is asked on the left, two players, live curves and the numbers on the right."""

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

from app.comparison import Comparison, Look, Request, Side
from app.curves import cache_curves, milliseconds_curves
from wandlib.systems.base import InputError, Speech, SpeechSystem

TEXT_LIMIT = 1000
"""Characters."""
WINDOW_LIMITS = (2, 256)
"""Keys."""
SEED_LIMIT = 2**31 - 1
UPLOAD_LIMIT = "20mb"
CACHE_SECONDS = (600, 3600)
"""How often sounds, uploaded ones too, are looked through, and their age at deletion; all go when the server ends."""
WAITING_LIMIT = 16
"""Requests that may queue; one is served at a time."""

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

CSS = """
.gradio-container {max-width: 1280px !important; margin: 0 auto}
#heading h1 {font-size: 1.9rem; margin-bottom: .2rem}
#heading p {font-size: 1.05rem; opacity: .85}
figure {margin: 0; padding: .6rem .8rem .2rem}
figcaption {font-weight: 600; padding-bottom: .3rem}
svg.curves {width: 100%; height: auto; display: block}
.dark svg.curves polyline, .dark svg.curves text[font-weight] {filter: brightness(1.5)}
#full, #windowed {min-height: 190px}
#numbers table, #numbers table * {font-family: inherit; font-size: .8rem}
#numbers th * {padding-left: 1px; padding-right: 1px; word-break: normal !important; overflow-wrap: normal !important}
#status {min-height: 1.6rem; overflow: hidden}
#status .error, #status .clear-status {display: none}
"""


def build_app(system: SpeechSystem) -> gr.Blocks:
    """The page for any speech system; open it with :func:`launch`."""
    comparison = Comparison(system)
    stops: dict[str, threading.Event] = {}

    def compare(
        text: str | None,
        speaker: str,
        recording: str | None,
        window: float,
        seed: float | None,
        temperature: str | float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        session = request.session_hash or ""
        halted = stops[session] = threading.Event()
        heard = 0
        try:
            asked = _read(system, text, speaker, recording, window, seed, temperature)
            yield None, None, *_curves(None, asked.window), [], "Starting …"
            for look in comparison.watch(asked, halted):
                complete = sum(side.speech is not None for side in (look.full, look.window))
                players = [_player(look.full), _player(look.window)]
                # A player that gets the same sound again starts anew: send it when it is new, and at the end.
                if complete == heard and not look.finished:
                    players = [gr.skip(), gr.skip()]
                heard = complete
                yield *players, *_curves(look, asked.window), _numbers(look, asked), _status(look)
        except InputError as problem:
            yield *[gr.skip()] * 5, "Nothing was spoken."
            raise _shown(str(problem)) from problem
        except Exception as failure:
            logging.getLogger(__name__).exception("synthesis failed")
            yield *[gr.skip()] * 5, "Nothing was spoken."
            raise _shown("Something went wrong in the server; its console says what. Please try again.") from failure
        finally:
            halted.set()
            if stops.get(session) is halted:
                del stops[session]

    def stop(request: gr.Request) -> None:
        if running := stops.get(request.session_hash or ""):
            running.set()

    with gr.Blocks(
        title="wandlib: full attention and the window",
        analytics_enabled=False,
        delete_cache=CACHE_SECONDS,
    ) as page:
        gr.Markdown(
            "# Full attention and the window\n"
            "One sentence, spoken twice by the same speech model: once its cache keeps every step, once only the "
            "prompt and the last W steps. Listen to both, and watch what each step costs while they speak.",
            elem_id="heading",
        )
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
                speaker = gr.Dropdown(system.speakers, value=system.speakers[0], label="Speaker", elem_id="speaker")
                with gr.Accordion("Or a voice of your own", open=False):
                    recording = gr.Audio(
                        sources=["upload", "microphone"],
                        type="filepath",
                        label="A recording to take the voice from",
                        elem_id="recording",
                    )
                window = gr.Slider(
                    *WINDOW_LIMITS, value=system.window, step=1, label="W, the window, in steps", elem_id="window"
                )
                with gr.Row():
                    seed = gr.Number(
                        0,
                        label="Seed",
                        info="matters above temperature 0",
                        precision=0,
                        minimum=0,
                        maximum=SEED_LIMIT,
                        min_width=120,
                    )
                    temperature = gr.Dropdown(TEMPERATURES, value="default", label="Temperature", min_width=120)
                with gr.Row():
                    another = gr.Button("New seed", min_width=80)
                    halt = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80)
                start = gr.Button("Speak twice", variant="primary", size="lg", elem_id="start")
                gr.Examples([[example] for example in EXAMPLES], [text], label="Examples", elem_id="examples")
            with gr.Column(scale=5, min_width=480):
                status = gr.Markdown("", elem_id="status")
                with gr.Row():
                    full_player = gr.Audio(
                        label="Full attention", interactive=False, elem_id="full", buttons=["download"]
                    )
                    window_player = gr.Audio(
                        label="Window", interactive=False, elem_id="windowed", buttons=["download"]
                    )
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
    page.queue(max_size=WAITING_LIMIT)
    return page


def launch(page: gr.Blocks, host: str, port: int) -> str:
    """Serve the page in the background, never through a public tunnel; returns its address."""
    fonts = ["system-ui", "sans-serif"]
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=UPLOAD_LIMIT,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        # Fonts by name only: the default theme fetches its own from the network.
        theme=gr.themes.Soft(font=fonts, font_mono=["ui-monospace", "monospace"], primary_hue="blue"),
        css=CSS,
    )
    return str(address)


def _read(
    system: SpeechSystem,
    text: str | None,
    speaker: str,
    recording: str | None,
    window: float,
    seed: float | None,
    temperature: str | float,
) -> Request:
    """Check what came over the wire: the page's own limits do not bind whoever writes to the server directly."""
    text = text or ""
    if len(text) > TEXT_LIMIT:
        raise InputError(f"the text has {len(text):,} characters; the limit here is {TEXT_LIMIT:,}: shorten it")
    if speaker not in system.speakers:
        raise InputError("this speaker is not known: choose one from the list")
    low, high = WINDOW_LIMITS
    if not _whole(window, low, high):
        raise InputError(f"W must be a whole number from {low} to {high}")
    if not _whole(seed, 0, SEED_LIMIT):
        raise InputError(f"the seed must be a whole number from 0 to {SEED_LIMIT}")
    if temperature not in [value for _, value in TEMPERATURES]:
        raise InputError("this temperature is not known: choose one from the list")
    return Request(
        text=text,
        reference=speaker if recording is None else Path(recording),
        window=int(window),
        seed=int(seed),
        temperature=None if temperature == "default" else float(temperature),
    )


def _whole(value: object, low: int, high: int) -> TypeGuard[float]:
    """Whether a number from the page, or from a request made by hand, is a whole one between the limits."""
    return isinstance(value, (int, float)) and low <= value <= high and value == int(value)


def _shown(message: str) -> gr.Error:
    """An error that stays on the page until it is closed, its text taken as text."""
    return gr.Error(html.escape(message, quote=False), duration=None, print_exception=False)


def _curves(look: Look | None, window: int) -> tuple[str, str]:
    full, windowed = (look.full.steps, look.window.steps) if look else ([], [])
    # The thread that generates goes on appending: each picture takes a copy.
    return (
        cache_curves(list(full), list(windowed), window),
        milliseconds_curves(list(full), list(windowed), window),
    )


def _player(side: Side) -> tuple[int, NDArray[np.int16]] | None:
    """Rate and 16-bit samples; gradio would stretch floats to full scale, and a quiet voice would turn loud."""
    if side.speech is None:
        return None
    samples = np.clip(side.speech.waveform, -1, 1) * 32767
    return side.speech.sample_rate, samples.astype(np.int16)


def _status(look: Look) -> str:
    if look.stopped:
        return "Stopped."
    if look.finished:
        return "Done: play both."
    if look.full.speech is None:
        return (
            f"Full attention speaks: step {len(look.full.steps)} …"
            if look.full.steps
            else "Waiting for the first step …"
        )
    return f"The window speaks: step {len(look.window.steps)} …"


def _numbers(look: Look, asked: Request) -> list[list[str]]:
    """The table: one row a side, one column a quantity; a side that is not complete has no row yet."""
    sides = [("full", "all", look.full.speech), ("window", str(asked.window), look.window.speech)]
    return [
        [
            attention,
            window,
            str(asked.seed),
            f"{speech.seconds:.2f}",
            str(len(speech.trace.steps)),
            str(speech.trace.conditioning),
            f"{_last_bytes(speech) / 1e3:,.1f}",
            f"{speech.trace.median_milliseconds:.2f}",
            f"{speech.real_time_factor:.3f}",
            {"end": "end token", "limit": "length limit"}[speech.trace.finish],
        ]
        for attention, window, speech in sides
        if speech
    ]


def _last_bytes(speech: Speech) -> int:
    return speech.trace.steps[-1].cache_bytes if speech.trace.steps else 0
