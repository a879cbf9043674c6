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
from transformers import Qwen2Config, Qwen2ForCausalLM

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEGABYTES = 25
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


def requirements_of_pyproject() -> set[str]:
    extras = PROJECT["optional-dependencies"]
    return {line for group in (PROJECT["dependencies"], *extras.values()) for line in group} - set(extras["all"])


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_environment_has_the_versions_of_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, _, pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert set(pip["pip"]) - {"--editable ."} == requirements_of_pyproject()


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


def test_no_package_registry_is_named() -> None:
    naming = [(str(path), host) for path, text in texts().items() for host in REGISTRY_HOSTS if host in text]
    assert naming == []


def test_readme_names_both_commands_and_ci_runs_the_second() -> None:
    commands = "".join(code_blocks("sh")).splitlines()
    assert {"make demo", "make test"} <= set(commands)
    script = ROOT / ".ci" / "run"
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "make test"
    assert os.access(script, os.X_OK)


def test_ci_script_is_sound_bash() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z]+)\b", README)) - {"alone"}))
def test_make_knows_what_readme_names(target: str) -> None:
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
