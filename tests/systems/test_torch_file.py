"""Checkpoints read tensor by tensor: the numbers of torch.load, in less memory."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config

from wandlib.systems import torch_file
from wandlib.systems.cosyvoice2 import CosyVoice2Config, CosyVoice2LM
from wandlib.systems.cosyvoice2.folder import BASE
from wandlib.systems.cosyvoice2.llm_weights import write_llm
from wandlib.systems.torch_file import StoredTensor, equal, read, stored_tensors

MEASURE = """
import sys
from pathlib import Path
import torch
from wandlib.systems.cosyvoice2.folder import load_language_model

def resident(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024

for dtype in (torch.bfloat16, torch.float32):
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    model = load_language_model(sys.argv[1], dtype)
    print(sum(parameter.nbytes for parameter in model.parameters()), resident("VmHWM") - before)
    del model
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    table = torch.randn(50, 30)
    content = {"table": table, "tied": table, "turned": torch.randn(4, 6).t(), "part": torch.arange(10)[3:7]}
    torch.save({**content, "half": torch.randn(7).bfloat16(), "none": torch.empty(0), "epoch": 3}, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_numbers_are_those_of_torch_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "PIECE", 7)
    wanted = {name: value for name, value in torch.load(path, weights_only=True).items() if name != "epoch"}
    found = stored_tensors(path)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(read(found[name], tensor.dtype), tensor)
        assert torch.equal(read(found[name], torch.float16), tensor.half())
    assert isinstance(found["table"], StoredTensor)
    assert equal(found["table"], found["tied"])
    assert not equal(found["table"], found["part"])


def test_equality_of_what_lies_in_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "PIECE", 7)
    one = torch.randn(20)
    torch.save({"one": one, "same": one.clone(), "other": torch.cat((one[:-1], one[:1]))}, tmp_path / "x.pt")
    found = stored_tensors(tmp_path / "x.pt")
    assert equal(found["one"], found["same"])
    assert not equal(found["one"], found["other"])
    assert equal(found["one"], one)


def test_files_of_old_releases_are_read_at_once(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read(stored_tensors(tmp_path / "x.pt")["a"], torch.float32), torch.ones(3))


def test_a_file_that_was_cut(path: Path) -> None:
    [table, *_] = stored_tensors(path).values()
    path.write_bytes(path.read_bytes()[:2000])
    assert isinstance(table, StoredTensor)
    with pytest.raises(EOFError):
        table.read()
    with pytest.raises((RuntimeError, EOFError)):
        stored_tensors(path)


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "x.pt")
    with pytest.raises(TypeError, match="holds a list"):
        stored_tensors(tmp_path / "x.pt")
    torch.save({"a": Path()}, tmp_path / "x.pt")
    with pytest.raises(pickle.UnpicklingError):
        stored_tensors(tmp_path / "x.pt")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel counts the peak on Linux alone")
def test_peak_of_loading_is_little_more_than_the_weights(tmp_path: Path) -> None:
    """Resident memory at its peak, of a language model of 345 MB in float32: nine tenths are the table of ids."""
    sizes: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 2}
    model = CosyVoice2LM(CosyVoice2Config(text_vocab_size=150_000, **sizes))
    torch.save(write_llm(model), tmp_path / "llm.pt")
    Qwen2Config(vocab_size=150_000, **sizes).save_pretrained(tmp_path / BASE)
    (tmp_path / "cosyvoice2.yaml").touch()
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    half, full = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    assert full[0] == 2 * half[0] > 300e6
    for weights, peak in (half, full):
        assert 0.9 * weights < peak <= 1.2 * weights, f"{peak / weights:.2f} of {weights / 1e6:.0f} MB"
