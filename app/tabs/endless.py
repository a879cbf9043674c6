"""Endless: a chapter, heard while it is made; full attention's cache grows, the window's does not.

The side whose cache takes more than the memory limit stops there, as on a device that has no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr

from app import controls
from app.request import CHAPTER_LIMIT, Request, pieces, read_request
from app.stage import Stage, long_of
from app.turns import Side
from app.view import Updates, View
from wandlib.systems.base import InputError
from wandlib.systems.settings import Long

CHAPTERS = {
    path.stem.lstrip("0123456789_").replace("_", " ").capitalize(): path
    for path in sorted((Path(__file__).parents[1] / "texts").iterdir())
}
"""Texts written for this page."""
LIMITS = [("no limit", 0.0), ("1.5 times what the window needs", 1.5), ("twice", 2.0), ("4 times", 4.0)]


LONG = [("as the voice was trained", "default"), ("in one cache", "one cache"), ("each in a new cache", "parts")]


def build(stage: Stage) -> None:
    """Build the tab for any speech system."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            chapter = gr.Dropdown(
                list(CHAPTERS), value=next(iter(CHAPTERS)), label="Chapter", filterable=False, elem_id="endless-chapter"
            )
            text = controls.text_box(stage, "endless", chapter_text(next(iter(CHAPTERS))), CHAPTER_LIMIT, lines=8)
            speaker, recording, transcript = controls.voice(stage, "endless")
            window = controls.window_slider(stage, "endless")
            memory = gr.Dropdown(
                LIMITS,
                value=1.5,
                label="Memory for a cache",
                info="a side that needs more stops, as it would on a small device",
                elem_id="endless-memory",
                filterable=False,
            )
            long = gr.Dropdown(
                LONG,
                value=long_of(stage.system) or "default",
                label="Parts of the chapter",
                info="in one cache, full attention grows until it ends; a voice has to be trained to go on for long",
                elem_id="endless-long",
                filterable=False,
                visible=stage.system.long_in_one_cache,
            )
            buttons = controls.buttons("endless", "Speak on and on")
        with gr.Column(scale=5, min_width=300):
            view = View(stage, "endless", buttons)

    def endless(
        text: str | None,
        speaker: str | None,
        recording: str | None,
        window: float,
        memory: float,
        long: str,
        transcript: str | None,
        request: gr.Request,
    ) -> Iterator[Updates]:
        def read() -> Request:
            asked = read_request(
                stage.system, text, speaker, recording, window, limit=CHAPTER_LIMIT, transcript=transcript
            )
            chosen: dict[str, Long | None] = {"default": None, "one cache": "one cache", "parts": "parts"}
            if not isinstance(long, str) or long not in chosen:
                raise InputError("unknown way to join the parts: choose one from the list")
            if isinstance(memory, bool) or not isinstance(memory, int | float):
                raise InputError("the memory limit is a number: choose one from the list")
            return replace(asked, long=chosen[long], further={"memory": float(memory), "long": long})

        yield from view.run(
            read,
            lambda asked: stage.sides(asked.window, with_untrained=False)[::-1],
            request.session_hash or "",
            texts=lambda asked: pieces(asked.text) or [""],
            memory_limit=times_the_window(memory),
        )

    chapter.input(chapter_text, chapter, text, api_visibility="private", queue=False)
    inputs = [text, speaker, recording, window, memory, long, transcript]
    controls.connect(view, [view.start.click, text.submit], endless, inputs)
    stage.links["endless"] = (
        CHAPTER_LIMIT,
        {"text": text, "speaker": speaker, "window": window, "memory": memory, "long": long},
    )


def chapter_text(title: str) -> str:
    """Return one of the chapters."""
    return CHAPTERS[title].read_text(encoding="utf-8").strip()


def times_the_window(factor: float) -> Callable[[list[Side]], float]:
    """Return the memory limit as a function of the sides: ``factor`` times the window's peak; 0: none."""

    def limit(sides: list[Side]) -> float:
        (window,) = (side for side in sides if side.key == "window")
        return factor * window.peak_bytes if factor and window.peak_bytes else float("inf")

    return limit
