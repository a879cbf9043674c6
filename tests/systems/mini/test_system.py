"""The shipped voice end to end: it speaks, repeats itself, ends, and the window changes only the cache."""

import copy
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert
from wandlib.cli import app as cli
from wandlib.evaluation.error_rates import error_rates
from wandlib.evaluation.recognizers import FasterWhisper
from wandlib.evaluation.speakers import Resemblyzer, similarity
from wandlib.profiling.estimate import cache_bytes
from wandlib.systems import InputError, load_system
from wandlib.systems.clauses import clauses
from wandlib.systems.mini import MiniSystem
from wandlib.systems.mini.parts import pieces
from wandlib.systems.mini.prompt import END, FIRST_CODE, prompt, text_block
from wandlib.systems.mini.system import ALLOWED, ASSETS
from wandlib.systems.settings import Settings

SENTENCE = "The birch canoe slid on the smooth planks."


@pytest.fixture(scope="module")
def tts() -> MiniSystem:
    system = load_system("mini")
    assert isinstance(system, MiniSystem)
    return system


def test_the_same_seed_says_the_same(tts: MiniSystem) -> None:
    one, two = (tts.synthesize(SENTENCE, seed=3, temperature=0.5) for _ in range(2))
    assert np.array_equal(one.codes, two.codes)
    assert np.array_equal(one.waveform, two.waveform)
    assert not np.array_equal(one.codes, tts.synthesize(SENTENCE, seed=4, temperature=0.5).codes)


def test_what_comes_back(tts: MiniSystem) -> None:
    seen = []
    speech = tts.synthesize(SENTENCE, on_step=seen.append)
    assert speech.trace.finish == "end"
    assert seen == speech.trace.steps
    assert [step.index for step in seen] == list(range(len(speech.codes)))
    assert len(speech.waveform) == 640 * len(speech.codes)
    assert speech.waveform.dtype == np.float32
    assert np.abs(speech.waveform).max() <= 1
    assert 1.5 < speech.seconds < 6
    assert speech.seconds_to_compute > 0


def test_a_window_that_holds_everything_is_full_attention(tts: MiniSystem) -> None:
    model, everything = MiniSystem(tts.codec, tts.vocoder, tts.language_model, tts.voices).models["window"], 10_000
    ids = torch.randint(0, model.config.vocab_size, (1, 90))
    cache = WandCache(model.config, window=everything)
    with torch.inference_mode():
        full = tts.language_model(ids).logits[0, 59:]
        windowed = [model(ids[:, :60], past_key_values=cache).logits[0, -1]]
        windowed += [model(ids[:, i : i + 1], past_key_values=cache).logits[0, -1] for i in range(60, 90)]
    torch.testing.assert_close(torch.stack(windowed), full, atol=1e-3, rtol=0)


def test_without_a_student_both_share_their_memory(tts: MiniSystem) -> None:
    twin = MiniSystem(tts.codec, tts.vocoder, tts.language_model, tts.voices).models["window"]
    own = dict(tts.language_model.named_parameters())
    assert {name for name, value in twin.named_parameters() if value.data_ptr() != own[name].data_ptr()} == set()


def test_the_window_keeps_the_cache_constant(tts: MiniSystem) -> None:
    window = 8
    speech = tts.synthesize(SENTENCE, attention="window", window=window)
    config = tts.models["window"].config
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * 64 * 4
    expected = per_token * (speech.trace.conditioning + window)
    assert set(speech.trace.cache_bytes[window:]) == {expected}
    full = tts.synthesize(SENTENCE, attention="full").trace
    assert full.cache_bytes == [per_token * (full.conditioning + 1 + step.index) for step in full.steps]


def test_the_window_decodes_as_the_mask_says(tts: MiniSystem) -> None:
    """Every step of the ring against one pass over the whole sequence under the dense mask."""
    from wandlib.systems.mini.prompt import FIRST_CODE, prompt

    window = 8
    model = tts.models["window"]
    symbols = tts.parts(SENTENCE)[0]
    head = prompt(tts.voice().codes, symbols)
    codes = tts.synthesize(SENTENCE, attention="window", window=window, temperature=0).codes
    everything = torch.tensor([[*head, *(FIRST_CODE + codes)]])
    time = everything.shape[1]
    query, key = torch.arange(time)[:, None], torch.arange(time)[None]
    allowed = (key <= query) & ((key < len(head)) | (query - key < window))
    with torch.inference_mode():
        dense = _unwindowed(tts)
        logits = dense(everything, attention_mask=allowed[None, None]).logits[0]
        cache = WandCache(model.config, window=window)
        steps = [model(everything[:, : len(head)], past_key_values=cache).logits[0, -1]]
        steps += [model(everything[:, i : i + 1], past_key_values=cache).logits[0, -1] for i in range(len(head), time)]
    torch.testing.assert_close(torch.stack(steps), logits[len(head) - 1 :], atol=1e-3, rtol=0)


