"""What the recipe does after the codes are fixed: the decoder trained on, the vocoder tuned, shipped weights reused."""

from pathlib import Path

import pytest
import torch

from recipes.mini import align, analysis, encode, shipped, train_codec, train_decoder, train_vocoder
from recipes.mini.loop import save, train
from wandlib.systems.mini.codec import Codec
from wandlib.systems.mini.features import HOP
from wandlib.systems.mini.system import MiniSystem
from wandlib.systems.mini.vocoder import Vocoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of untrained parts."""
    torch.manual_seed(0)
    parts = {"codec": Codec(), "vocoder": Vocoder(), "aligner": align.Recogniser()}
    for name, module in parts.items():
        weights = {key: value.detach() for key, value in module.named_parameters()}
        save(tmp_path / f"{name}.pt", {"average": weights, "step": 0})
    return tmp_path


def test_equal_spectra_sound_alike() -> None:
    torch.manual_seed(0)
    recogniser, mel = align.Recogniser(), torch.randn(2, 8, 80)
    assert train_decoder.phonetic_distance(recogniser, mel, mel) == 0
    assert train_decoder.phonetic_distance(recogniser, mel + 0.5, mel) > 0.01


def test_the_decoder_learns_and_the_codes_stay(shards: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_codec, "BATCH", 2)
    monkeypatch.setattr(train_codec, "CROP", 32)
    monkeypatch.setattr(train_decoder.Crops.sample, "__defaults__", (2,))
    before = encode.load_codec(folder)
    items = analysis.read(shards)
    monkeypatch.setattr(analysis, "read", lambda _: items * 20)  # two hundred are held out
    train_decoder.run(folder, shards, total_steps=2)
    after = encode.load_codec(folder)
    learnt = {id(value) for value in train_decoder.decoder_parameters(after)}
    for (name, one), two in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(one, two) == (id(two) not in learnt), name
    mel, _ = analysis.batch_of([(items[3], 0)], 32)
    assert torch.equal(before.encode(mel, before.speaker(mel)), after.encode(mel, after.speaker(mel)))


def test_half_of_a_tuning_batch_has_passed_the_codec(shards: Path, folder: Path) -> None:
    crops = train_codec.Crops(analysis.read(shards))
    codec = encode.load_codec(folder)
    acoustics, waveform = train_vocoder.decoded(codec, crops, seed=1, batch=4)
    mel, _, reference, sound = crops.with_sound(1, 4)
    assert waveform.shape == (4, mel.shape[1] * HOP)
    assert torch.equal(waveform, sound)
    assert torch.equal(acoustics.mel[2:], mel[2:])
    speaker = codec.speaker(reference[:2])
    expected = codec.reconstruct(codec.quantise(mel[:2], speaker), speaker)[0]
    torch.testing.assert_close(acoustics.mel[:2], expected)
    item, start = crops._chosen(1, 4)[0][0]
    said = torch.from_numpy(item.utterance.samples[start * HOP :])[: sound.shape[1]]
    assert torch.equal(sound[0, : len(said)], said)


def test_a_tuned_vocoder_is_preferred(folder: Path) -> None:
    other = {name: torch.full_like(value, 0.5) for name, value in Vocoder().named_parameters()}
    save(folder / "tuned_vocoder.pt", {"average": other, "step": 0})
    assert all(bool((value == 0.5).all()) for value in train_vocoder.load_vocoder(folder).parameters())


def test_shipped_weights_are_a_start(tmp_path: Path) -> None:
    shipped.run(tmp_path)
    system = MiniSystem.load()
    ours = encode.load_codec(tmp_path).state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in system.codec.state_dict().items())
    stamp = (tmp_path / "codec.pt").stat().st_mtime_ns
    shipped.run(tmp_path)
    assert (tmp_path / "codec.pt").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="finished weights"):
        train("vocoder", tmp_path, Vocoder(), [], lambda number: {}, 1)
