"""The names that users rely on, and what importing them costs."""

import subprocess
import sys

import pytest

import wandlib


def test_public_names() -> None:
    assert wandlib.__all__ == [
        "DistillationLoss",
        "InputError",
        "Speech",
        "SpeechSystem",
        "Step",
        "StreamCollator",
        "Trace",
        "WandCache",
        "WandCollator",
        "WandTrainer",
        "WandTrainingArguments",
        "WindowCurriculum",
        "attention_flops",
        "attention_mass",
        "cache_bytes",
        "compile_step",
        "convert",
        "full_attention",
        "load",
        "load_system",
        "profile",
        "restore",
        "set_window",
        "skew_kl",
        "streams_of",
        "suggest_blocks",
        "suggest_window",
    ]
    assert [name for name in wandlib.__all__ if not callable(getattr(wandlib, name))] == []


@pytest.mark.parametrize(
    "program", ["import wandlib", "import wandlib.cli.app", "from wandlib.systems import InputError"]
)
def test_torch_waits_until_it_is_needed(program: str) -> None:
    """`wandlib --help` took 3 to 6 s, most of them for torch and transformers."""
    program += "; import sys; print([name for name in ('torch', 'transformers', 'scipy') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


@pytest.mark.parametrize(
    "arguments", [["say", ""], ["evaluate", "missing.txt"], ["evaluate", "--json", "missing/report.json"]]
)
def test_what_cannot_work_is_said_without_torch(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom wandlib.cli.app import app\n"
        f"try: app({arguments})\n"
        "finally: print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (1, "[]")
    assert ended.stderr.startswith("error:")


def test_training_without_accelerate_says_what_to_install() -> None:
    program = (
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'accelerate' else find(name, *more)\n"
        "import wandlib; wandlib.convert; wandlib.WandTrainer"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert last == "ImportError: training needs accelerate, which is not installed: pip install 'wandlib[train]'"
