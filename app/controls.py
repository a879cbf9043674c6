"""The controls that several tabs have: text, voice, window, sampling, and the buttons."""

from __future__ import annotations

import html
import random
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.request import SEED_LIMIT, TEMPERATURES, WINDOW_LIMITS
from app.stage import Stage
from app.view import TOAST_SECONDS, View
from wandlib.systems.base import InputError
from wandlib.systems.sound_file import open_sound

W_MEANS = "W: how many of the last codes a step sees, besides the text and the reference voice"


def text_box(stage: Stage, tab: str, value: str, limit: int, lines: int = 4) -> gr.Textbox:
    """Add the text to be said."""
    return gr.Textbox(
        value,
        label="Text (English only)" if stage.system.name == "mini" else "Text",
        info=f"up to {limit:,} characters; Shift+Enter starts",
        lines=lines,
        max_lines=12,
        elem_id=f"{tab}-text",
    )


def voice(stage: Stage, tab: str) -> tuple[gr.Dropdown, gr.Audio, gr.Textbox]:
    """Add the choice of a built-in speaker, or a recording in its place; some systems ask what that says."""
    speakers, embedded = stage.system.speakers, stage.system.name == "mini"
    speaker = gr.Dropdown(
        speakers, value=next(iter(speakers), None), label="Speaker", elem_id=f"{tab}-speaker", filterable=False
    )
    with gr.Accordion("Or imitate a recording", open=not speakers):
        recording = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Recording",
            buttons=["download"],
            elem_id=f"{tab}-recording",
        )
        transcript = gr.Textbox(
            "",
            label="What the recording says",
            info="every word of it, if you know them",
            visible=stage.reads_transcripts,
            elem_id=f"{tab}-transcript",
        )
        gr.Markdown(
            "One speaker, 3 to 10 seconds are best, up to 20 MB; one that is too short or too long is refused. While a "
            "recording is here, it is used in place of the speaker above. Imitate a person's voice only with that "
            "person's consent."
            + (" The embedded voice does not imitate people: it comes out nearer to its own." if embedded else "")
        )
    recording.upload(usable, recording, recording, api_visibility="private", show_progress="hidden")
    return speaker, recording, transcript


def usable(recording: str | None) -> Any:
    """Take away an upload whose header says already that it cannot be read, and say why."""
    if recording is not None:
        try:
            with open_sound(recording):
                pass
        except InputError as problem:
            gr.Warning(html.escape(str(problem), quote=False), duration=TOAST_SECONDS)
            return None
    return gr.skip()


def window_slider(stage: Stage, tab: str) -> gr.Slider:
    """Add the size of the window."""
    return gr.Slider(
        *WINDOW_LIMITS,
        value=stage.system.window,
        step=1,
        label=f"Window W (trained: {stage.system.window})",
        info=W_MEANS,
        elem_id=f"{tab}-window",
    )


def sampling(tab: str) -> tuple[gr.Number, gr.Dropdown]:
    """Add temperature and seed, folded in: most visitors need neither."""
    with gr.Accordion("Temperature and seed", open=False):
        temperature = gr.Dropdown(
            TEMPERATURES,
            value="default",
            label="Temperature",
            info="0 always chooses the likeliest code; higher values draw",
            elem_id=f"{tab}-temperature",
            filterable=False,
        )
        seed = gr.Number(
            0,
            label="Seed",
            info="has an effect where codes are drawn: above temperature 0",
            minimum=0,
            maximum=SEED_LIMIT,
            elem_id=f"{tab}-seed",
        )
        dice = gr.Button("Draw a seed, at temperature 0.7", size="sm")
        dice.click(
            lambda: (random.randrange(10_000), 0.7), None, [seed, temperature], api_visibility="private", queue=False
        )
    return seed, temperature


def buttons(tab: str, start_label: str) -> tuple[gr.Button, gr.Button]:
    """Add start and stop; stop can be pressed while something runs."""
    with gr.Row():
        start = gr.Button(start_label, variant="primary", size="lg", elem_id=f"{tab}-start", scale=3, min_width=140)
        halt = gr.Button("Stop", variant="stop", size="lg", elem_id=f"{tab}-stop", interactive=False, min_width=80)
    return start, halt


def connect(view: View, triggers: list[Any], run: Callable[..., Any], inputs: list[Any]) -> None:
    """Let the triggers start ``run``, and the view's stop button end it."""

    def stop(request: gr.Request) -> None:
        view.stage.stop(request.session_hash or "")

    gr.on(
        triggers,
        run,
        inputs,
        view.outputs,
        api_name=view.tab,
        show_progress="hidden",
        concurrency_limit=None,
        trigger_mode="once",
    )
    view.halt.click(stop, None, None, queue=False, show_progress="hidden", api_visibility="private")
