"""Build of these pages: Sphinx, with the stored notebooks as they are, and the API from the docstrings."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = f"{PROJECT['urls']['Repository']}/blob/v{PROJECT['version']}"
"""Where a file of the repository is, for links to what is no page."""

TOCTREE = "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"

project = "wandlib"
author = copyright = "The wandlib contributors"
release = PROJECT["version"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
html_theme = "furo"
html_title = "wandlib"
html_static_path = ["_static"]
html_css_files = ["notebooks.css"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = nb_code_prompt_hide = "Check your answer (code with both hints)"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
suppress_warnings = ["mystnb.unknown_mime_type"]  # live widgets have a still picture beside them


def copy_notebooks(_: Any) -> None:
    """Put the notebooks beside the pages, the hints of their exercises folded; they are stored in one place only."""
    target = HERE / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            tags = cell["metadata"].get("tags", [])
            if "check" in tags:
                tags.append("hide-cell")
        (target / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    readme = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    (target / "README.md").write_text(readme + TOCTREE, encoding="utf-8")


def link_files(_: Any, page: str, source: list[str]) -> None:
    """Let links to what is no page lead into the repository."""

    def lead(match: re.Match[str]) -> str:
        target, anchor = re.fullmatch(r"([^#]*)(.*)", match[1]).groups()
        path = (HERE / page).parent / target
        if target.startswith(("http", "#", "mailto")) or not target or path.suffix in {".svg", ".png"}:
            return match[0]
        if path.suffix in {".md", ".ipynb"} and path.is_file():
            if HERE in path.resolve().parents:
                return match[0]
            if path.resolve().parent == ROOT / "notebooks":
                return f"]({'../' * page.count('/')}notebooks/{path.name}{anchor})"
        inside = ROOT / "notebooks" / target if page.startswith("notebooks/") else path
        name = Path(inside).resolve().relative_to(ROOT).as_posix()
        return f"]({FILES}/{name}{anchor})"

    source[0] = re.sub(r"\]\(([^)\s]+)\)", lead, source[0])


def setup(app: Any) -> None:
    """Connect the two."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", link_files)
