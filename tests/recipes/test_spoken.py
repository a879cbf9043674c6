"""What teacher and student learn from, kept in one file."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_rows import talk

from recipes.mini import align, analysis, encode, spoken
from recipes.mini.loop import save
from wandlib.systems.mini.codec import Codec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of an untrained codec and aligner."""
    torch.manual_seed(0)
    for name, module in {"codec": Codec(), "aligner": align.Recognizer()}.items():
        weights = {key: value.detach() for key, value in module.named_parameters()}
        save(tmp_path / f"{name}.pt", {"average": weights, "step": 0})
    return tmp_path


def test_what_the_corpus_says_is_kept_in_one_file(shards: Path, tmp_path: Path, folder: Path) -> None:
    """Symbols, codes, speakers, rates and alignments, unknown ones too; other weights of the codec write it anew."""
    corpus = tmp_path / "copy"
    shutil.copytree(shards, corpus)
    align.align_corpus(folder, corpus)
    encode.run(folder, corpus, workers=1)
    spoken.build(folder, corpus)
    read = [one for part in reversed(spoken.read(corpus)) for one in part]
    for one, other in zip(read, spoken.of_corpus(folder, corpus), strict=True):
        assert (one.symbols, one.speaker, one.speed) == (other.symbols, other.speaker, other.speed)
        np.testing.assert_array_equal(one.codes, other.codes)
        np.testing.assert_array_equal(one.positions, other.positions)
        assert one.positions.dtype == other.positions.dtype
    made = (corpus / spoken.NAME).stat().st_mtime_ns
    spoken.build(folder, corpus)
    assert (corpus / spoken.NAME).stat().st_mtime_ns == made
    state = torch.load(folder / "codec.pt", weights_only=True)
    save(folder / "codec.pt", state | {"average": {name: value + 1 for name, value in state["average"].items()}})
    spoken.build(folder, corpus)
    assert (corpus / spoken.NAME).stat().st_mtime_ns > made


def test_more_speech_is_read_though_the_codec_is_the_same(shards: Path, tmp_path: Path, folder: Path) -> None:
    corpus = tmp_path / "copy"
    shutil.copytree(shards, corpus)
    (last, *_) = sorted(corpus.glob("*.mel.npy"), reverse=True)
    later = list(corpus.glob(f"{last.name[:4]}.*"))
    for path in later:
        path.rename(tmp_path / path.name)
    counts = []
    for _ in range(2):
        encode._prepared.cache_clear()  # another run is another process
        encode.run(folder, corpus, workers=1)
        spoken.build(folder, corpus)
        counts.append(len([one for part in spoken.read(corpus) for one in part]))
        for path in later:
            if (tmp_path / path.name).exists():
                (tmp_path / path.name).rename(path)
    assert counts[0] < counts[1] == len(analysis.read(corpus))


def test_an_utterance_that_could_not_be_aligned_is_kept_so(tmp_path: Path) -> None:
    one, other = talk(2)
    spoken.write(tmp_path / spoken.NAME, [one, replace(other, positions=np.zeros(0, np.int16)), one])
    (_, second, _) = spoken.read(tmp_path)[1]
    assert len(second.positions) == 0
    np.testing.assert_array_equal(second.codes, other.codes)
    with pytest.raises(FileNotFoundError, match="stage codes or shipped"):
        spoken.read(tmp_path / "elsewhere")


def test_what_a_voice_learned_from_is_lent_with_its_codec_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Codec(width=16, encoder_layers=1, decoder_layers=1, fine_width=8, fine_layers=1, speaker_dims=4)
    kept = tmp_path / "kept.npz"
    monkeypatch.setattr(spoken, "SHIPPED", kept)
    assert not spoken.lend(codec, tmp_path / "corpus")
    spoken.write(kept, talk(3), spoken.fingerprint(codec.to(torch.bfloat16).float()))
    assert spoken.lend(codec, tmp_path / "corpus")
    assert (tmp_path / "corpus" / spoken.NAME).read_bytes() == kept.read_bytes()
    with torch.no_grad():
        codec.enter.bias += 1
    assert not spoken.lend(codec, tmp_path / "other")
    assert not (tmp_path / "other").exists()
