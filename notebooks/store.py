"""Run notebooks and store their outputs: ``python notebooks/store.py [notebook ...]``; without arguments all of them.

A run takes every exercise three times, blank with each hint and then solved, and a solution that is not right is an
error; stored is the blank notebook. What would differ from run to run for no reason is left out: times in the
metadata, the state of widgets, the patch version of Python. The clean copy of each notebook is written as well.

Some outputs are times, so nothing is stored from a machine that other programs keep busy before or after the run. Nor
is a notebook stored that took longer than its limit. ``--busy`` skips these checks; the times in what is stored are
then those of a busy machine, and must be stored again on a quiet one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbformat import NotebookNode

from clean import clean
from fill import RIGHT, filled, is_tagged, solutions

HERE = Path(__file__).parent
LIVE = "application/vnd.jupyter.widget-view+json"
SECONDS_PER_CELL = 900
SECONDS = {"08_train": 180, "11_endless": 180}
"""Limits of a run, exercises included; OTHERS is that of a notebook that is not named."""
OTHERS = 120
ALTOGETHER = 18 * 60
QUIET = 15.0
"""Per cent of all cores that other programs may take."""


def cores_taken(seconds: float = 2.0) -> float:
    """Return the per cent of all cores that are taken while this program waits."""
    return psutil.cpu_percent(seconds)


def check_quiet() -> None:
    """Exit if other programs run."""
    if (taken := cores_taken()) > QUIET:
        raise SystemExit(
            f"other programs take {taken:.0f} % of the cores: wait until they take less than {QUIET:.0f}, or store "
            "with --busy what has no times in it"
        )


def check_time(name: str, seconds: float) -> None:
    """Exit if a notebook took longer than its limit."""
    if seconds > (limit := SECONDS.get(name, OTHERS)):
        raise SystemExit(f"{name} took {seconds:.0f} s, its limit is {limit}")


def store(path: Path, *, busy: bool = False) -> float:
    """Run one notebook in its folder and write it back; return how many seconds the run took."""
    if not busy:
        check_quiet()
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata.pop("execution", None)
    run = filled(notebook, solutions(path.stem), tested=True)
    client = NotebookClient(
        run,
        timeout=SECONDS_PER_CELL,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    began = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - began
    if not busy:
        check_time(path.stem, seconds)
        check_quiet()
    take_outputs(notebook, run)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)
    (HERE / "clean").mkdir(exist_ok=True)
    nbformat.write(clean(notebook), HERE / "clean" / path.name)
    return seconds


def take_outputs(notebook: NotebookNode, run: NotebookNode) -> None:
    """Copy the outputs of a run to the cells that it began with.

    Raises
    ------
    ValueError
        If an exercise's solution was not found right, or its second attempt got no second hint.
    """
    ran = iter(run.cells)
    count = 0
    wrong = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        same = next(each for each in ran if each.source == cell.source)
        cell.outputs = same.outputs
        count += 1
        cell.execution_count = count
        for output in cell.outputs:
            output.get("data", {}).pop(LIVE, None)
            if "execution_count" in output:
                output.execution_count = count
        if is_tagged(cell, "check"):
            second, solved = (
                next(each for each in ran if each.source == cell.source)
                for _ in range(2)
            )
            said = [text_of(each) for each in (same, second, solved)]
            if (
                "First hint" not in said[0]
                or "Second hint" not in said[1]
                or said[2] != RIGHT
            ):
                wrong.append(f"{cell.source}\n{said}")
    if wrong:
        raise ValueError(
            "\n\n".join(["the hints or the solution of an exercise are wrong:", *wrong])
        )


def text_of(cell: NotebookNode) -> str:
    """Return what a cell printed."""
    return "".join(output.get("text", "") for output in cell.outputs)


def main() -> None:
    """Store the notebooks that are named, or all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = sorted(HERE.glob("*.ipynb"))
    parser.add_argument("notebooks", type=Path, nargs="*", default=every)
    parser.add_argument(
        "--busy", action="store_true", help="store whatever the clock says"
    )
    options = parser.parse_args()
    total = 0.0
    for path in options.notebooks:
        total += (seconds := store(path, busy=options.busy))
        print(f"{path.name} {seconds:.0f} s", flush=True)
    if total > ALTOGETHER and not options.busy:
        raise SystemExit(f"stored, but {total:.0f} s are more than {ALTOGETHER}")


if __name__ == "__main__":
    main()