def _unwindowed(tts: MiniSystem) -> torch.nn.Module:
    from transformers import Qwen2ForCausalLM

    windowed = tts.models["window"]
    twin = Qwen2ForCausalLM(windowed.config).eval()
    twin.load_state_dict(windowed.state_dict())
    return twin


def test_stream_is_synthesize_in_parts(tts: MiniSystem) -> None:
    text = " ".join([SENTENCE] * 5)
    parts = list(tts.stream(text, seed=1))
    assert len(parts) > 1
    assert np.array_equal(np.concatenate(parts), tts.synthesize(text, seed=1).waveform)


def test_every_speaker_is_understood_and_recognized(tts: MiniSystem) -> None:
    """Loose bounds that a broken voice cannot meet; the model card has the numbers."""
    recognize, encode = FasterWhisper(threads=1, window=15), Resemblyzer()
    texts = [SENTENCE, "Rice is often served in round bowls.", "The boy was there when the sun rose."]
    speakers = [name for name in tts.speakers for _ in texts]
    spoken = tts.synthesize_many(texts * len(tts.speakers), speakers)
    heard = [recognize(speech.waveform, speech.sample_rate) for speech in spoken]
    assert error_rates(texts * len(tts.speakers), heard).wer < 0.25
    vectors: dict[str, list[Any]] = {name: [] for name in tts.speakers}
    for name, speech in zip(speakers, spoken, strict=True):
        vectors[name].append(encode(speech.waveform, speech.sample_rate))
    for name, own in vectors.items():
        inside = np.mean([similarity(own[0], own[1]), similarity(own[1], own[2])])
        outside = np.mean([similarity(own[1], other[1]) for label, other in vectors.items() if label != name])
        assert inside > outside, name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"attention": "window", "window": 0}, "at least 1 key"),
        ({"attention": "window", "window": 10**9, "long": "one cache"}, "a window of 100,000 codes, an hour"),
        ({"seed": -1}, "seed"),
        ({"seed": 10**20}, "seed"),
        ({"reference": "nobody"}, "no speaker named 'nobody'"),
        ({"reference": "nowhere.wav"}, "no reference file 'nowhere.wav'"),
    ],
)
def test_bad_settings(tts: MiniSystem, settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tts.synthesize("hello", **settings)


def test_a_reference_file(tts: MiniSystem, tmp_path: Path) -> None:
    speech = tts.synthesize(SENTENCE, reference="henry")
    path = speech.save(tmp_path / "henry.wav")
    samples, rate = soundfile.read(path)
    assert rate == 16_000
    assert len(samples) == len(speech.waveform)
    again = tts.synthesize(SENTENCE, reference=path)
    assert again.trace.finish == "end"
    encode = Resemblyzer()
    made, own = encode(again.waveform, 16_000), encode(speech.waveform, 16_000)
    other = encode(tts.synthesize(SENTENCE, reference="ruth").waveform, 16_000)
    assert similarity(made, own) > similarity(made, other)


def test_a_short_reference_is_repeated_in_the_prompt(tts: MiniSystem) -> None:
    samples = tts.synthesize("Hello there, good morning.", reference="henry").waveform[: int(1.2 * 16_000)]
    codes = tts.voice_of(samples).codes
    assert len(codes) == 75
    assert codes[:45] == codes[30:75]


LONG = "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. It is easy to tell. " * 4


@pytest.fixture
def student_of_streams(tmp_path: Path) -> Path:
    """The shipped student, with the config of one that was trained on text that expires."""
    folder = Path(shutil.copytree(ASSETS / "student", tmp_path / "student"))
    config = json.loads((folder / "config.json").read_text())
    config["wand"] |= {"blocks": 2, "pinned": 76}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("size", [1, 2])
def test_a_student_of_streams_speaks_many_texts_in_parts(size: int, student_of_streams: Path) -> None:
    """None is the default: of a long text, one cache; of many texts, parts."""
    tts, texts = load_system("mini", student=student_of_streams), [SENTENCE, "Hello."]
    many = tts.synthesize_many(texts, attention="window", long=None, batch_size=size)
    alone = [tts.synthesize(text, attention="window", long="parts") for text in texts]
    assert [speech.codes.tolist() for speech in many] == [speech.codes.tolist() for speech in alone]
    with pytest.raises(InputError, match="text 0: long='one cache' is decoded alone"):
        tts.synthesize_many(texts, attention="window", long="one cache", batch_size=2)


@torch.inference_mode()
@pytest.mark.parametrize("attention", ["window", "full"])
def test_a_long_text_in_one_cache(tts: MiniSystem, attention: Any) -> None:
    """Its codes are the best ones of one pass over the whole stream, and texts expire from the window's cache."""
    texts = [LONG[:107], LONG[107:300], LONG[300:400]]
    speech = tts.synthesize(texts, attention=attention, long="one cache")
    blocks = [part for text in clauses(texts) for part in tts.parts(text)]
    assert len(speech.trace.parts) == len(blocks) > 4
    ids, kinds, number, chosen, codes = prompt(tts.voice().codes, [])[:-2], [1] * 76, [0] * 76, [], iter(speech.codes)
    for block, (symbols, count) in enumerate(zip(blocks, speech.trace.parts, strict=True), 1):
        new = [FIRST_CODE + int(next(codes)) for _ in range(count)]
        text = text_block(symbols)
        chosen += [(len(ids) + len(text) - 1 + step, token) for step, token in enumerate([*new, END])]
        ids, kinds = ids + text + new, kinds + [1] * len(text) + [0] * count
        number += [block] * (len(text) + count)
    model, told = tts.language_model, {}
    if attention == "window":
        model = convert(copy.deepcopy(model), tts.window, blocks=2, pinned=76)
        model.load_state_dict(tts.models["window"].state_dict())
        told = {"conditioning": torch.tensor([kinds]).bool(), "block": torch.tensor([number])}
    logits = model(torch.tensor([ids]), use_cache=False, **told).logits[0, :, ALLOWED]
    places, tokens = zip(*chosen, strict=True)
    best = [int(ALLOWED[choice]) for choice in logits[list(places)].argmax(-1)]
    assert best == list(tokens)
    sizes = [step.cache_bytes for step in speech.trace.steps]
    if attention == "window":
        longest = max(len(a) + len(b) + 4 for a, b in itertools.pairwise(blocks))
        assert max(sizes) <= cache_bytes(model.config, conditioning=76 + longest, generated=10_000, window=tts.window)
    else:
        assert sizes == sorted(sizes)


def test_a_chapter_is_read_in_pieces(tts: MiniSystem) -> None:
    """It speaks soon; what no voice can read, be it on the last page, is refused before the first sound."""
    chapter = LONG * 75
    assert len(chapter) > 30_000
    with tts.stream(chapter, attention="window", long="one cache") as stream:
        assert len(next(stream)) > 0
        assert stream.trace.first_sound_milliseconds < 5_000
    with pytest.raises(InputError, match="SSML and HTML are not read"):
        next(tts.stream(chapter + "<b>"))
    with pytest.raises(InputError, match="phones, the limit is 4,000"):
        next(tts.stream(chapter + "\N{GRINNING FACE} " * 2_000))
    with pytest.raises(InputError, match="5,000,000 characters, the limit is 500,000"):
        tts.synthesize("So it is. " * 500_000)


def test_a_piece_of_marks_alone_is_left_out(tts: MiniSystem) -> None:
    """The end of a chapter, beyond the first 2,000 characters; the marks of a list, as a clause of a stream."""
    assert tts.parts(LONG * 5 + " " * 2_000 + "* * *") == tts.parts(LONG * 5)
    settings = Settings(attention="window")
    spoken = tts.utterances(iter(["\u2713 ", "One. ", "* * *"]), None, settings, streaming=True)
    assert len(list(spoken)) == 1
    for text in ("* * *", ["\u2713 "]):
        with pytest.raises(InputError, match="nothing to pronounce"):
            tts.synthesize(text)


def test_one_cache_is_for_one_text(tts: MiniSystem) -> None:
    text = LONG[:200]
    parts = tts.synthesize_many([text], attention="window", batch_size=2)[0]
    assert len(parts.trace.parts) > 1
    assert np.array_equal(parts.codes, tts.synthesize(text, attention="window", long="parts").codes)
    with pytest.raises(InputError, match="'one cache' is decoded alone"):
        tts.synthesize_many([text], long="one cache")


@given(st.text("ab. \n!", max_size=120), st.integers(2, 30))
def test_pieces_are_the_text(text: str, limit: int) -> None:
    found = list(pieces(text, limit))
    assert max(map(len, found)) <= limit
    assert "".join("".join(found).split()) == "".join(text.split())


def test_emoji_cannot_become_hours_of_speech(tts: MiniSystem) -> None:
    with pytest.raises(InputError, match="phones, the limit is 4,000"):
        tts.synthesize("\N{GRINNING FACE} " * 999)


def test_a_part_that_finds_no_end_is_reported(tts: MiniSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part is kept from ending, the second ends: the trace must not forget the first."""
    from wandlib.systems.decoding import Sampler

    honest = Sampler.__call__
    parts = tts.parts(" ".join([SENTENCE] * 5))
    limit = 25 + 5 * len(parts[0])
    count = 0

    def stubborn(self: Sampler, scores: torch.Tensor, past: list[int]) -> int:
        nonlocal count
        count += 1
        token = honest(self, scores, past)
        return FIRST_CODE if token == END and count <= limit else token

    monkeypatch.setattr(Sampler, "__call__", stubborn)
    trace = tts.synthesize(" ".join([SENTENCE] * 5), temperature=0).trace
    assert len(trace.parts) == len(parts) > 1
    assert trace.parts[0] == limit
    assert trace.finish == "limit"


def test_long_ogg(tts: MiniSystem, tmp_path: Path) -> None:
    """Longer than what libvorbis takes in one piece."""
    speech = tts.synthesize("hello")
    speech.waveform = np.tile(speech.waveform, 1 + 2_300_000 // len(speech.waveform))
    samples, rate = soundfile.read(speech.save(tmp_path / "long.ogg"))
    assert (len(samples), rate) == (len(speech.waveform), 16_000)


def test_save_refuses_other_formats(tts: MiniSystem, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.wav, \.flac or \.ogg"):
        tts.synthesize("hello").save(tmp_path / "hello.txt")


def test_missing_assets(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"codec/config\.json"):
        load_system("mini", tmp_path)
    with pytest.raises(InputError, match="no system named 'maxi'"):
        load_system("maxi")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CliRunner]:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_say(run: CliRunner) -> None:
    result = run.invoke(
        cli.app, ["say", "Hello there.", "-o", "out/hello.wav", "--speaker", "henry", "--attention", "full"]
    )
    assert result.exit_code == 0, result.output
    samples, rate = soundfile.read("out/hello.wav")
    assert rate == 16_000
    assert 0.4 < len(samples) / rate < 4


def test_say_many_with_a_student_of_streams(run: CliRunner, student_of_streams: Path) -> None:
    Path("texts.jsonl").write_text('{"text": "Hello."}\n{"text": "Good morning."}')
    here = ["--from", "texts.jsonl", "--to", "out", "--student", str(student_of_streams)]
    result = run.invoke(cli.app, ["say", *here])
    assert result.exit_code == 0, result.output
    assert len(list(Path("out").glob("*.wav"))) == 2


def test_compare(run: CliRunner) -> None:
    result = run.invoke(cli.app, ["compare", "Hello there.", "--window", "8", "-o", "both"])
    assert result.exit_code == 0, result.output
    assert Path("both/full.wav").exists()
    assert Path("both/window.wav").exists()
    rows = {line.split("  ")[0].strip(): line.split()[-2:] for line in result.stdout.splitlines() if line.strip()}
    assert rows["window, keys"] == ["all", "8"]
    full, window = map(float, rows["largest cache, kB"])
    assert window < full


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["say", ""], "the text is empty"),
        (["say", "hello", "--speaker", "nobody"], "no speaker named 'nobody'"),
        (["say", "hello", "--speaker", "ruth", "--reference", "a.wav"], "not both"),
        (["say", "hello", "-o", "hello.mp4"], "name a .wav"),
        (["say", "hello", "--speaker", "[/x]"], "no speaker named '[/x]'"),
        (["say", "hello", "-o", "/dev/null/hello.wav"], "cannot write"),
        (["say", "hello", "--seed", "-3"], "seed"),
        (["compare", "hello", "--window", "0"], "at least 1 key"),
    ],
)
def test_cli_errors_are_one_line(run: CliRunner, arguments: list[str], words: str) -> None:
    result = run.invoke(cli.app, arguments)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["say", "compare"])
def test_help(run: CliRunner, command: str) -> None:
    result = run.invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert "--speaker" in result.output
