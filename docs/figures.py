"""Draw the figures of this folder, ``python docs/figures.py``, of what is computed or was measured: no model is run."""

from __future__ import annotations

import json
import statistics
import tomllib
from pathlib import Path
from typing import Any

import grimp
import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from wandlib.plots.charts import INK, draw, full_curve, panels, window_curve
from wandlib.plots.costs import two_caches
from wandlib.profiling.estimate import cache_bytes
from wandlib.profiling.paper_systems import SHAPES

HERE = Path(__file__).parent
CONTRACTS: list[dict[str, Any]] = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]
LONG_FORM = HERE.parent / "recipes" / "mini" / "long_form.json"

SECONDS = 30


def caches() -> Figure:
    """Draw the cache of one utterance with full attention and with a window."""
    shape = SHAPES["cosyvoice2"]
    full, window = (
        [
            cache_bytes(shape.config, conditioning=shape.conditioning, generated=step, window=size, dtype=torch.float32)
            for step in range(1, shape.steps(SECONDS) + 1)
        ]
        for size in (None, shape.window)
    )
    return two_caches(
        full,
        window,
        steps_per_second=shape.codes_per_second,
        window_size=shape.window,
        title=f"{shape.name}-0.5B, one utterance, prompt of {shape.conditioning} tokens, 32 bit (computed)",
    )


def ten_minutes() -> Figure:
    """Draw ten minutes in one decode by the embedded voice, minute by minute: the first speaker of long_form.json."""
    decodes: dict[str, Any] = json.loads(LONG_FORM.read_text(encoding="utf-8"))["decodes"]
    student = next(iter(decodes))
    courses = [by_minute(decodes[name]["groups"]) for name in (student, student.replace("student", "teacher"))]
    figure, axes = panels(columns=3, width=3.6)
    labels = ("word error rate (%), up to 100", "largest cache (MB)", "time of a step (ms), median")
    for panel, label, window, full in zip(axes, labels, *courses, strict=True):
        draw(panel, [window_curve(window), full_curve(full)])
        panel.set(xlabel="minute", ylabel=label)
    return figure


def by_minute(groups: list[dict[str, float]]) -> tuple[list[float], list[float], list[float]]:
    """Return errors in a hundred words (at most 100), megabytes and milliseconds of each of ten minutes, or fewer."""
    last = min(9, int(groups[-1]["second"] // 60))
    minutes = [[group for group in groups if group["second"] // 60 == minute] for minute in range(last + 1)]
    totals = [(sum(g["word errors"] for g in part), sum(g["words"] for g in part)) for part in minutes]
    return (
        [100 * min(1.0, errors / words) for errors, words in totals],
        [max(group["cache bytes"] for group in part) / 1e6 for part in minutes],
        [statistics.median(group["ms a step"] for group in part) for part in minutes],
    )


def house() -> Figure:
    """Draw the rooms of the library, left, and the parts of ``attention``, right, each above what it imports.

    The rows are those of the contracts in pyproject.toml; the arrows are the imports that import-linter's own reader
    finds, without those that follow from others.
    """
    graph = grimp.build_graph("wandlib", exclude_type_checking_imports=True)
    contracts = {contract["id"]: contract for contract in CONTRACTS}
    figure, axes = panels(columns=2, width=5.2, height=4.8)
    for panel, name, title in zip(axes, ("rooms", "attention"), ("wandlib", "wandlib.attention"), strict=True):
        (container,) = contracts[name]["containers"]
        ignored = [tuple(line.split(" -> ")) for line in contracts[name].get("ignore_imports", [])]
        rows = [row.strip("()").replace(":", "|").split("|") for row in contracts[name]["layers"]]
        rows = [[part.strip() for part in row] for row in rows]
        parts = {part for row in rows for part in row if f"{container}.{part}" in graph.modules}
        _draw(
            panel, [[part for part in row if part in parts] for row in rows], _arrows(graph, container, parts, ignored)
        )
        panel.set_title(title, color=INK, fontsize=11, fontfamily="monospace")
    return figure


def _arrows(graph: Any, container: str, parts: set[str], ignored: list[tuple[str, ...]]) -> set[tuple[str, str]]:
    """List who imports whom directly, less what a chain of other imports says already."""
    lazy = {importer for importer, _ in ignored}
    members = {part: {f"{container}.{part}", *graph.find_descendants(f"{container}.{part}")} for part in parts}
    direct = {
        (above, below)
        for above in parts
        for below in parts - {above}
        if any(
            imported in members[below] and importer not in lazy
            for importer in members[above]
            for imported in graph.find_modules_directly_imported_by(importer)
        )
    }

    def reaches(start: str, end: str) -> bool:
        return (start, end) in direct or any(reaches(below, end) for above, below in direct if above == start)

    return {
        (above, below)
        for above, below in direct
        if not any(reaches(between, below) for other, between in direct if other == above and between != below)
    }


def _draw(panel: Any, rows: list[list[str]], arrows: set[tuple[str, str]]) -> None:
    """Draw a box for each part, row by row, and the arrows from box to box."""
    panel.axis("off")
    rows = [row for row in rows if row]
    panel.set(xlim=(0, 1), ylim=(-len(rows) + 0.4, 0.6))
    places = {
        part: ((column + 0.5) / len(row), -number) for number, row in enumerate(rows) for column, part in enumerate(row)
    }
    width = min(0.28, 0.88 / max(map(len, rows)))
    for part, (x, y) in places.items():
        corner, style = (x - width / 2, y - 0.21), "round,pad=0.01"
        panel.add_patch(
            FancyBboxPatch(corner, width, 0.42, boxstyle=style, facecolor="#eef2f7", edgecolor=INK, zorder=2)
        )
        panel.text(x, y, part.replace("_", "\n"), ha="center", va="center", fontsize=8, color=INK, zorder=3)
    for above, below in sorted(arrows):
        (x, top), (end, bottom) = places[above], places[below]
        far = top - bottom > 1 and abs(x - end) < 0.1
        panel.annotate(
            "",
            xy=(end + (width / 2 + 0.01 if far else 0), bottom + (0.1 if far else 0.23)),
            xytext=(x + (width / 2 + 0.01 if far else 0), top - (0.1 if far else 0.23)),
            zorder=1,
            arrowprops={
                "arrowstyle": "-|>",
                "color": INK,
                "linewidth": 1,
                "connectionstyle": "arc3,rad=-0.4" if far else "arc3",
            },
        )


def main() -> None:
    """Write ``two_caches.svg``, ``ten_minutes.svg`` and ``house.svg``."""
    matplotlib.rcParams["svg.hashsalt"] = "wandlib"  # the same picture is the same file
    for name, figure in (("two_caches", caches()), ("ten_minutes", ten_minutes()), ("house", house())):
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
