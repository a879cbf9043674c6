"""Notebook outputs other than figures: players for sound, figures with sliders, animations.

Sound is stored as short compressed clips inside the page. A figure with sliders is one output in two forms: the live
widget for a page with a running kernel, and a still picture for any other (a repository's viewer, a print).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wandlib.plots.charts import Picture
from wandlib.plots.description import describe
from wandlib.systems.base import Speech

Sound = Speech | tuple[NDArray[np.float32], int]
"""A speech, or a mono waveform [samples] with its rate in Hz."""
Range = tuple[int, int, int] | Sequence[Any]
"""A slider over whole numbers, (lowest, highest, start), or a menu, a list of choices that starts with the first."""


class Players:
    """Labeled audio players, one for each sound.

    Parameters
    ----------
    sounds
        Sounds by label.
    """

    def __init__(self, sounds: Mapping[str, Sound]) -> None:
        self.sounds = dict(sounds)

    def __repr__(self) -> str:
        return f"<Players: {', '.join(self.sounds)}>"

    def _repr_html_(self) -> str:
        rows = (
            f'<tr><td style="text-align: left">{escape(label)}</td><td><audio controls preload="metadata" '
            f'src="data:audio/ogg;base64,{base64.b64encode(compressed(sound)).decode()}"></audio></td></tr>'
            for label, sound in self.sounds.items()
        )
        return f"<table>{''.join(rows)}</table>"


def compressed(sound: Sound) -> bytes:
    """Encode a sound as Ogg Opus: a few kilobytes a second."""
    import soundfile

    waveform, rate = (sound.waveform, sound.sample_rate) if isinstance(sound, Speech) else sound
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format="OGG", subtype="OPUS")
    return buffer.getvalue()


class Explorer:
    """A figure with a slider or a menu for each value.

    Parameters
    ----------
    draw
        Function that makes the picture from the values.
    still
        Picture for pages without a kernel, which shows the same without sliders: several settings side by side.
    sliders
        Ranges by the name of the value.

    Attributes
    ----------
    controls
        The ipywidgets controls by name. Setting ``controls["W"].value`` redraws.
    """

    def __init__(self, draw: Callable[..., Picture], still: Picture, **sliders: Range) -> None:
        import ipywidgets  # type: ignore[import-untyped]

        self.picture, self._draw = still, draw
        self.controls = {name: _control(name, values) for name, values in sliders.items()}
        # At the size it was drawn: a box would stretch and blur it.
        self._image = ipywidgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        for control in self.controls.values():
            control.observe(self.redraw, names="value")
        self._box = ipywidgets.VBox([*self.controls.values(), self._image])
        self.redraw()

    def redraw(self, _: Any = None) -> None:
        """Draw with the current values of the controls."""
        values = {name: control.value for name, control in self.controls.items()}
        self._image.value = self._draw(**values).png()

    @property
    def png(self) -> bytes:
        """Current live picture."""
        return bytes(self._image.value)

    def __repr__(self) -> str:
        return f"<Explorer: {', '.join(self.controls)}\n{describe(self.picture)}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        still = {"text/plain": repr(self), "image/png": base64.b64encode(self.picture.png()).decode()}
        alternative = {"image/png": {"alt": describe(self.picture)}}
        return self._box._repr_mimebundle_(**kwargs) | still, alternative


class Film:
    """Pictures of equal size shown one after the other, as an animated PNG: it moves wherever PNGs are shown.

    Parameters
    ----------
    frames
        Pictures, at least one.
    seconds
        Time that each one is shown.
    """

    def __init__(self, frames: Sequence[Picture], seconds: float = 0.8) -> None:
        if not frames:
            raise ValueError("a film needs at least one frame, got none")
        self.frames, self.seconds = list(frames), seconds

    def __repr__(self) -> str:
        return f"<Film of {len(self.frames)} frames, the last one:\n{describe(self.frames[-1])}>"

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        return self.png(), {"alt": f"film of {len(self.frames)} frames, the last one:\n{describe(self.frames[-1])}"}

    def png(self) -> bytes:
        """Encode the film."""
        images = [Image.open(io.BytesIO(frame.png())).convert("RGB") for frame in self.frames]
        buffer = io.BytesIO()
        images[0].save(
            buffer, "PNG", save_all=True, append_images=images[1:], duration=round(1000 * self.seconds), loop=0
        )
        return buffer.getvalue()


def _control(name: str, values: Range) -> Any:
    import ipywidgets

    if isinstance(values, tuple):
        lowest, highest, start = values
        return ipywidgets.IntSlider(description=name, min=lowest, max=highest, value=start, continuous_update=False)
    return ipywidgets.Dropdown(description=name, options=list(values))
