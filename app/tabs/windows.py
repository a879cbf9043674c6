"""Window: one text at four sizes of the window and with full attention, in one player and one plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import gradio as gr

from app import controls
from app.request import TEXT_LIMIT, Request, read_request
from app.stage import Stage, long_of
from app.tabs.compare import EXAMPLES
from app.turns import Side
from app.view import Updates, View

SIZES = (4, 8, 16, 32)
"""Keys; full attention is the fifth."""


def build(stage: Stage) -> None:
    """Build the tab for any speech system."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            text = controls.text_box(stage, "windows", EXAMPLES[0], TEXT_LIMIT)
            speaker, recording, transcript = controls.voice(stage, "windows")
            weights = gr.Radio(
                [("the student's, trained for one W", "student"), ("the teacher's, untrained", "untrained")],
                value="student",
                label="Weights under the window",
                visible=stage.untrained is not None,
                elem_id="windows-weights",
            )
            buttons = controls.buttons("windows", "Speak five times")
            gr.Markdown(
                f"The student was trained for W = {stage.system.window}. A smaller window saves little more, since "
                "the reference and the last texts stay visible, and loses words; a larger one saves less."
                if stage.untrained is not None
                else "Full attention and four windows on the same weights."
            )
        with gr.Column(scale=5, min_width=300):
            view = View(stage, "windows", buttons)

    def sides(weights: str) -> list[Side]:
        untrained = weights == "untrained" and stage.untrained is not None
        system = stage.load_untrained() if untrained else stage.system
        return [
            *(Side(f"w{size}", f"W = {size}", system, "window", size) for size in SIZES),
            Side("full", "full attention", stage.system, "full"),
        ]

    def windows(
        text: str | None,
        speaker: str | None,
        recording: str | None,
        weights: str,
        transcript: str | None,
        request: gr.Request,
    ) -> Iterator[Updates]:
        def read() -> Request:
            asked = read_request(stage.system, text, speaker, recording, stage.system.window, transcript=transcript)
            return replace(asked, long=long_of(stage.system), further={"weights": weights})

        yield from view.run(read, lambda asked: sides(weights), request.session_hash or "")

    inputs = [text, speaker, recording, weights, transcript]
    controls.connect(view, [view.start.click, text.submit], windows, inputs)
    stage.links["windows"] = (TEXT_LIMIT, {"text": text, "speaker": speaker, "weights": weights})
