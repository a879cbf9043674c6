"""The recipe of the embedded voice: text, shards, analysis, alignment, batches, resuming."""

import json
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import loop_in_processes
import numpy as np
import pytest
import soundfile
import torch
from launching import TESTS, launch
from tiny_corpus import tones

from recipes.mini import (
    align,
    analysis,
    corpus,
    human_speech,
    loop,
    sentences,
    train_codec,
    train_teacher,
    train_vocoder,
)
from recipes.mini.entropy import EntropyModel, said_of
from recipes.mini.loop import cosine, train
from wandlib.systems.mini.reference import LEVEL
from wandlib.systems.mini.text import SPACE, SYMBOLS


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    """Three lines in WordNet's layout."""
    folder = tmp_path / "wordnet"
    folder.mkdir()
    quotes = ["he walked home", "the birch canoe slid on the lake", "NATO 3 times", "a green door"]
    (folder / "data.noun").write_text("\n".join(f'0001 | a gloss; "{quote}"' for quote in quotes), encoding="utf-8")
    return folder


def test_examples(wordnet: Path) -> None:
    assert sentences.wordnet_examples(wordnet) == ["A green door", "He walked home", "The birch canoe slid on the lake"]


def test_wordnet_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="wordnet-base"):
        sentences.wordnet_examples(tmp_path)


def test_prepare() -> None:
    sound = np.zeros(32_000, np.float32)
    sound[8_000:24_000] = np.sin(np.arange(16_000) / 5)
    made = corpus.prepare(sound).astype(np.float32) / 32767
    assert len(made) == pytest.approx(16_000 + 2 * 0.08 * 16_000, abs=320)
    assert np.sqrt((made**2).mean()) == pytest.approx(LEVEL, rel=0.01)
    with pytest.raises(ValueError, match="silence"):
        corpus.prepare(np.zeros(16_000, np.float32))


def test_shards_give_back_what_was_written(shards: Path) -> None:
    read = corpus.read_shards(shards)
    for utterance, (text, speaker, samples) in zip(read, tones(12), strict=True):
        assert (utterance.text, utterance.speaker) == (text, speaker)
        np.testing.assert_array_equal(utterance.samples, samples.astype(np.float32) / 32768)


def test_empty_utterances_are_left_out(tmp_path: Path) -> None:
    rows = tones(2)
    corpus.write_shard(tmp_path, 0, [rows[0], ("failed", "nobody", np.zeros(0, np.int16)), rows[1]])
    assert [u.text for u in corpus.read_shards(tmp_path)] == [rows[0][0], rows[1][0]]


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"recipes\.mini speech hearing corpus"):
        corpus.read_shards(tmp_path)


def test_analysis_belongs_to_its_utterance(shards: Path) -> None:
    from wandlib.systems.mini.features import LogMel

    items = analysis.read(shards)
    for index, item in enumerate(items):
        mel = LogMel()(torch.from_numpy(item.utterance.samples)[None])[0]
        np.testing.assert_allclose(item.mel, mel.numpy(), atol=5e-3)
        voiced = item.pitch[item.pitch > 0]
        assert len(voiced) > 0.8 * item.frames * 0.9
        assert np.median(voiced) == pytest.approx(110 + 10 * (index % 2), rel=0.02)


def test_batches_end_in_silence(shards: Path) -> None:
    item = analysis.read(shards)[0]
    mel, pitch = analysis.batch_of([(item, item.frames - 8)], 16)
    np.testing.assert_allclose(mel[0, :8], item.mel[-8:].astype(np.float32))
    assert torch.equal(mel[0, 8:], mel[0, 8:9].expand(8, -1))
    assert pitch[0, 8:].abs().max() == 0


def test_crops_pair_speakers(shards: Path) -> None:
    """The speakers differ in pitch, 110 and 120 Hz, which the lowest bands of their mel spectra show."""
    crops = train_codec.Crops(analysis.read(shards))
    mel, pitch, reference, _ = crops.sample(0, batch=4)
    spectra = {hz: mel[i, 20:60, :8].mean(0) for i, row in enumerate(pitch) if (hz := round(float(row[40]), -1))}
    assert set(spectra) == {110, 120}
    for row, hz in zip(reference, pitch[:, 40], strict=True):
        distances = {other: float((row[20:60, :8].mean(0) - spectrum).norm()) for other, spectrum in spectra.items()}
        assert min(distances, key=distances.get) == round(float(hz), -1)  # type: ignore[arg-type]
    assert mel.shape == reference.shape == (4, train_codec.CROP, 80)
    assert torch.equal(mel, crops.sample(0, batch=4)[0])
    assert not torch.equal(mel, crops.sample(1, batch=4)[0])
    assert pitch.shape == (4, train_codec.CROP)


