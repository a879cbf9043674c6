"""The stored notebooks: small, complete, in order, without traces of a machine, and of one shape.

That they run, and give what is stored, is nbval's part (``make test-notebooks``).
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest

from wandlib.systems.registry import training_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(FOLDER))
from clean import clean  # noqa: E402
from fill import RIGHT, filled, solutions  # noqa: E402

REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 600_000
TAGGED = 0.25
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
FIRST_CELL = f"""\
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

spec = importlib.util.find_spec("wandlib")
if spec is None or spec.origin is None:  # a folder of that name is no package
    release = "git+{REPOSITORY}@v{VERSION}"
    wheels = sorted(
        Path().glob("wandlib-*.whl"),
        key=lambda path: [int(number) for number in re.findall(r"\\d+", path.name)],
        reverse=True,  # the newest first
    )
    folders = [
        path for path in (Path("wandlib"), Path("..")) if (path / "wandlib").is_dir()
    ]
    local = [f"{{path.resolve()}}[colab]" for path in [*wheels, *folders]]
    source = local[0] if local else f"wandlib[colab] @ {{release}}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", source]
    if subprocess.run(pip).returncode:
        raise SystemExit(
            "wandlib could not be installed: upload wandlib-*.whl of a release "
            "into this folder, and run this cell again."
        )
    importlib.invalidate_caches()"""
WIDTH = 88
"""Characters of a line of code that every page shows."""
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


def hints(source: str) -> tuple[str, str]:
    """The two hints of a check."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (call,) = [each for each in calls if isinstance(each.func, ast.Name) and each.func.id == "check"]
    return ast.literal_eval(call.args[2]), ast.literal_eval(call.args[3])


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
    aside = ["".join(output["text"]) for output in outputs(path) if output.get("name") == "stderr"]
    base = training_of("sparktts").base  # the one system of the notebooks whose weights are not free
    license = f"weights of {base.title}: {' '.join(base.terms.split())}\n"
    assert aside == ([license] if path.name == "13_a_real_system.ipynb" else [])
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
def test_what_a_cell_prints_is_one_output(path: Path) -> None:
    for cell in cells(path, "code"):
        streams = [output.get("name") for output in cell["outputs"]]
        assert not any(one == other == "stdout" for one, other in pairwise(streams)), cell["source"]


