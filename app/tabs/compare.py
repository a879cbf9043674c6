"""Compare: the same text by teacher, student and untrained window, decoded in turn, heard at the same place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import gradio as gr

from app import blind, controls
from app.examples import example_sides
from app.request import TEXT_LIMIT, Request, read_request
from app.stage import Stage, long_of
from app.view import Updates, View

EXAMPLES = [
    "A window forgets what was said long ago, but never what it was asked to say, and so it can speak for a long time "
    "without ever needing more memory than it needed in its first second.",
    "Glue the sheet to the dark blue background, then read these three numbers: 7, 12 and 90.",
    "The birch canoe slid on the smooth planks.",
]


def build(stage: Stage) -> None:
    """Build the tab for any speech system."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            text = controls.text_box(stage, "compare", EXAMPLES[0], TEXT_LIMIT)
            speaker, recording, transcript = controls.voice(stage, "compare")
            window = controls.window_slider(stage, "compare")
            untrained = gr.Checkbox(
                stage.untrained is not None,
                label="Also without training: the teacher's weights with this window",
                visible=stage.untrained is not None,
                elem_id="compare-untrained",
            )
            seed, temperature = controls.sampling("compare")
            buttons = controls.buttons("compare", "Speak")
            gr.Examples([[example] for example in EXAMPLES], [text], label="Examples", elem_id="examples")
        with gr.Column(scale=5, min_width=300):
            view = View(stage, "compare", buttons, example_sides())

    def compare(
        text: str | None,
        speaker: str | None,
        recording: str | None,
        window: float,
        seed: float | None,
        temperature: str | float,
        untrained: bool,
        transcript: str | None,
        request: gr.Request,
    ) -> Iterator[Updates]:
        def read() -> Request:
            asked = read_request(
                stage.system, text, speaker, recording, window, seed, temperature, transcript=transcript
            )
            return replace(asked, long=long_of(stage.system), further={"untrained": bool(untrained)})

        yield from view.run(
            read,
            lambda asked: stage.sides(asked.window, with_untrained=asked.further["untrained"]),
            request.session_hash or "",
        )

    inputs = [text, speaker, recording, window, seed, temperature, untrained, transcript]
    controls.connect(view, [view.start.click, text.submit], compare, inputs)
    stage.links["compare"] = (
        TEXT_LIMIT,
        {
            "text": text,
            "speaker": speaker,
            "window": window,
            "seed": seed,
            "temperature": temperature,
            "untrained": untrained,
        },
    )
    if stage.system.speakers:  # one of them says the sentences
        with gr.Accordion("Blind test: can you hear which one forgets?", open=False, elem_id="blind"):
            blind.build(stage)