def test_crops_know_what_is_said(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes of a crop are those of the utterance from the nearest one on; behind its end nothing is said."""
    monkeypatch.setattr(train_codec, "CROP", 64)
    items = analysis.read(shards)[:3]
    codes = {item: np.arange(1, item.frames // 4 + 1, dtype=np.int64) for item in items}
    crops = train_codec.Crops(items, {item: np.stack([of] * 6, 1) for item, of in codes.items()})
    starts = set()
    for seed in range(6):
        said = crops.sample(seed, batch=4).said
        for row, (item, start) in zip(said, crops._chosen(seed, 4)[0], strict=True):
            starts.add(start % 4)
            nearest = min(range(item.frames // 4), key=lambda code, start=start: abs(4 * code - start - 0.1))
            known = codes[item][nearest : nearest + 16]
            assert row[: len(known), 0].tolist() == known.tolist()
            assert not row[len(known) :].any()
    assert len(starts) > 2
    assert not train_codec.Crops(items).sample(0, batch=4).said.any(), "what is not aligned"


def test_crops_are_of_speech(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long utterances are drawn more often, and a reference is never padded where the speaker has a long utterance."""
    items = analysis.read(shards)
    monkeypatch.setattr(train_codec, "CROP", min(item.frames for item in items))
    short = replace(items[0], frames=items[0].frames // 8)
    crops = train_codec.Crops([*items, *[short] * 8 * len(items)])
    chosen = [crops._chosen(seed, 64) for seed in range(8)]
    drawn = [item for crop, _ in chosen for item, _ in crop]
    assert 0.35 < sum(item.frames == short.frames for item in drawn) / len(drawn) < 0.65
    assert all(item.frames >= train_codec.CROP for _, references in chosen for item, _ in references)
    alone = train_codec.Crops([short])
    assert alone._chosen(0, 2)[1] == [(short, 0)] * 2


def test_an_epoch_brings_nearly_every_utterance_within_the_budget() -> None:
    lengths = [10 + i % 37 for i in range(200)]
    plan = align.Plan(lengths, 300)
    for epoch in range(3):
        batches = [plan[epoch * plan.per_epoch + i] for i in range(plan.per_epoch)]
        seen = [index for batch in batches for index in batch]
        assert len(set(seen)) >= 0.95 * len(lengths)
        assert all(max(lengths[i] for i in batch) * len(batch) <= 300 for batch in batches)
    assert sorted(i for batch in align.Plan(lengths, 300).batches for i in batch) == list(range(200))
    assert align.Plan(lengths, 300)[3] == align.Plan(lengths, 300)[3]


def test_alignment_borders_are_halfway() -> None:
    # Steps of 20 ms, codes of 40 ms: symbol 3 at step 2, symbol 5 at steps 8 and 9, the border at step 5.25.
    path = [0, 0, 3, 0, 0, 0, 0, 0, 5, 5, 0, 0]
    assert align.spread(path, [0, 2], 6) == [0, 0, 0, 2, 2, 2]
    with pytest.raises(ValueError, match="names 2 symbols, the text has 1"):
        align.spread(path, [0], 6)


def test_a_doubled_symbol_counts_twice() -> None:
    assert align.spread([4, 0, 4, 0], [0, 1], 2) == [0, 1]


def test_spaces_take_no_time() -> None:
    symbols = [SYMBOLS.index(s) for s in ("n", SPACE, "t", ".")]
    assert align.spoken(symbols) == [0, 2, 3]


def test_forced_alignment_finds_planted_symbols(shards: Path) -> None:
    class Certain(torch.nn.Module):
        """Knows that symbol 5 sounds in the first half and symbol 6 in the second."""

        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            steps = mel.shape[1] // 2
            scores = torch.full((1, steps, len(SYMBOLS) + 1), -20.0)
            scores[:, :, 0] = 0
            scores[:, steps // 4, 6] = scores[:, 3 * steps // 4, 7] = 5
            return scores.log_softmax(-1)

    item = analysis.read(shards)[0]
    found = align.align(Certain(), item, [5, 6])  # type: ignore[arg-type]
    codes = item.frames // 4
    assert list(found) == sorted(found)
    assert abs(int((found == 0).sum()) - codes / 2) <= 1


def test_the_pull_is_the_models_own_attention() -> None:
    """The recomputed head against the probabilities that eager attention returns."""
    model = train_teacher.build_model().float().eval()
    pull = train_teacher.HeadPull(model)
    ids = torch.randint(0, 4000, (2, 30))
    attended = torch.full((2, 30), -1)
    attended[:, 20:] = 11
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model.model(ids, output_attentions=True, use_cache=False).attentions
        mine = pull.loss(attended)
    slow = torch.stack(
        [-maps[layer][:, head, 20:, 11].log().mean() for layer, head in train_teacher.SUPERVISED.items()]
    )
    assert mine.item() == pytest.approx(slow.mean().item(), rel=0.02)  # the pull may run in bfloat16


def test_half_precision_is_for_processors_that_have_it() -> None:
    """Training's three products of matrices; where bfloat16 is computed number by number they take 80 times as long."""
    layer, x = torch.nn.Linear(512, 512), torch.randn(256, 512, requires_grad=True)

    def seconds(context: AbstractContextManager) -> float:
        started = time.perf_counter()
        with context:
            loss = layer(x).float().square().mean()
        loss.backward()
        return time.perf_counter() - started

    pairs = [(seconds(loop.autocast()), seconds(nullcontext())) for _ in range(8)]
    assert min(mine for mine, _ in pairs) < 8 * min(plain for _, plain in pairs)


def test_cosine_schedule() -> None:
    assert cosine(0, 1000, 100) == pytest.approx(0.01)
    assert cosine(100, 1000, 100, hold=0.3) == 1
    assert cosine(299, 1000, 100, hold=0.3) == 1
    assert cosine(1000, 1000, 100) == pytest.approx(0.02)
    assert cosine(650, 1000, 100, hold=0.3, floor=0) == pytest.approx(0.5)


def _small_run(folder: Path, stop_at: int | None) -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(number: int) -> dict[str, torch.Tensor]:
        if number == stop_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(number)
        inputs = torch.randn(8, 4, generator=generator)
        return {"loss": (model(inputs) - inputs).square().mean()}

    train("small", folder, model, [optimizer], step, 40, warm_up=5, every=10)
    return model


def test_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    whole = _small_run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        _small_run(tmp_path / "killed", 27)
    resumed = _small_run(tmp_path / "killed", None)
    assert torch.equal(whole.weight, resumed.weight)
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "small.jsonl").read_text().splitlines()]
    assert steps == [10, 20, 30, 40]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(number: int) -> dict[str, torch.Tensor]:
        return {"loss": model.weight.sum() * (math.nan if number == 15 else 1)}

    with pytest.raises(FloatingPointError, match="step 15"):
        train("bad", tmp_path, model, [optimizer], step, 40, warm_up=5, every=10)
    state = torch.load(tmp_path / "bad.pt", weights_only=True)
    assert state["step"] == 10
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_codec_and_vocoder_learn(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps on tones: the losses fall, and gradients reach every parameter."""
    items = analysis.read(shards)
    codec = train_codec.Codec(
        width=32, encoder_layers=1, decoder_layers=1, fine_width=16, fine_layers=1, speaker_dims=8
    )
    recognizer, entropy = align.Recognizer(width=16, layers=1).requires_grad_(False), EntropyModel(8, width=16)
    learned = [*codec.parameters(), *entropy.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=3e-3)
    crops = train_codec.Crops(items, {item: said_of([3], np.zeros(item.frames // 4, np.int16)) for item in items})
    history = []
    for number in range(30):
        losses = train_codec.losses(codec, recognizer, entropy, crops.sample(number, batch=4))
        losses["loss"].backward()
        if number == 1:
            assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in learned)
        optimizer.step()
        optimizer.zero_grad()
        history.append(losses["loss"].item())
    assert np.mean(history[-5:]) < 0.6 * np.mean(history[:3])

    from wandlib.systems.mini.vocoder import Vocoder

    vocoder = Vocoder(width=16, layers=1)
    optimizer = torch.optim.AdamW(vocoder.parameters(), lr=3e-3)
    history = []
    for number in range(15):
        acoustics, waveform = train_vocoder.sample(items, number, batch=2)
        loss = train_vocoder.spectral_loss(vocoder(acoustics), waveform)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append(loss.item())
    assert np.mean(history[-3:]) < np.mean(history[:3])


def test_pitch_is_held_through_silence() -> None:
    hz = torch.tensor([[0.0, 120.0, 0.0, 240.0, 0.0]])
    expected = torch.tensor([[0.0, 0.0, 0.0, math.log(2), math.log(2)]])
    torch.testing.assert_close(train_vocoder.filled_pitch(hz), expected)


def test_libritts_layout(tmp_path: Path) -> None:
    folder = tmp_path / "LibriTTS" / "dev-clean" / "84" / "121123"
    folder.mkdir(parents=True)
    for index in range(3):
        name = f"84_121123_000007_00000{index}"
        soundfile.write(folder / f"{name}.wav", 0.1 * np.sin(np.arange(24_000 * (1 + index)) / 20), 24_000)
        (folder / f"{name}.normalized.txt").write_text(f"Sentence {index}.\n", encoding="utf-8")
    lines = list(human_speech.libritts(tmp_path, "dev-clean"))
    assert [(text, speaker) for text, speaker, _ in lines] == [(f"Sentence {i}.", "84") for i in range(3)]
    human_speech.build(tmp_path / "shards", lines, per_shard=2)
    read = corpus.read_shards(tmp_path / "shards")
    assert sorted(u.text for u in read) == [f"Sentence {i}." for i in range(3)]
    assert sorted(round(u.seconds) for u in read) == [1, 2, 3]
    with pytest.raises(RuntimeError, match="doesn't exist"):
        list(human_speech.libritts(tmp_path, "test-clean"))


def test_arctic_layout(tmp_path: Path) -> None:
    folder = tmp_path / "ARCTIC" / "cmu_us_slt_arctic"
    (folder / "etc").mkdir(parents=True)
    (folder / "wav").mkdir()
    (folder / "etc" / "txt.done.data").write_text('( arctic_a0001 "Author of the danger trail." )\n', encoding="utf-8")
    soundfile.write(folder / "wav" / "arctic_a0001.wav", 0.1 * np.sin(np.arange(48_000) / 20), 16_000)
    (line,) = human_speech.arctic(tmp_path, "slt")
    assert line[:2] == ("Author of the danger trail.", "slt")
    text, speaker, samples = human_speech.read(line)
    assert (text, speaker) == line[:2]
    assert len(samples) == pytest.approx(48_000, abs=160)
    assert len(human_speech.read(line, longest=2.0)[2]) == 0


def test_a_batch_that_could_not_be_aligned_has_no_pull() -> None:
    pull = train_teacher.HeadPull(train_teacher.build_model())
    assert pull.loss(torch.full((2, 9), -1)) == 0


def test_another_corpus_is_not_mixed_in(tmp_path: Path) -> None:
    corpus.write_shard(tmp_path, 0, tones(2))
    with pytest.raises(ValueError, match="holds another corpus than these 1 lines: choose another folder"):
        human_speech.build(tmp_path, [("text", "somebody", tmp_path / "a.wav")])


def test_more_lines_of_the_same_speakers_are_another_corpus(tmp_path: Path) -> None:
    """They would be shuffled otherwise: some would be there twice, and others not at all."""
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(16_000) / 20), 16_000)
    lines, shards = [(f"Sentence {n}.", "84", tmp_path / "a.wav") for n in range(6)], tmp_path / "shards"
    human_speech.build(shards, lines, per_shard=2)
    (shards / "0002.npy").unlink()
    human_speech.build(shards, lines, per_shard=2)
    assert sorted(one.text for one in corpus.read_shards(shards)) == [text for text, _, _ in lines]
    for others in (lines[:5], [*lines, ("Sentence 6.", "84", tmp_path / "a.wav")]):
        with pytest.raises(ValueError, match=f"than these {len(others)} lines"):
            human_speech.build(shards, others, per_shard=2)


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    script = TESTS / "helpers" / "loop_in_processes.py"
    one = loop_in_processes.run(tmp_path / "one", 40)
    launch(script, tmp_path / "two", 40)
    whole = torch.load(tmp_path / "two" / "line.pt", weights_only=True)
    for name, value in one.named_parameters():
        torch.testing.assert_close(whole["average"][name], value.data)

    launch(script, tmp_path / "cut", 40, 25)
    launch(script, tmp_path / "cut", 40)
    again = torch.load(tmp_path / "cut" / "line.pt", weights_only=True)
    assert again["step"] == 40
    for name, value in whole["average"].items():
        torch.testing.assert_close(again["average"][name], value)
