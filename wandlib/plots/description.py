"""What a figure shows, in words and rounded numbers: its ``repr`` in a notebook, and the alternative text of its image.

Tests of stored notebooks compare text and skip images. With the data in the text, a curve with another parameter, two
curves that are swapped, or a series in the wrong color is a difference that they find. Numbers have two significant
digits. What a clock or a memory meter measured differs from run to run, so an axis whose label says so is named
without its values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import BarContainer
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, StepPatch
from numpy.typing import NDArray

COLOR_NAMES = {
    "#d55e00": "orange",
    "#0072b2": "blue",
    "#009e73": "green",
    "#dddddd": "light gray",
    "#cc79a7": "pink",
    "#e69f00": "yellow",
    "#56b4e9": "light blue",
    "#333333": "dark gray",
    "#999999": "gray",
    "#ffffff": "white",
    "#000000": "black",
}
MEASURED = re.compile(r"[(,] ?ms\b|\bclock\b|\bresident\b|\bmeasured\b")
"""Words in the label of an axis whose values differ from run to run; milliseconds as the unit, not "codes of 40 ms"."""
MOST = 10
"""Series of a panel that are listed; of further ones the number is given."""


def describe(figure: Figure) -> str:
    """Return a line for each panel of a figure, and below it a line for each series."""
    lines: list[str] = []
    label = ""
    for axes in figure.axes:
        label = axes.get_ylabel() or label  # panels side by side have the label of the first
        lines += _panel(axes, measured=MEASURED.search(f"{label} {axes.get_xlabel()}") is not None)
    return "\n".join(lines)


def color_name(color: object) -> str:
    """Return the name of a color of this library's figures, or its hexadecimal form."""
    form = to_hex(color)  # type: ignore[arg-type]
    return COLOR_NAMES.get(form, form)


def _panel(axes: Axes, measured: bool) -> Iterator[str]:
    down, across = axes.get_ylabel(), axes.get_xlabel()
    title = axes.get_title(loc="left") or axes.get_title()
    heading = " over ".join(label for label in (down, across) if label)
    yield ": ".join(part for part in (title, heading) if part) or "drawing"
    if measured:
        yield "  measured: not listed"
        return
    series = [*_series(axes)]
    yield from (f"  {line}" for line in series[:MOST])
    if len(series) > MOST:
        yield f"  and {len(series) - MOST} more"


def _series(axes: Axes) -> Iterator[str]:
    in_bars: set[Patch] = set()
    for container in axes.containers:
        if isinstance(container, BarContainer):
            in_bars.update(container.patches)
            yield _bars(container, axes)
    yield from (_line(line) for line in axes.lines)
    yield from (_image(image) for image in axes.images)
    yield from (_collection(collection) for collection in axes.collections)
    steps = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    for step in steps:
        yield f"{color_name(step.get_edgecolor())} steps: {_sampled(np.asarray(step.get_data()[0]))}"
    shapes = [patch for patch in axes.patches if patch not in in_bars and patch not in steps]
    if shapes:
        colors = Counter(color_name(shape.get_facecolor()) for shape in shapes)
        yield "shapes: " + ", ".join(f"{count} {color}" for color, count in colors.items())
    words = [" ".join(text.get_text().split()) for text in axes.texts if text.get_text()]
    if words and not in_bars:
        yield "text: " + " | ".join(words[:40])


def _bars(container: BarContainer, axes: Axes) -> str:
    lying = container.orientation == "horizontal"
    names = [
        label.get_text().replace("\n", " ") for label in (axes.get_yticklabels() if lying else axes.get_xticklabels())
    ]
    sizes = [patch.get_width() if lying else patch.get_height() for patch in container.patches]
    colors = [color_name(patch.get_facecolor()) for patch in container.patches]
    label = container.get_label()
    start = f'bars "{label}": ' if label and not str(label).startswith("_") else "bars: "
    named = names if len(names) == len(sizes) else [""] * len(sizes)
    shown = [f"{name} {_number(size)} ({color})" for name, size, color in zip(named, sizes, colors, strict=True)]
    if len(shown) <= MOST:
        return start + ", ".join(part.strip() for part in shown)
    return f"{start}{len(sizes)} {colors[0]}: {_sampled(np.asarray(sizes, dtype=np.float64))}"


def _line(line: Line2D) -> str:
    values = np.asarray(line.get_ydata(), dtype=np.float64)
    places = np.asarray(line.get_xdata(), dtype=np.float64)
    kind = [color_name(line.get_color())]
    kind += ["faint"] if (line.get_alpha() or 1) < 0.5 else []
    kind += ["dashed"] if line.get_linestyle() not in ("-", "None") else []
    kind += ["points"] if line.get_linestyle() == "None" else ["line"]
    label = str(line.get_label())
    name = f' "{label}"' if label and not label.startswith("_") else ""
    reach = f" from x = {_number(places[0])} to {_number(places[-1])}" if len(places) else ""
    return f"{' '.join(kind)}{name}{reach}: {_sampled(values)}"


def _image(image: AxesImage) -> str:
    array = np.ma.filled(np.ma.asarray(image.get_array()).astype(np.float64), np.nan)
    if array.ndim == 3:
        palette = {name: np.asarray(to_rgb(form)) for form, name in COLOR_NAMES.items()}
        pixels = array[..., :3].reshape(-1, 3)
        distances = np.stack([np.abs(pixels - color).sum(-1) for color in palette.values()])
        counts = Counter(np.asarray(list(palette))[distances.argmin(0)].tolist())
        shares = ", ".join(f"{_number(100 * count / len(pixels))} % {name}" for name, count in counts.most_common())
        return f"{array.shape[0]} x {array.shape[1]} cells: {shares}"
    quarters = [part for rows in np.array_split(array, 2) for part in np.array_split(rows, 2, axis=1)]
    means = " ".join(_number(float(np.nanmean(part))) for part in quarters)
    return f"{array.shape[0]} x {array.shape[1]} cells, means of the quarters: {means}"


def _collection(collection: Collection) -> str:
    if isinstance(collection, ContourSet):
        return "filled contours at " + " ".join(_number(float(level)) for level in collection.levels)
    color = color_name(collection.get_edgecolor()[0]) if len(collection.get_edgecolor()) else "no color"
    if isinstance(collection, PathCollection):
        offsets = np.ma.filled(np.ma.asarray(collection.get_offsets()).astype(np.float64), np.nan)
        across, up = (_sampled(np.sort(offsets[:, column])) for column in (0, 1))
        return f"{len(offsets)} {color_name(collection.get_facecolor()[0])} points: x {across}; y {up}"
    if isinstance(collection, LineCollection):
        ends = [f"{_number(float(part[0, 1]))}..{_number(float(part[-1, 1]))}" for part in collection.get_segments()]
        return f"{color} whiskers: {', '.join(ends[:MOST])}"
    return f"{color} area"


def _sampled(values: NDArray[np.float64]) -> str:
    """Return the values at five places, from the first to the last."""
    if len(values) <= 5:
        return " ".join(_number(float(value)) for value in values) or "nothing"
    places = np.linspace(0, len(values) - 1, 5).round().astype(int)
    return " ".join(_number(float(values[place])) for place in places)


def _number(value: float) -> str:
    """Return a number with two significant digits; what rounding left of a zero is 0."""
    if abs(value) < 1e-6:
        return "0"
    return np.format_float_positional(float(f"{value:.2g}"), trim="-") if abs(value) < 1e6 else f"{value:.2g}"
