"""The stored notebooks: small, complete, in order, without traces of a machine, and of one shape.

That they run, and give what is stored, is nbval's part (``make test-notebooks``).
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 600_000
TAGGED = 0.25
FIRST_CELL = f"""\
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("wandlib") is None:
    source = "wandlib[eval,notebooks,train] @ git+{REPOSITORY}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)"""
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|work|mnt|content|Users|private|var)/|\b[A-Z]:\\\\?\w")
EMBEDDED = re.compile(r"base64,[A-Za-z0-9+/=]+")

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def cells(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in found:
        cell["source"] = "".join(cell["source"])
    return [cell for cell in found if kind in (None, cell["cell_type"])]


def outputs(path: Path) -> list[dict[str, Any]]:
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def texts(output: dict[str, Any]) -> list[str]:
    """What an output says in words, pictures and sounds left out."""
    data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
    parts = [output.get("text", ""), *data.values()]
    return [EMBEDDED.sub("", part if isinstance(part, str) else "".join(part)) for part in parts]


def tagged(cell: dict[str, Any]) -> bool:
    return "NBVAL_IGNORE_OUTPUT" in cell["source"] or "nbval-ignore-output" in cell["metadata"].get("tags", [])


def prints(source: str) -> bool:
    """Whether a cell prints outside of the functions that it defines."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(isinstance(name, ast.Name) and name.id == "print" for name in names)


def test_numbers_have_no_gap_of_meaning() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == sorted({path.name[:3] for path in NOTEBOOKS})
    assert NOTEBOOKS[0].name == "00_hear_it.ipynb"


@every
def test_small(path: Path) -> None:
    assert path.stat().st_size < LARGEST


@every
def test_no_state_of_widgets(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert "widgets" not in notebook["metadata"]
    kinds = {kind for output in outputs(path) for kind in output.get("data", {})}
    assert not any("widget" in kind for kind in kinds)


@every
def test_runs_without_complaint(path: Path) -> None:
    assert [output for output in outputs(path) if output["output_type"] == "error"] == []
    assert [output for output in outputs(path) if output.get("name") == "stderr"] == []
    said = "\n".join(text for output in outputs(path) for text in texts(output))
    assert not re.search(r"\b\w*Warning\b|Traceback", said)


@every
def test_no_path_of_a_machine(path: Path) -> None:
    said = [text for output in outputs(path) for text in texts(output)]
    assert [text for text in said + [cell["source"] for cell in cells(path)] if ABSOLUTE.search(text)] == []


@every
def test_every_cell_ran_once_in_order(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    silent = [cell["source"] for cell in code if prints(cell["source"]) and not cell["outputs"]]
    assert silent == []
    assert any("image/png" in output.get("data", {}) for output in outputs(path))


@every
def test_few_outputs_are_left_uncompared(path: Path) -> None:
    with_output = [cell for cell in cells(path, "code") if cell["outputs"]]
    assert sum(map(tagged, with_output)) <= TAGGED * len(with_output)


@every
def test_first_cells(path: Path) -> None:
    title, setup, first = cells(path)[:3]
    assert re.match(rf"# {path.name[:2]} · [A-Z]", title["source"])
    owner = REPOSITORY.removeprefix("https://github.com/")
    badge = f"[Open in Colab](https://colab.research.google.com/github/{owner}/blob/main/notebooks/{path.name})"
    assert title["source"].count(badge) == 1
    assert len(re.findall(r"^\*\*[^*]+\?\*\*$", title["source"], flags=re.MULTILINE)) == 1
    assert "After this notebook you" in title["source"]
    assert setup["source"].startswith("## Set up\n")
    assert first["source"] == FIRST_CELL


@every
def test_as_much_prose_as_code(path: Path) -> None:
    prose = sum(len(cell["source"].split()) for cell in cells(path, "markdown"))
    code = sum(len(cell["source"].split()) for cell in cells(path, "code")[1:])
    assert prose >= code
    assert max(cell["source"].count("\n") + 1 for cell in cells(path, "code")) <= 30


@every
def test_exercises_have_a_check_and_a_solution(path: Path) -> None:
    everything = cells(path)
    (start,) = [place for place, cell in enumerate(everything) if re.search(r"^## Exercises$", cell["source"], re.M)]
    part = everything[start:]
    prose = "\n\n".join(cell["source"] for cell in part if cell["cell_type"] == "markdown")
    numbers = [int(number) for number in re.findall(r"^\*\*(\d+)\. ", prose, flags=re.MULTILINE)]
    assert 2 <= len(numbers) <= 4
    assert numbers == list(range(1, len(numbers) + 1))
    answers = [cell for cell in part if cell["cell_type"] == "code" and "# Your answer here" in cell["source"]]
    assert len(answers) == len(numbers)
    assert prose.count("<details><summary>") == prose.count("</details>") == len(numbers)
    assert any("assert " in cell["source"] for cell in answers)


@every
def test_links_lead_somewhere(path: Path) -> None:
    prose = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    local = re.findall(r"\]\((?!https?://|#)([^)]+)\)", prose)
    assert [link for link in local if not (FOLDER / link).is_file()] == []


@every
def test_ends_with_the_next(path: Path) -> None:
    last = cells(path)[-1]["source"]
    (link,) = re.findall(r"^Next: \[[^]]+\]\(([^)]+)\)$", last, flags=re.MULTILINE)
    later = [other.name for other in NOTEBOOKS if other.name > path.name]
    assert link == (later[0] if later else "README.md")


def test_table_names_every_notebook_with_its_question() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        title = cells(path)[0]["source"]
        (question,) = re.findall(r"^\*\*([^*]+\?)\*\*$", title, flags=re.MULTILINE)
        exercises = sum("# Your answer here" in cell["source"] for cell in cells(path, "code"))
        heading = title.splitlines()[0].removeprefix("# ")
        (row,) = [line for line in table.splitlines() if f"({path.name})" in line]
        columns = [column.strip() for column in row.strip("|").split("|")]
        assert columns[:2] == [f"[{heading}]({path.name})", question]
        assert columns[3] == str(exercises)


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ("a step takes 3.14 ms", "a step takes TIME"),
        ("0.42 s to compute", "TIME"),
        ("1.08 times faster", "RATIO OF TIMES"),
        ('<audio src="data:audio/ogg;base64,T2dnUw+/=">', '<audio src="DATA">'),
        ("<A object at 0x7f00>", "<A object ADDRESS>"),
        ("resident 812.5 MB", "MEMORY"),
        ("10.74 MB, 49.9 %, 25 codes, 10 s of speech", "10.74 MB, 49.9 %, 25 codes, 10 s of speech"),
    ],
)
def test_sanitizer_replaces_what_varies_and_nothing_else(said: str, compared: str) -> None:
    from nbval.plugin import get_sanitize_patterns

    for pattern, replacement in get_sanitize_patterns((FOLDER / "sanitize.cfg").read_text(encoding="utf-8")):
        said = re.sub(pattern, replacement, said)
    assert said == compared
