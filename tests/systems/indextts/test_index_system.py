"""IndexTTS from a folder to sound, on a tiny checkpoint; what a user can get wrong; gpt.pth there and back."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import torch
import yaml

import wandlib
from wandlib.attention.cache.cache import WandCache
from wandlib.systems.base import InputError
from wandlib.systems.indextts import tiny
from wandlib.systems.indextts.checkpoint import read_language_model, write_language_model
from wandlib.systems.indextts.system import IndexSystem
from wandlib.systems.indextts.text import TextNormalizer, Tokenizer, load_wetext, split


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings.write(tmp_path_factory.mktemp("voices") / "voice.wav")


@pytest.fixture(scope="module")
def system(folder: Path) -> IndexSystem:
    return IndexSystem.load(folder)


def test_a_checkpoint_is_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2_000_000


def test_speech(system: IndexSystem, recording: Path) -> None:
    steps = []
    speech = system.synthesize("HELLO.", recording, "window", seed=1, on_step=steps.append, window=8, maximum_codes=40)
    assert speech.sample_rate == 24_000
    assert len(speech.waveform) == 1024 * len(speech.codes) > 0
    assert speech.trace.steps == steps
    assert speech.trace.conditioning == 32 + len(system.tokenizer.parts("HELLO.")[0]) + 3
    assert len({step.cache_bytes for step in steps[8:]}) == 1, "the cache grows with the window full"
    full = system.synthesize("HELLO.", recording, "full", seed=1, maximum_codes=40)
    assert full.trace.cache_bytes[-1] > 2 * speech.trace.cache_bytes[-1]
    assert not np.array_equal(full.codes, speech.codes), "the window makes no difference"
    again = system.synthesize("HELLO.", recording, "window", seed=1, window=8, maximum_codes=40)
    assert np.array_equal(again.waveform, speech.waveform)


def test_a_window_of_one_call_is_of_that_call(system: IndexSystem, recording: Path) -> None:
    """The second pass takes the call's window too: with the same codes another window sounds different."""
    codes, sounds = [], []
    for window in (30, 40):  # wider than what is generated: the codes are the same, and so is the sound
        speech = system.synthesize("HELLO.", recording, "window", seed=1, window=window, maximum_codes=20)
        codes.append(speech.codes)
        sounds.append(speech.waveform)
    full = system.synthesize("HELLO.", recording, "full", seed=1, maximum_codes=20)
    assert np.array_equal(codes[0], codes[1])
    np.testing.assert_allclose(sounds[0], full.waveform, atol=1e-5)


