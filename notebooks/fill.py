"""Fill in the answers of the exercises: ``python notebooks/fill.py FOLDER`` writes solved copies of the notebooks.

A notebook's answers are in ``solutions/``, a file for each notebook and a heading for each exercise: the code that
goes into the answer cell, and what there is to say about it. With ``--tested`` the copies hold every exercise several
times: blank with the first hint, blank with the second, with answers that only look right and others that are right as
well (``tests/notebooks/answers``), and solved; nbval compares all of it in one run.
"""

from __future__ import annotations

import argparse
import ast
import copy
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).parent
ANSWERS = HERE.parent / "tests" / "notebooks" / "answers"
RIGHT = "Right.\n"
TRIED = """
import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()) as said:
{check}
assert said.getvalue().startswith({expected!r}), said.getvalue()
"""


@dataclass(frozen=True)
class Solution:
    """The answer of one exercise."""

    code: str
    remarks: str


def solutions(name: str) -> list[Solution]:
    """Return the answers of a notebook, in the order of its exercises."""
    text = (HERE / "solutions" / f"{name}.md").read_text(encoding="utf-8")
    parts = re.split(r"^## \d+\n", text, flags=re.MULTILINE)[1:]
    found = [
        re.match(r"\s*```python\n(.*?)\n```\n(.*)", part, flags=re.DOTALL)
        for part in parts
    ]
    return [Solution(match[1], match[2].strip()) for match in found if match]


def tried(name: str) -> dict[int, list[tuple[str, str]]]:
    """Return further answers of a notebook by exercise: the code, and how the check's verdict begins."""
    path = ANSWERS / f"{name}.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found: dict[int, list[tuple[str, str]]] = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"```python (right|wrong)\n(.*?)\n```", part, re.DOTALL)
        verdicts = {"right": "Right.", "wrong": "Not yet"}
        number = int(part.split(maxsplit=1)[0])
        found[number] = [(code, verdicts[kind]) for kind, code in blocks]
    return found


def is_tagged(cell: NotebookNode, tag: str) -> bool:
    """Return whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def second_hint(source: str) -> str:
    """Return the last argument of a check."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (call,) = [
        each
        for each in calls
        if isinstance(each.func, ast.Name) and each.func.id == "check"
    ]
    hint: str = ast.literal_eval(call.args[3])
    return hint


def filled(
    notebook: NotebookNode,
    answers: list[Solution],
    *,
    tested: bool = False,
    further: dict[int, list[tuple[str, str]]] | None = None,
) -> NotebookNode:
    """Return a copy with the answers in place; ``tested``: after the blank cells, both hints and ``further`` answers."""
    solved = copy.deepcopy(notebook)
    solved.cells = []
    waiting, number = iter(answers), 0
    for cell in notebook.cells:
        if is_tagged(cell, "exercise"):
            answer, blank, number = next(waiting), cell, number + 1
            solved.cells += [cell] if tested else []
        elif is_tagged(cell, "check"):
            if tested:
                again = copy.deepcopy(cell)
                hint = f"Second hint: {second_hint(cell.source)}\n"
                for output in again.outputs:
                    output.text = re.sub(
                        r"First hint: .*\n", lambda _, hint=hint: hint, output.text
                    )
                solved.cells += [cell, again]
                asked = textwrap.indent(cell.source, "    ")
                solved.cells += [
                    nbformat.v4.new_code_cell(
                        code + "\n" + TRIED.format(check=asked, expected=verdict)
                    )
                    for code, verdict in (further or {}).get(number, [])
                ]
            right = copy.deepcopy(cell)
            right.outputs = [
                nbformat.v4.new_output("stream", name="stdout", text=RIGHT)
            ]
            solved.cells += [
                nbformat.v4.new_code_cell(answer.code, metadata=blank.metadata),
                right,
            ]
            solved.cells += (
                [nbformat.v4.new_markdown_cell(answer.remarks)]
                if answer.remarks
                else []
            )
        else:
            solved.cells.append(cell)
    for number, cell in enumerate(solved.cells):
        solved.cells[number] = copy.deepcopy(cell)
        solved.cells[number].id = f"cell-{number:03d}"
    return solved


def main() -> None:
    """Write a copy of every notebook."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the copies go")
    parser.add_argument(
        "notebooks", type=Path, nargs="*", default=sorted(HERE.glob("*.ipynb"))
    )
    parser.add_argument(
        "--tested",
        action="store_true",
        help="with the blank cells, both hints and further answers, for nbval",
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in options.notebooks:
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(
            filled(
                notebook,
                solutions(path.stem),
                tested=options.tested,
                further=tried(path.stem),
            ),
            options.folder / path.name,
        )


if __name__ == "__main__":
    main()