@every
def test_every_model_takes_the_device(path: Path) -> None:
    """On a GPU a notebook uses it: wherever it loads a system or prepares data, it says where."""
    calls = [
        node
        for cell in cells(path, "code")
        for node in ast.walk(ast.parse(cell["source"]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("wandlib.load_system", "prepare")
    ]
    said = [ast.unparse(keyword) for call in calls for keyword in call.keywords]
    assert said.count("device=device") == len(calls)
    sources = [cell["source"] for cell in cells(path, "code")]
    line = 'device = "cuda" if torch.cuda.is_available() else "cpu"'
    assert not calls or sum(line in source.splitlines() for source in sources[:2]) == 1


@every
def test_few_outputs_are_left_uncompared(path: Path) -> None:
    with_output = [cell for cell in cells(path, "code") if cell["outputs"]]
    assert sum(map(tagged, with_output)) <= TAGGED * len(with_output)


@every
def test_first_cells(path: Path) -> None:
    title, setup, first = cells(path)[:3]
    assert re.match(rf"# {path.name[:2]} · [A-Z]", title["source"])
    owner = REPOSITORY.removeprefix("https://github.com/")
    image = "![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)"
    page = f"https://colab.research.google.com/github/{owner}/blob/v{VERSION}/notebooks/{path.name}"
    assert title["source"].count(f"[{image}]({page})") == 1
    assert len(re.findall(r"^\*\*[^*]+\?\*\*$", title["source"], flags=re.MULTILINE)) == 1
    assert "After this notebook you" in title["source"]
    assert setup["source"].startswith("## Set up\n")
    assert first["source"] == FIRST_CELL


@every
def test_as_much_prose_as_code(path: Path) -> None:
    prose = sum(len(cell["source"].split()) for cell in cells(path, "markdown"))
    code = sum(len(cell["source"].split()) for cell in cells(path, "code")[1:])
    assert prose >= code
    assert max(cell["source"].count("\n") + 1 for cell in cells(path, "code")) <= 45


@every
def test_lines_of_code_fit_the_page(path: Path) -> None:
    lines = [line for cell in cells(path, "code") for line in cell["source"].splitlines()]
    assert [line for line in lines if len(line) > WIDTH] == []


@every
def test_every_picture_has_an_alternative_text(path: Path) -> None:
    pictures = [output for output in outputs(path) if "image/png" in output.get("data", {})]
    assert all(picture["metadata"]["image/png"]["alt"] for picture in pictures)


@every
def test_exercises_are_blank_and_have_two_hints_and_a_solution(path: Path) -> None:
    code = [cell for cell in cells(path, "code") if {"exercise", "check"} & set(cell["metadata"].get("tags", []))]
    blank, checks = code[::2], code[1::2]
    assert [cell["metadata"]["tags"] for cell in blank] == [["exercise"]] * len(blank)
    assert [cell["metadata"]["tags"] for cell in checks] == [["check"]] * len(blank)
    assert 2 <= len(blank) <= 4
    assert not any("Your answer here" in cell["source"] or "Solution" in cell["source"] for cell in cells(path))
    assert all("..." in cell["source"] or path.name == "05_convert.ipynb" for cell in blank)
    for number, cell in enumerate(checks, start=1):
        assert cell["source"].startswith(f"# @title Check exercise {number} ")
        first, second = hints(cell["source"])
        assert first != second
        if cell["outputs"]:
            assert f"First hint: {first}\n" in "".join(cell["outputs"][0]["text"])
    found = solutions(path.stem)
    assert len(found) == len(blank)
    assert all(answer.code.strip() and answer.remarks for answer in found)


@every
def test_half_of_the_exercises_ask_to_build(path: Path) -> None:
    blank = [cell for cell in cells(path, "code") if "exercise" in cell["metadata"].get("tags", [])]
    build = [cell for cell in blank if re.search(r"^(def|class) ", cell["source"], flags=re.MULTILINE)]
    assert 2 * len(build) >= len(blank)


@every
def test_solved_copies_take_every_attempt(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    answers = solutions(path.stem)
    solved, tested = (filled(notebook, answers, tested=tested) for tested in (False, True))
    checks = [cell for cell in tested.cells if "check" in cell.metadata.get("tags", [])]
    assert len(checks) == 3 * len(answers)
    assert [cell.outputs[0].text for cell in checks[2::3]] == [RIGHT] * len(answers)
    assert all("Second hint: " in output.text for cell in checks[1::3] for output in cell.outputs)
    sources = [cell.source for cell in solved.cells]
    assert all(answer.code in sources for answer in answers)
    assert len({cell.id for cell in tested.cells}) == len(tested.cells)


@every
def test_eight_questions_with_folded_answers(path: Path) -> None:
    (part,) = [cell["source"] for cell in cells(path, "markdown") if cell["source"].startswith("## Questions\n")]
    asked = re.findall(r"<details><summary>(\d)\. ([^<]+)</summary>\n\n(.+?)\n\n</details>", part, flags=re.DOTALL)
    assert [int(number) for number, _, _ in asked] == list(range(1, 9))
    assert all(question.rstrip().endswith(("?", ".")) for _, question, _ in asked)


@every
def test_clean_copy_is_of_this_notebook(path: Path) -> None:
    stored = nbformat.read(FOLDER / "clean" / path.name, as_version=4)
    assert stored.cells == clean(nbformat.read(path, as_version=4)).cells
    assert not any(cell.get("outputs") for cell in stored.cells)


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
        exercises = len(solutions(path.stem))
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


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("KL 0.13, agreement  65%", True),
        ("KL 12, agreement -5%", True),
        ("KL nan, agreement 65%", True),
        ("KL 1.3e-05, agreement 1,065%", True),
        ("KL 0.12, agreements 66%", False),
        ("KL 0.12, agreement %", False),
        ("KL 0.12 0.13, agreement 66%", False),
    ],
)
def test_approximate_cells_differ_in_numbers_alone(said: str, same: bool) -> None:
    from approximate import without_numbers

    assert (without_numbers(str, said) == without_numbers(str, "KL 0.12, agreement 66%")) is same


def test_only_cells_that_train_or_listen_are_approximate() -> None:
    """Of the arithmetic of window and cache nothing is."""
    chapters = {
        path.name[:2] for path in NOTEBOOKS for cell in cells(path) if "approximate" in cell["metadata"].get("tags", [])
    }
    assert chapters == {"05", "06", "08", "10", "11", "12", "13"}
