"""Run notebooks and store their outputs: ``python notebooks/store.py [notebook ...]``; without arguments all of them.

A run takes every exercise three times, blank with each hint and then solved, and a solution that is not right is an
error; stored is the blank notebook. What would differ from run to run for no reason is left out: times in the
metadata, the state of widgets, the patch version of Python. The clean copy of each notebook is written as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from clean import clean
from fill import RIGHT, filled, is_tagged, solutions

HERE = Path(__file__).parent
LIVE = "application/vnd.jupyter.widget-view+json"
SECONDS_PER_CELL = 900


def store(path: Path) -> None:
    """Run one notebook in its folder and write it back."""
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
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    take_outputs(notebook, run)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)
    (HERE / "clean").mkdir(exist_ok=True)
    nbformat.write(clean(notebook), HERE / "clean" / path.name)


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


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        print(path.name, flush=True)
        store(path)
