"""Folders: what is missing is named, and what is something else is recognised."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2 import CosyVoice2System, export_llm
from wandlib.systems.cosyvoice2.folder import NEEDED, check_folder, load_language_model, read_tensors
from wandlib.systems.cosyvoice2.settings import Settings, read_yaml
from wandlib.systems.cosyvoice2.tiny import language_model, write_tiny
from wandlib.systems.students import load_student


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "CosyVoice2-0.5B"))


@pytest.mark.parametrize("name", NEEDED)
def test_missing_file_is_named_with_its_cure(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no {name} in .*hf download FunAudioLLM/CosyVoice2-0.5B {name}"):
        check_folder(folder)


def test_misplaced_files(folder: Path) -> None:
    (folder / "asset").mkdir()
    shutil.move(folder / "flow.pt", folder / "asset" / "flow.pt")
    with pytest.raises(FileNotFoundError, match=r"flow.pt lies at 'asset/flow.pt'.*move it"):
        check_folder(folder)
    shutil.move(folder / "asset" / "flow.pt", folder / "flow.pt")
    shutil.move(folder / "CosyVoice-BlankEN" / "vocab.json", folder / "vocab.json")
    with pytest.raises(FileNotFoundError, match=r"CosyVoice-BlankEN/vocab.json lies at 'vocab.json'"):
        check_folder(folder)


def test_pointers_of_git_lfs(folder: Path) -> None:
    (folder / "llm.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match=r"llm.pt is a Git LFS pointer.*git lfs pull"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("sign", "what"),
    [
        ("cosyvoice3.yaml", "CosyVoice 3"),
        ("cosyvoice.yaml", "CosyVoice 1"),
        ("BiCodec/config.yaml", "Spark-TTS"),
        ("gpt.pth", "IndexTTS"),
    ],
)
def test_other_systems_are_recognised(sign: str, what: str, tmp_path: Path) -> None:
    (tmp_path / sign).parent.mkdir(exist_ok=True)
    (tmp_path / sign).touch()
    with pytest.raises(InputError, match=what):
        CosyVoice2System.load(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*hf download"):
        CosyVoice2System.load(tmp_path / "none")


class Touch:
    """Runs when a pickle is read that may run code."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("harmed", "w")


def test_code_in_a_checkpoint_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Touch()}, folder / "flow.pt")
    with pytest.raises(InputError, match=r"flow.pt holds more than tensors"):
        CosyVoice2System.load(folder)
    assert not (tmp_path / "harmed").exists()


def test_tags_in_yaml_run_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    path = folder / "cosyvoice2.yaml"
    path.write_text("__a: !apply:os.mkdir [harmed]\n__b: !!python/none 1\n" + path.read_text(), encoding="utf-8")
    with pytest.raises(InputError, match="is no YAML that can be read"):
        read_yaml(path)  # tags of Python's own are refused
    path.write_text(path.read_text().replace("__b: !!python/none 1\n", ""), encoding="utf-8")
    assert read_yaml(path)["__a"] == ["harmed"]
    assert not (tmp_path / "harmed").exists()


def test_references_in_yaml_are_resolved(checkpoint: Path) -> None:
    content = read_yaml(checkpoint / "cosyvoice2.yaml")
    assert content["flow"]["decoder"]["estimator"]["static_chunk_size"] == 50
    assert content["flow"]["spk_embed_dim"] == 192
    settings = Settings(content)
    assert (settings.sampling.top_p, settings.sampling.top_k, settings.sampling.history) == (0.8, 25, 10)


def test_settings_left_out_are_the_published_ones() -> None:
    """Parameters of the published models: 112.5 M and 20.8 M (counted on upstream's classes)."""
    settings = Settings({"llm": {}, "flow": {}, "hift": {}})
    with torch.device("meta"):
        flow, hift = settings.flow(), settings.hift()
    assert sum(p.numel() for p in flow.parameters()) == pytest.approx(112.5e6, rel=1e-3)
    assert sum(p.numel() for p in hift.parameters()) == pytest.approx(20.8e6, rel=3e-3)


def build(content: dict[str, object]) -> None:
    settings = Settings(content)
    settings.flow()
    settings.hift()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"flow": {}, "hift": {}}, "has no llm"),
        ({"llm": {}, "flow": {}, "hift": {}, "sample_rate": 22_050}, "22050 Hz"),
        ({"llm": {}, "flow": {"decoder": {"estimator": {"channels": [256, 256]}}}, "hift": {}}, "2 levels"),
        ({"llm": {}, "flow": {}, "hift": {"upsample_rates": [8, 8]}}, "256 samples a frame"),
    ],
)
def test_settings_of_other_models(content: dict[str, object], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        build(content)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("flow.pt", lambda w: w.pop("encoder_proj.weight"), "flow.pt has nothing for encoder_proj.weight"),
        ("flow.pt", lambda w: w.update(more=torch.zeros(1)), "flow.pt has more, which"),
        ("hift.pt", lambda w: w.update({"generator.conv_post.bias": torch.zeros(3)}), r"conv_post.bias .* shape \[3\]"),
    ],
)
def test_weights_of_other_models(name: str, change: object, message: str, folder: Path) -> None:
    weights = read_tensors(folder / name)
    change(weights)  # type: ignore[operator]
    torch.save(weights, folder / name)
    with pytest.raises(InputError, match=message):
        CosyVoice2System.load(folder)


def test_damaged_weights(folder: Path) -> None:
    (folder / "hift.pt").write_bytes((folder / "hift.pt").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"hift.pt cannot be read"):
        CosyVoice2System.load(folder)


def test_epoch_and_step_of_a_training_run_do_not_matter(folder: Path) -> None:
    weights = read_tensors(folder / "llm.pt")
    torch.save({**weights, "epoch": 3, "step": 1000}, folder / "llm.pt")
    assert load_language_model(folder).config.version == 2


def test_language_model_of_version_3_loads(folder: Path) -> None:
    (folder / "cosyvoice2.yaml").rename(folder / "cosyvoice3.yaml")
    export_llm(language_model(3), folder / "llm.pt")
    model = load_language_model(folder)
    assert model.config.version == 3
    assert model.lm_head.bias is None
    prompt = torch.tensor([model.config.prompt([1, 2, 3])])
    made = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=5)
    assert made.shape[1] > prompt.shape[1]


def test_a_student_is_a_folder_of_transformers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config.json"):
        load_student(tmp_path, language_model(), "CosyVoice")
    Qwen2Config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"holds no language model of CosyVoice: its config.json is that of a 'qwen2'"):
        load_student(tmp_path, language_model(), "CosyVoice")


def test_files_of_two_models(folder: Path) -> None:
    path = folder / "cosyvoice2.yaml"
    path.write_text(path.read_text().replace("  vocab_size: 243", "  vocab_size: 244"))
    with pytest.raises(InputError, match=r"llm.pt has 243 codes, the flow of cosyvoice2.yaml 244"):
        CosyVoice2System.load(folder)


def test_tiny_checkpoint_is_small_and_the_same_every_time(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    write_tiny(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    assert sum((tmp_path / name).stat().st_size for name in files) < 2_000_000
    for name in ("llm.pt", "flow.pt", "hift.pt"):
        one, two = read_tensors(tmp_path / name), read_tensors(checkpoint / name)
        assert all(torch.equal(one[key], two[key]) for key in two)
    assert (tmp_path / "campplus.onnx").read_bytes() == (checkpoint / "campplus.onnx").read_bytes()
