"""What a notebook shows beside figures: players for sound, and figures with sliders.

Sound is stored as short compressed clips inside the page. A figure with sliders is one output in two forms: the live
widget for a page with a kernel behind it, and a still picture for any other (a repository's viewer, a print).
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wandlib.plots.charts import Picture
from wandlib.systems.base import Speech

Sound = Speech | tuple[NDArray[np.float32], int]
"""A speech, or a mono waveform [samples] and its rate in Hz."""
Range = tuple[int, int, int] | Sequence[Any]
"""A slider: (lowest, highest, start); or, as a list, the choices of a menu."""


class Players:
    """Sounds to listen to, one labelled player each; a notebook shows it.

    Parameters
    ----------
    sounds
        By label.
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


def players(sounds: Mapping[str, Sound]) -> Players:
    """Players for several sounds, by label."""
    return Players(sounds)


def player(sound: Speech | NDArray[np.float32], sample_rate: int | None = None, label: str = "") -> Players:
    """A player for one sound: a speech, or a waveform with its rate in Hz.

    Raises
    ------
    ValueError
        For a waveform without ``sample_rate``.
    """
    if isinstance(sound, Speech):
        return Players({label: sound})
    if sample_rate is None:
        raise ValueError(f"a waveform of {len(sound)} samples needs its sample_rate in Hz")
    return Players({label: (sound, sample_rate)})


def compressed(sound: Sound) -> bytes:
    """The sound as Ogg Opus: a few kilobytes a second."""
    import soundfile

    waveform, rate = (sound.waveform, sound.sample_rate) if isinstance(sound, Speech) else sound
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format="OGG", subtype="OPUS")
    return buffer.getvalue()


class Explorer:
    """A figure with sliders; what :func:`explore` returns.

    Attributes
    ----------
    picture
        The still picture: what the notebook stores.
    controls
        The ipywidgets controls by name. Setting ``controls["W"].value`` redraws.
    """

    def __init__(self, draw: Callable[..., Picture], picture: Picture, sliders: Mapping[str, Range]) -> None:
        import ipywidgets  # type: ignore[import-untyped]

        if "google.colab" in sys.modules:
            import_module("google.colab.output").enable_custom_widget_manager()
        self.picture, self._draw = picture, draw
        self.controls = {name: _control(name, values) for name, values in sliders.items()}
        # As large as it was drawn: a box stretches what is in it, and blurs it.
        self._image = ipywidgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        for control in self.controls.values():
            control.observe(self.redraw, names="value")
        self._box = ipywidgets.VBox([*self.controls.values(), self._image])
        self.redraw()

    def redraw(self, _: Any = None) -> None:
        """Draw with the values that the controls have now."""
        values = {name: control.value for name, control in self.controls.items()}
        self._image.value = self._draw(**values)._repr_png_()

    @property
    def png(self) -> bytes:
        """The live picture as it is now."""
        return bytes(self._image.value)

    def __repr__(self) -> str:
        return f"<Explorer: {', '.join(self.controls)}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        still = {"text/plain": repr(self), "image/png": base64.b64encode(self.picture._repr_png_()).decode()}
        return self._box._repr_mimebundle_(**kwargs) | still


def explore(draw: Callable[..., Picture], still: Picture, **sliders: Range) -> Explorer:
    """Show ``draw(**values)`` with a slider or a menu for each value, and ``still`` where no kernel runs.

    Parameters
    ----------
    draw
        Makes the picture from the values.
    still
        A picture that teaches the same without sliders: several settings side by side.
    sliders
        By name of the value: (lowest, highest, start), whole numbers; or a list of choices, the first one to start.
    """
    return Explorer(draw, still, sliders)


def _control(name: str, values: Range) -> Any:
    import ipywidgets

    if isinstance(values, tuple):
        lowest, highest, start = values
        return ipywidgets.IntSlider(description=name, min=lowest, max=highest, value=start, continuous_update=False)
    return ipywidgets.Dropdown(description=name, options=list(values))
