"""Parts of the recipe: the phonetic loss, the vocoder tuned on decoded spectra, shipped weights as a start."""

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from recipes.mini import align, analysis, encode, shipped, train_codec, train_vocoder
from recipes.mini.loop import save, train
from wandlib.systems.mini.codec import Codec
from wandlib.systems.mini.features import FRAMES_PER_CODE, HOP
from wandlib.systems.mini.streaming import FIRST, look_ahead
from wandlib.systems.mini.system import MiniSystem
from wandlib.systems.mini.vocoder import Vocoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of untrained parts."""
    torch.manual_seed(0)
    parts = {"codec": Codec(), "vocoder": Vocoder(), "aligner": align.Recognizer()}
    for name, module in parts.items():
        weights = {key: value.detach() for key, value in module.named_parameters()}
        save(tmp_path / f"{name}.pt", {"average": weights, "step": 0})
    return tmp_path


def test_a_corpus_may_have_more_shards_than_a_process_may_have_files_open(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    for number in range(400):
        np.save(tmp_path / f"{number}.mel.npy", np.zeros((1, 80), np.float16))
        assert analysis._open(tmp_path / f"{number}.mel.npy").shape == (1, 80)
    opened = psutil.Process().num_fds() - before
    analysis._open.cache_clear()
    assert opened <= 256


def test_what_is_trained_sounds_soon(folder: Path) -> None:
    codec, vocoder = encode.load_codec(folder), train_vocoder.load_vocoder(folder)
    assert look_ahead(codec, vocoder) + FIRST == 7


def test_equal_spectra_sound_alike() -> None:
    torch.manual_seed(0)
    recognizer, mel = align.Recognizer(), torch.randn(2, 8, 80)
    assert train_codec.phonetic_distance(recognizer, mel, mel) == 0
    assert train_codec.phonetic_distance(recognizer, mel + 0.5, mel) > 0.01


def test_an_utterance_has_codes_of_its_own_at_each_shift(shards: Path, folder: Path) -> None:
    item = analysis.read(shards)[0]
    (codes,) = encode.encode((folder, shards, range(1)))
    assert codes.shape == (len(encode.SHIFTS), item.frames // FRAMES_PER_CODE)
    assert len(np.unique(codes, axis=0)) == len(encode.SHIFTS)


def test_three_of_four_in_a_tuning_batch_have_passed_the_codec(shards: Path, folder: Path) -> None:
    crops = train_codec.Crops(analysis.read(shards))
    codec = encode.load_codec(folder)
    acoustics, waveform = train_vocoder.decoded(codec, crops, seed=1, batch=4)
    (mel, _, reference, _), sound = crops.with_sound(1, 4)
    assert waveform.shape == (4, mel.shape[1] * HOP)
    assert torch.equal(waveform, sound)
    assert torch.equal(acoustics.mel[3:], mel[3:])
    speaker = codec.speaker(reference[:3])
    expected = codec.reconstruct(codec.quantize(mel[:3], speaker), speaker)[0]
    torch.testing.assert_close(acoustics.mel[:3], expected)
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
    codec, vocoder = encode.load_codec(tmp_path), train_vocoder.load_vocoder(tmp_path)
    assert (codec.config, vocoder.config) == (system.codec.config, system.vocoder.config), "their look-ahead, too"
    stamp = (tmp_path / "codec.pt").stat().st_mtime_ns
    shipped.run(tmp_path)
    assert (tmp_path / "codec.pt").stat().st_mtime_ns == stamp


def test_training_goes_on_from_bare_weights(tmp_path: Path) -> None:
    """The first step starts where the weights stand, with a schedule of its own."""
    model, asked = torch.nn.Linear(2, 1, bias=False), []
    save(tmp_path / "part.pt", {"model": {"weight": torch.ones(1, 2)}, "average": {}, "step": 9})

    def step(number: int) -> dict[str, torch.Tensor]:
        asked.append((number, model.weight.detach().clone()))
        return {"loss": model.weight.square().sum()}

    train("part", tmp_path, model, [torch.optim.SGD(model.parameters(), lr=0.1)], step, 2)
    assert [number for number, _ in asked] == [0, 1]
    assert torch.equal(asked[0][1], torch.ones(1, 2))
    assert bool((model.weight < 1).all())
