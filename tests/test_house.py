"""The repository as a whole: files that must agree with one another, and what must not be in them."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from transformers import Qwen2Config, Qwen2ForCausalLM

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "wandlib"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEGABYTES = 25
LINES = {"attention/cache/layout.py": 350}
"""Files of the library that may have more than 300 lines."""
# In parts, or this file would be one that names them.
REGISTRY_HOSTS = ["py" + "pi.org", "python" + "hosted.org", "anaconda" + ".org", "download.py" + "torch.org"]


def files_of_the_repository() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def texts() -> dict[Path, str]:
    found = {}
    for path in files_of_the_repository():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found[path.relative_to(ROOT)] = content.decode("utf-8")
    return found


def requirement_lines() -> list[Requirement]:
    """Every dependency of the library and then of its extras; some are named by several of these."""
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][name] for name in extras())]
    return [Requirement(line) for group in groups for line in group]


def requirements() -> dict[str, Requirement]:
    """Every dependency by its name; what the library itself asks for comes first."""
    return {canonicalize_name(requirement.name): requirement for requirement in reversed(requirement_lines())}


def extras() -> list[str]:
    return sorted(set(PROJECT["optional-dependencies"]) - {"all"})


def constraints() -> dict[str, list[Requirement]]:
    """The pins of a package: several where they depend on the Python."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def pinned(name: str) -> Version:
    (pin,) = constraints()[name]
    (specifier,) = pin.specifier
    return Version(specifier.version)


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_constraints_pin_every_dependency_within_its_range() -> None:
    assert requirements().keys() <= constraints().keys()
    for requirement in requirement_lines():
        assert pinned(canonicalize_name(requirement.name)) in requirement.specifier, requirement


def test_constraints_are_exact_and_name_no_place() -> None:
    for pins in constraints().values():
        for pin in pins:
            assert pin.url is None
            assert re.fullmatch(r"==[\w.!+]+", str(pin.specifier)), pin


def test_constraints_hold_on_every_python() -> None:
    """On each Python and platform that is supported a package has one pin, or none."""
    for minor in (11, 12, 13):
        for machine in ("x86_64", "aarch64"):
            python = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9"}
            here = {**python, "sys_platform": "linux", "platform_machine": machine, "os_name": "posix"}
            for name, pins in constraints().items():
                assert sum(pin.marker is None or pin.marker.evaluate(here) for pin in pins) <= 1, name


def test_transformers_stops_at_the_minor_release_that_was_tested() -> None:
    tested = pinned("transformers")
    (upper,) = [bound.version for bound in requirements()["transformers"].specifier if bound.operator == "<"]
    assert upper == f"{tested.major}.{tested.minor + 1}"


def test_newest_lifts_the_bounds_that_are_ours() -> None:
    """Those of torch, torchaudio and setuptools have reasons that no newer release of their own removes; the app, which
    needs gradio, is not tested with them."""
    bounded = {name for name, requirement in requirements().items() if "<" in str(requirement.specifier)}
    (lifted,) = re.findall(r"^LIFTED := (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert set(lifted.split()) == bounded - {"torch", "torchaudio", "setuptools", "gradio"}


def test_everyone_installs_what_was_tested() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, _, pip = environment["dependencies"]
    assert python.startswith(f"python{PROJECT['requires-python']}")
    assert pip["pip"] == ["--constraint constraints.txt", "--editable .[all]"]
    commands = "".join(code_blocks("sh")).splitlines()
    installing = [line for line in commands + MAKEFILE.splitlines() if "pip install" in line and "[" in line]
    own = [line for line in installing if "$(UV)" not in line and "--dry-run" not in line]
    assert len(own) == 4
    assert [line for line in own if "--constraint constraints.txt" not in line] == []


def test_versions_that_readme_names_are_those_of_the_constraints() -> None:
    (oldest,) = [bound.version for bound in requirements()["transformers"].specifier if bound.operator == ">="]
    named = re.findall(r"(transformers|torch|gradio) (\d+(?:\.\d+)*)", README)
    assert named == [
        ("transformers", str(pinned("transformers"))),
        ("torch", str(pinned("torch"))),
        ("gradio", str(pinned("gradio"))),
        ("transformers", oldest),
    ]


def test_all_holds_every_extra() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    named = set(everything.removeprefix("wandlib[").removesuffix("]").split(","))
    assert named == set(PROJECT["optional-dependencies"]) - {"all"}


def test_citation_has_the_version_of_pyproject() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["preferred-citation"]["doi"] in README


def test_address_of_the_repository_stands_once() -> None:
    """In pyproject, and in each notebook's first cells, which must install without one."""
    address = PROJECT["urls"]["Repository"].removeprefix("https://")
    naming = [path for path, text in texts().items() for _ in range(text.count(address))]
    assert [str(path) for path in naming if path.suffix != ".ipynb"] == ["pyproject.toml"]
    for path, text in texts().items():
        if path.suffix == ".ipynb":
            assert set(re.findall(r"github\.com/[\w-]+/[\w-]+", text)) <= {address}, path


def test_no_large_file() -> None:
    large = [path for path in files_of_the_repository() if path.stat().st_size > MEGABYTES * 2**20]
    assert large == []


@pytest.mark.parametrize("name", [str(p.relative_to(LIBRARY)) for p in sorted(LIBRARY.rglob("*.py"))])
def test_files_of_the_library_are_short(name: str) -> None:
    assert (LIBRARY / name).read_text(encoding="utf-8").count("\n") <= LINES.get(name, 300)


def test_no_package_registry_is_named() -> None:
    naming = [(str(path), host) for path, text in texts().items() for host in REGISTRY_HOSTS if host in text]
    assert naming == []


def test_readme_names_both_commands_and_ci_runs_the_tests() -> None:
    commands = "".join(code_blocks("sh")).splitlines()
    assert {"make demo", "make test"} <= set(commands)
    script = ROOT / ".ci" / "run"
    targets = ["make .venv/.installed-all", "make --jobs=2 --output-sync types docs test-colab"]
    targets += ["make test", "make test-notebooks", "make test-oldest-transformers"]
    assert script.read_text(encoding="utf-8").splitlines()[-5:] == targets
    assert os.access(script, os.X_OK)


def test_ci_script_is_sound_bash() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z-]+)\b", README + CONTRIBUTING)) - {"alone"}))
def test_make_knows_what_is_named(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_files_that_readme_links_exist() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_licence_is_complete() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_code_of_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=50, num_key_value_heads=1, **shape))
    prompt = torch.arange(1, 11)[None]
    names: dict[str, Any] = {"model": model, "inputs": {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}}
    for block in code_blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "full.wav").stat().st_size > 10_000
    assert (tmp_path / "window.wav").stat().st_size > 10_000
