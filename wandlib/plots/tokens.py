"""Drawings of tokens: the parts of a sequence, which key each query sees, and which token is in which slot.

Conditioning is green, a generated token in the window blue, a token that no query sees any more gray, as in
:mod:`wandlib.plots.charts`. A token is a square, time runs to the right, queries run down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from wandlib.plots.charts import FULL_COLOR, HIDDEN_COLOR, INK, PROMPT_COLOR, WINDOW_COLOR, Picture, Values, panels

PART_COLORS = (PROMPT_COLOR, "#E69F00", WINDOW_COLOR)
"""Colors for the parts of a sequence, in turn."""


def layout(parts: Mapping[str, int]) -> Picture:
    """Draw the parts of one sequence as a bar to scale, each with its name and number of tokens.

    Parameters
    ----------
    parts
        Number of tokens in each part, in order. A part of one token is gray and drawn wider than to scale.
    """
    figure, (axes,) = panels(width=9, height=1.5)
    total, left = sum(parts.values()), 0.0
    colors = cycle(PART_COLORS)
    for name, count in parts.items():
        width = max(count, total / 60)
        color = next(colors) if count > 1 else "#999999"
        axes.add_patch(Rectangle((left, 0), width, 1, facecolor=color, edgecolor="white"))
        if count > 1:
            axes.annotate(f"{name}\n{count} tokens", (left + width / 2, 0.5), ha="center", va="center", color="white")
        else:
            axes.annotate(name, (left + width / 2, 1.1), ha="center", va="bottom", color=INK, fontsize=9)
        left += width
    axes.set_xlim(0, left)
    axes.set_ylim(0, 1.5)
    axes.set_axis_off()
    return figure


def probabilities(names: Sequence[str], values: Sequence[float], *, x_label: str) -> Picture:
    """Draw the probability of each named choice, in %, as bars; the most probable one is orange."""
    figure, (axes,) = panels(width=6.4, height=0.6 + 0.24 * len(names))
    percent = 100 * np.asarray(values, dtype=np.float64)
    colors = [FULL_COLOR if value == percent.max() else WINDOW_COLOR for value in percent]
    axes.barh(names, percent, color=colors)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel(x_label)
    return figure


def sound(waveform: Values, sample_rate: int, mel: Float[Tensor, "frames bands"], codes: Sequence[int]) -> Picture:
    """Draw speech in three forms over the same seconds: waveform, mel spectrum, codes.

    Parameters
    ----------
    waveform, sample_rate
        Mono waveform with full scale 1, and its rate in Hz.
    mel
        Log-mel spectrum; brighter is louder.
    codes
        One number for each of equally long pieces of sound.
    """
    figure, (top, middle, bottom) = panels(rows=3, width=9, height=1.5)
    samples = np.asarray(waveform)
    seconds = len(samples) / sample_rate
    top.plot(np.arange(len(samples)) / sample_rate, samples, color=INK, linewidth=0.5)
    top.set_ylabel("amplitude")
    extent = (0, seconds, 0.5, mel.shape[1] + 0.5)
    middle.imshow(np.asarray(mel.T), aspect="auto", origin="lower", cmap="cividis", extent=extent)
    middle.grid(visible=False)
    middle.set_ylabel("mel band")
    bottom.stairs(codes, np.linspace(0, seconds, len(codes) + 1), color=WINDOW_COLOR, baseline=None)
    bottom.set_ylabel("code")
    bottom.set_xlabel("time (s)")
    for axes in (top, middle, bottom):
        axes.set_xlim(0, seconds)
    figure.align_ylabels()
    return figure


def mask(
    seen: Bool[Tensor, "queries keys"] | Float[Tensor, "queries keys"],
    conditioning: Bool[Tensor, " keys"],
    *,
    title: str = "",
    axes: Axes | None = None,
) -> Picture | None:
    """Draw which key (column) each query (row) sees: green conditioning, blue generated, gray hidden by the window.

    Parameters
    ----------
    seen
        True or 1 where the key is seen, False or 0 where it is not; a paler color in between. Queries are the last
        tokens of the sequence.
    conditioning
        True where a key is conditioning.
    title
        Title, one line.
    axes
        Axes to draw in; None: a new picture, which is returned.
    """
    figure = None
    queries, keys = seen.shape
    if axes is None:
        figure, (axes,) = panels(width=min(6.4, 1.4 + 0.22 * keys), height=min(6.0, 1.1 + 0.22 * queries))
    weight = np.asarray(seen.float())[..., None]
    color = np.where(np.asarray(conditioning)[:, None], to_rgb(PROMPT_COLOR), to_rgb(WINDOW_COLOR))
    past = np.arange(keys)[None, :] <= np.arange(keys - queries, keys)[:, None]
    rest = np.where(past[..., None], to_rgb(HIDDEN_COLOR), (1.0, 1.0, 1.0))
    axes.imshow(weight * color + (1 - weight) * rest, aspect="auto", interpolation="nearest")
    if keys <= 48:
        axes.set_xticks(np.arange(keys + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(queries + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
        axes.tick_params(which="minor", length=0)
    axes.grid(visible=False, which="major")
    axes.set_xlabel("key (position)")
    axes.set_ylabel("query (position)")
    ticks = range(0, queries, max(1, round(queries / 6)))
    axes.set_yticks(ticks, labels=[str(keys - queries + tick) for tick in ticks])
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    return figure


def attention_maps(
    maps: Mapping[str, Float[Tensor, "queries keys"]], prompt: int, marks: Mapping[str, int] | None = None
) -> Picture:
    """Draw attention maps of the generated queries, one for each name; darker is more.

    Parameters
    ----------
    maps
        Attention weights of the generated queries (rows) over all keys (columns).
    prompt
        Number of conditioning tokens; an orange line marks their end.
    marks
        Names of positions on the axis of keys; None: numbers.
    """
    figure, every = panels(columns=len(maps), width=9.6 / len(maps), height=3.6)
    for axes, (name, weights) in zip(every, maps.items(), strict=True):
        # The square root, so that small weights are visible next to the few large ones.
        axes.imshow(np.sqrt(np.asarray(weights.float())), cmap="Greys", vmin=0, vmax=0.7, aspect="auto")
        axes.axvline(prompt - 0.5, color=FULL_COLOR, linewidth=1)
        axes.grid(visible=False)
        axes.set_title(name, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("key (position)")
        if marks is not None:
            axes.set_xticks(list(marks.values()), labels=list(marks))
    every[0].set_ylabel("query (step)")
    return figure


def ring(slots: Sequence[int], *, prompt: int, step: int) -> Picture:
    """Draw the sequence above the slots of the cache, after generated token ``step`` (from 0) was stored.

    Parameters
    ----------
    slots
        Generated token in each slot of the ring; -1 for an empty one.
    prompt
        Number of conditioning tokens.
    step
        Newest token, which is outlined.
    """
    figure, (axes,) = panels(width=9, height=2.6)
    held = {token: slot for slot, token in enumerate(slots) if token >= 0}
    for position in range(prompt):
        square(axes, position, 2, f"c{position}", PROMPT_COLOR)
        square(axes, position, 0, f"c{position}", PROMPT_COLOR)
    for token in range(step + 1):
        inside = token in held
        square(axes, prompt + token, 2, f"y{token}", WINDOW_COLOR if inside else HIDDEN_COLOR, token == step)
    for slot, token in enumerate(slots):
        text, color = ("", "white") if token < 0 else (f"y{token}", WINDOW_COLOR)
        square(axes, prompt + slot, 0, text, color, token == step)
    axes.annotate(
        "",
        (prompt + held[step] + 0.5, 1.02),
        (prompt + step + 0.5, 1.98),
        arrowprops={"arrowstyle": "->", "color": FULL_COLOR, "linewidth": 1.6},
    )
    axes.annotate("sequence", (-0.3, 2.5), ha="right", va="center", color=INK, fontsize=10)
    axes.annotate("slots", (-0.3, 0.5), ha="right", va="center", color=INK, fontsize=10)
    for slot in range(prompt + len(slots)):
        axes.annotate(str(slot), (slot + 0.5, -0.12), ha="center", va="top", color=INK, fontsize=8)
    axes.set_xlim(-2.6, 24)
    axes.set_ylim(-0.6, 3.1)
    axes.set_axis_off()
    return figure


def slots_over_time(held: NDArray[np.int64], *, prompt: int) -> Picture:
    """Draw which token is in each slot (row) after each step (column): paler is older, white is empty.

    Parameters
    ----------
    held
        Age in steps of the token in each slot, [slots, steps]; -1 for an empty slot, -2 for conditioning.
    prompt
        Number of conditioning slots; a line marks their end.
    """
    figure, (axes,) = panels(width=8, height=3.4)
    window = len(held) - prompt
    fade = np.clip(held, 0, window)[..., None] / max(1, window)
    picture = (1 - 0.8 * fade) * np.array(to_rgb(WINDOW_COLOR)) + 0.8 * fade
    picture[held == -1] = 1.0
    picture[held == -2] = to_rgb(PROMPT_COLOR)
    extent = (0.5, held.shape[1] + 0.5, len(held) - 0.5, -0.5)
    axes.imshow(picture, aspect="auto", interpolation="nearest", extent=extent)
    axes.axhline(prompt - 0.5, color=INK, linewidth=0.8)
    axes.grid(visible=False)
    axes.set_xlabel("step (codes generated)")
    axes.set_ylabel("slot of the cache")
    return figure


def square(axes: Axes, x: float, y: float, text: str, color: str, outlined: bool = False) -> None:
    """Draw one token."""
    edge, width = (FULL_COLOR, 2.0) if outlined else ("#999999", 0.8)
    axes.add_patch(
        Rectangle((x + 0.06, y + 0.06), 0.88, 0.88, facecolor=color, edgecolor=edge, linewidth=width, zorder=2)
    )
    dark = color in ("white", HIDDEN_COLOR)
    axes.annotate(
        text, (x + 0.5, y + 0.5), ha="center", va="center", fontsize=8, color=INK if dark else "white", zorder=3
    )
