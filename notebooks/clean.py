"""Write clean copies: ``python notebooks/clean.py`` puts into ``clean/`` the notebooks without prose and outputs.

Headings and code are left. Read a cell, say what it will show, run it: what one can predict, one has understood.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).parent


def clean(notebook: NotebookNode) -> NotebookNode:
    """Return a copy that ends before the questions, with headings in place of prose and without outputs."""
    bare = copy.deepcopy(notebook)
    bare.metadata.pop("widgets", None)
    cells = []
    for cell in bare.cells:
        if cell.cell_type == "code":
            cells.append(nbformat.v4.new_code_cell(cell.source))
        else:
            if re.search(r"^## Questions$", cell.source, flags=re.MULTILINE):
                break
            headings = "\n\n".join(
                re.findall(r"^#+ .*$", cell.source, flags=re.MULTILINE)
            )
            cells += [nbformat.v4.new_markdown_cell(headings)] if headings else []
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number:02d}"
    bare.cells = cells
    return bare


if __name__ == "__main__":
    (HERE / "clean").mkdir(exist_ok=True)
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        nbformat.write(
            clean(nbformat.read(path, as_version=4)), HERE / "clean" / path.name
        )
