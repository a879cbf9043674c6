"""What a figure says of itself, and that a wrong figure says something else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from wandlib import plots
from wandlib.plots import tokens as diagrams
from wandlib.tutorial import teacher_and_student

TAUS = np.linspace(0, 10, 101)

LEAK = """\
import numpy as np
from wandlib import plots
taus = np.linspace(0, 10, 101)
leak = 100 * 218 * np.exp(-taus) / (219 + 218 * np.exp(-taus))
plots.lines([plots.window_curve(leak)], x=taus, x_label="tau", y_label="attention outside (%)")"""
TRACES = """\
full, window = [1.0, 2.0, 3.0], [1.5, 1.5, 1.5]
plots.lines([plots.full_curve(full), plots.window_curve(window)], x_label="step", y_label="cache (MB)")"""
COLORS = """\
bars = plots.Bars("", [0.4, 0.1], [plots.HIDDEN_COLOR, plots.WINDOW_COLOR])
plots.bars(["untrained", "trained"], [bars], y_label="KL (nats)")"""
FAULTS = {
    "another tau": (LEAK, "np.exp(-taus)", "np.exp(-2 * taus)"),
    "swapped curves": (TRACES, "full, window =", "window, full ="),
    "another color": (COLORS, "[plots.HIDDEN_COLOR, plots.WINDOW_COLOR]", "[plots.WINDOW_COLOR, plots.HIDDEN_COLOR]"),
}


def drawn(source: str) -> str:
    """Return what the last line of a cell shows."""
    *before, last = source.splitlines()
    names: dict[str, object] = {"plots": plots, "np": np}
    exec("\n".join(before), names)
    return repr(eval(last, names))


@pytest.mark.parametrize(("source", "right", "wrong"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_figure_changes_its_text(source: str, right: str, wrong: str) -> None:
    assert source.count(right) >= 1
    assert drawn(source.replace(right, wrong)) != drawn(source)


@pytest.mark.slow
def test_nbval_finds_the_three_faults(tmp_path: Path) -> None:
    """A notebook is stored with the right figures; then each of its cells gets its fault."""
    book = nbformat.v4.new_notebook()
    for number, (source, right, wrong) in enumerate(FAULTS.values(), start=1):
        data = {"text/plain": drawn(source)}
        output = nbformat.v4.new_output("execute_result", data, execution_count=number)
        cell = nbformat.v4.new_code_cell(source.replace(right, wrong), outputs=[output], execution_count=number)
        book.cells.append(cell)
    book.cells.append(nbformat.v4.new_code_cell(LEAK, outputs=book.cells[0].outputs, execution_count=1))
    nbformat.write(book, tmp_path / "faults.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    env = os.environ | {"PYTHONPATH": str(Path(plots.__file__).parents[2])}
    run = subprocess.run(
        [*command, "-c", "/dev/null", "faults.ipynb"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert "3 failed, 1 passed" in run.stdout, run.stdout[-2000:] + run.stderr[-2000:]


def test_series_have_color_label_and_rounded_values() -> None:
    full, window = plots.full_curve(np.arange(101)), plots.window_curve(np.full(101, 40.4), 16)
    text = repr(plots.lines([full, window], x_label="step", y_label="cache (MB)"))
    assert text == (
        "<Picture 520 x 300\n"
        "cache (MB) over step\n"
        '  orange dashed line "full attention" from x = 1 to 100: 0 25 50 75 100\n'
        '  blue line "window, W = 16" from x = 1 to 100: 40 40 40 40 40\n'
        "  text: full attention | window, W = 16>"
    )


def test_bars_are_listed_with_their_names() -> None:
    bars = plots.Bars("paper", [1.944, 3.4], [plots.FULL_COLOR, "#999999"], spread=[(1.0, 2.0), (3.0, 4.0)])
    text = repr(plots.bars(["teacher", "untrained"], [bars], y_label="WER (%)"))
    assert 'bars "paper": teacher 1.9 (orange), untrained 3.4 (gray)' in text
    assert "whiskers: 1..2, 3..4" in text


@pytest.mark.parametrize("label", ["time per step (ms)", "step, ms", "wall clock (s)", "resident, MB"])
def test_what_a_clock_measured_is_not_listed(label: str) -> None:
    one, other = (
        repr(plots.lines([plots.window_curve(values)], x_label="step", y_label=label)) for values in ([1, 2], [3, 4])
    )
    assert one == other
    assert "measured: not listed" in one


def test_a_label_that_only_mentions_milliseconds_is_listed() -> None:
    labels = {"x_label": "look-ahead (codes of 40 ms)", "y_label": "difference (dB)"}
    assert "10 15 20" in repr(plots.lines([plots.window_curve([10, 15, 20])], **labels))


def test_panels_side_by_side_share_the_label_of_the_first() -> None:
    settings = {"batch 1": [plots.full_curve([3, 4])], "batch 4": [plots.full_curve([5, 6])]}
    text = repr(plots.multiples(settings, x=[1, 2], x_label="speech (s)", y_label="time per step (ms)"))
    assert text.count("measured: not listed") == 2


def test_masks_say_how_much_is_seen() -> None:
    seen = torch.ones(4, 4, dtype=torch.bool).tril()
    text = repr(diagrams.mask(seen, torch.tensor([True, False, False, False])))
    assert "4 x 4 cells: 38 % white, 38 % blue, 25 % green" in text


def test_the_same_text_is_the_images_alternative() -> None:
    picture = teacher_and_student()
    png, about = picture._repr_png_()
    assert png == picture.png()
    assert about["alt"]
    assert about["alt"] in repr(picture)
    assert "the spoken code" in about["alt"]