def test_a_window_wider_than_the_speech_takes_no_memory(
    system: IndexSystem, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = []

    class Noted(WandCache):
        def __init__(self, config: Any, window: int, **options: Any) -> None:
            widths.append(window)
            super().__init__(config, window, **options)

    monkeypatch.setattr("wandlib.systems.indextts.system.WandCache", Noted)
    monkeypatch.setattr("wandlib.systems.indextts.language_model.WandCache", Noted)
    system.synthesize("HELLO.", recording, "window", seed=1, window=5_000_000, maximum_codes=10)
    assert len(widths) == 2
    assert max(widths) <= 11


def test_speech_of_two_threads_is_that_of_one(system: IndexSystem, recording: Path) -> None:
    """Codes are drawn from torch's own generator, which all threads share."""

    def say(seed: int) -> Any:
        def wait(step: Any) -> None:
            time.sleep(1e-3)  # let the other thread draw

        return system.synthesize(
            "HELLO.", recording, "window", seed=seed, maximum_codes=20, on_step=wait
        ).codes.tolist()

    alone = [say(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(say, range(4))) == alone


def test_the_draws_of_others_go_on(system: IndexSystem, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the CPU, and of GPUs, where the model need not be: ``torch.manual_seed`` seeds them all."""
    seeded = list[int]()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    assert len(system.synthesize("HELLO.", recording, seed=3, maximum_codes=5).codes)
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded


def test_parts_are_streamed(system: IndexSystem, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "HELLO THERE. AND MORE!"
    monkeypatch.setattr(system.tokenizer, "parts", lambda text: [[5, 6, 7], [8, 9]])
    whole = system.synthesize(text, recording, "window", maximum_codes=12)
    parts = list(system.stream(text, recording, "window", maximum_codes=12))
    assert len(parts) == len(whole.trace.parts) == 2
    assert np.array_equal(np.concatenate(parts), whole.waveform)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": "..."}, "nothing to say"),
        ({"reference": None}, "no voice of its own"),
        ({"reference": "no such file.wav"}, "no reference file"),
        ({"window": 0}, "at least 1 key"),
        ({"temperature": 2.5}, "between 0"),
        ({"top_k": -1}, "at least 1"),
        ({"seed": -1}, "between 0"),
        ({"maximum_codes": 82}, "positions for 81 codes an utterance, 82 were asked for, and no window lifts that"),
    ],
)
def test_what_cannot_be_used(settings: dict[str, Any], message: str, system: IndexSystem, recording: Path) -> None:
    with pytest.raises(InputError, match=message):
        system.synthesize(**{"text": "HI.", "reference": recording, "attention": "window", **settings})


def test_digits_need_a_normalizer(folder: Path) -> None:
    tokenizer = Tokenizer(folder / "bpe.model", TextNormalizer(None))
    with pytest.raises(InputError, match="pip install wetext"):
        tokenizer.pieces("IT IS 3 PM")
    assert tokenizer.pieces("what's up") == tokenizer.pieces("WHAT IS UP")


def test_spaces_in_a_row_are_one(folder: Path) -> None:
    pytest.importorskip("wetext")
    tokenizer = Tokenizer(folder / "bpe.model", TextNormalizer(load_wetext()))
    assert tokenizer.pieces("IT  IS\r\nSO.") == tokenizer.pieces("IT IS SO.")


def test_names_and_pinyin_are_kept_from_the_normalizer() -> None:
    seen = []

    def reverse(text: str) -> str:
        seen.append(text)
        return text

    normalize = TextNormalizer((reverse, reverse))
    assert normalize("晕XUAN4，约瑟夫·高登，说ju2") == "晕XVAN4,约瑟夫-高登,说JV2"
    assert seen == ["晕<pinyin_a>，<n_c>，说<pinyin_b>"]


def test_a_long_text_is_cut_at_marks() -> None:
    pieces = ["A"] * 5 + ["."] + ["B"] * 9 + [","] + ["C"] * 4 + ["."]
    assert split(pieces, 10) == [pieces[:6], pieces[6:16], pieces[16:]]
    with pytest.warns(RuntimeWarning, match="4 tokens without a mark"):
        assert [len(part) for part in split(["A"] * 9, 4)] == [4, 1, 4]


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_the_first_missing_file_is_named(copy: Path) -> None:
    (copy / "bpe.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"no bpe\.model .*hf download IndexTeam/IndexTTS-1\.5"):
        IndexSystem.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1.0}, "version 1.0; only IndexTTS 1.5 is read"),
        ({"bigvgan": None}, "no part 'bigvgan'"),
        ({"gpt": {**tiny.SETTINGS["gpt"], "condition_type": "perceiver"}}, "condition_type is 'perceiver'"),
        ({"gpt": {**tiny.SETTINGS["gpt"], "layers": 3}}, r"gpt\.pth does not fit its settings: 12 tensors are missing"),
        (
            {"gpt": {**tiny.SETTINGS["gpt"], "max_mel_tokens": 81}},
            r"mel_pos_embedding\.emb\.weight .* \[83, 32\]",
        ),
        ({"bigvgan": {**tiny.SETTINGS["bigvgan"], "activation": "snake"}}, "activation is 'snake'"),
    ],
)
def test_settings_that_do_not_fit(change: dict[str, Any], message: str, copy: Path) -> None:
    (copy / "config.yaml").write_text(yaml.safe_dump({**tiny.SETTINGS, **change}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        IndexSystem.load(copy)


def test_another_system_is_recognized(copy: Path) -> None:
    (copy / "s2mel.pth").touch()
    with pytest.raises(InputError, match="holds IndexTTS 2, not IndexTTS"):
        IndexSystem.load(copy)


class Evil:
    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize("content", ["damaged", "code"])
def test_a_pickle_that_is_no_tensors(content: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = "cannot be read as tensors"
    if content == "damaged":
        (copy / "gpt.pth").write_bytes((copy / "gpt.pth").read_bytes()[:1000])
    else:
        torch.save({"model": Evil()}, copy / "gpt.pth")
        message = "other than tensors, which is not loaded"
    with pytest.raises(InputError, match=rf"gpt\.pth .*{message}"):
        IndexSystem.load(copy)
    assert "run" not in capsys.readouterr().out


def test_a_student_is_written_back_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    """What did not change stays as it was; what changed is read again, the window apart."""
    original = folder / "gpt.pth"
    model, _ = read_language_model(original, tiny.SETTINGS["gpt"])
    wandlib.convert(model, window=8)
    with torch.no_grad():
        model.gpt.h[0].attn.c_attn.weight.add_(1.0)
    write_language_model(tmp_path / "gpt.pth", model, original)
    before, after = (torch.load(path, weights_only=True)["model"] for path in (original, tmp_path / "gpt.pth"))
    assert list(before) == list(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"gpt.h.0.attn.c_attn.weight"}
    again, _ = read_language_model(tmp_path / "gpt.pth", tiny.SETTINGS["gpt"])
    assert torch.equal(again.gpt.h[0].attn.c_attn.weight, model.gpt.h[0].attn.c_attn.weight)
    student = IndexSystem.load(folder, student=tmp_path / "gpt.pth")
    weights = {attention: model.gpt.h[0].attn.c_attn.weight for attention, model in student.models.items()}
    assert torch.equal(weights["full"], before["gpt.h.0.attn.c_attn.weight"])
    assert torch.equal(weights["window"], after["gpt.h.0.attn.c_attn.weight"])
