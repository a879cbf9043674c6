"""What a Hugging Face Space reads: the head of app/README.md, and the Dockerfile."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

APP = Path(__file__).parents[2] / "app"
README = (APP / "README.md").read_text(encoding="utf-8")
DOCKERFILE = (APP / "Dockerfile").read_text(encoding="utf-8")


def front_matter() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(README.removeprefix("---\n").partition("\n---\n")[0])
    return found


def test_head_is_a_spaces_configuration() -> None:
    head = front_matter()
    assert head["sdk"] == "docker"
    assert head.keys() >= {"title", "emoji", "license"}
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {head["colorFrom"], head["colorTo"]} <= colors
    assert len(head["short_description"]) <= 60


def test_port_is_the_same_everywhere() -> None:
    (exposed,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, flags=re.MULTILINE)
    (command,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, flags=re.MULTILINE)
    words = json.loads(command)
    assert front_matter()["app_port"] == int(exposed) == int(words[words.index("--port") + 1])
    assert words[words.index("--host") + 1] == "0.0.0.0"


def test_upload_takes_files_of_any_size() -> None:
    """The weights are too large for a plain git push."""
    section = README.partition("## A Hugging Face Space")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    assert "hf upload USER/NAME space . --repo-type space --exclude .gitattributes" in commands
    assert "git push" not in commands
