"""Players and sliders: sound that can be decoded again, a picture that follows its controls."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from wandlib import plots
from wandlib.plots import Picture, widgets
from wandlib.plots import tokens as diagrams
from wandlib.systems.base import Speech, Trace

RATE = 16_000
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def draw(height: int, kind: str) -> Picture:
    return plots.lines([plots.Curve(kind, [height, height])], x_label="x", y_label="y")


def test_a_player_holds_the_sound_itself() -> None:
    speech = Speech(TONE, RATE, np.zeros(25, np.int64), Trace("full", None, 1), "A tone.")
    html = widgets.Players({"a <b> tone": speech, "the same": (TONE, RATE)})._repr_html_()
    assert "a &lt;b&gt; tone" in html
    clips = [base64.b64decode(clip) for clip in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)]
    assert len(clips) == 2
    for clip in clips:
        assert len(clip) < TONE.nbytes / 8
        decoded, rate = soundfile.read(io.BytesIO(clip))
        assert len(decoded) / rate == pytest.approx(1.0, abs=0.05)
        strongest = np.fft.rfft(decoded).__abs__().argmax() * rate / len(decoded)
        assert strongest == pytest.approx(440, abs=2)


def test_players_say_the_same_on_every_machine() -> None:
    assert repr(widgets.Players({"tone": (TONE, RATE)})) == "<Players: tone>"


def test_the_picture_follows_the_controls() -> None:
    still = draw(1, "still")
    explorer = widgets.Explorer(draw, still, height=(1, 9, 2), kind=["a", "b"])
    assert explorer.png == draw(2, "a").png()
    explorer.controls["height"].value = 7
    assert explorer.png == draw(7, "a").png()
    explorer.controls["kind"].value = "b"
    assert explorer.png == draw(7, "b").png()


def test_one_output_in_two_forms() -> None:
    bundle, about = widgets.Explorer(draw, draw(1, "still"), height=(1, 9, 2), kind=["a"])._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == draw(1, "still").png()
    assert bundle["text/plain"].startswith("<Explorer: height, kind\ny over x")
    assert about["image/png"]["alt"].startswith("y over x")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_film_is_an_animated_png() -> None:
    frames = [diagrams.ring([0, -1], prompt=1, step=0), diagrams.ring([0, 1], prompt=1, step=1)]
    film = widgets.Film(frames, seconds=0.5)
    image: Any = Image.open(io.BytesIO(film.png()))
    assert (image.format, image.n_frames, image.info["duration"]) == ("PNG", 2, 500)
    still = Image.open(io.BytesIO(frames[0].png())).convert("RGB")
    assert image.convert("RGB").tobytes() == still.tobytes()
    assert repr(film).startswith("<Film of 2 frames, the last one:\n")


def test_film_without_frames() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        widgets.Film([])
