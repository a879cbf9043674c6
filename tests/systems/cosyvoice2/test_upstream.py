"""Every module against the original's class on the same random weights, state dicts strictly loaded both ways.

Runs where WANDLIB_UPSTREAM names a folder with checkouts (see upstream.py); RESULTS go into a table at the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2Config

from wandlib import convert
from wandlib.attention.models import cache_inputs
from wandlib.systems.cosyvoice2.features import flow_mel
from wandlib.systems.cosyvoice2.folder import BASE, load_language_model
from wandlib.systems.cosyvoice2.hift import HiFT
from wandlib.systems.cosyvoice2.llm_weights import read_llm, write_llm
from wandlib.systems.cosyvoice2.reference import Reference
from wandlib.systems.cosyvoice2.sampling import Chooser, LengthRule, RepetitionAware
from wandlib.systems.cosyvoice2.streaming import AcousticStream
from wandlib.systems.cosyvoice2.text import CHINESE_MARKS, MARKS, chinese_marks, split
from wandlib.systems.cosyvoice2.tiny import language_model
from wandlib.systems.cosyvoice2.tokenizer import TextTokenizer
from wandlib.systems.decoding import Utterance, codes
from wandlib.systems.speech import Trace
from wandlib.systems.streaming import AtOnce

from . import cases, upstream

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        upstream.FOLDER is None, reason="WANDLIB_UPSTREAM names no folder with the original's checkouts"
    ),
]
Report = Callable[[str, str, float], None]


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_module(case: cases.Case, report: Report) -> None:
    theirs, ours = upstream.original(case), case.module()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    made, wanted = case.output(), upstream.output(case)
    difference = float((made - wanted).abs().max())
    shapes = ", ".join(str(list(v.shape)) for v in case.inputs.values() if isinstance(v, Tensor))
    report(case.name, f"{shapes} -> {list(made.shape)}", difference)
    assert made.shape == wanted.shape
    assert wanted.std() > 1e-3
    assert difference <= 1e-4


@pytest.mark.parametrize("version", [2, 3])
def test_language_model(version: int, checkpoint: Path, report: Report) -> None:
    ours, theirs = language_model(version), upstream.language_model(checkpoint / BASE, version)
    theirs.load_state_dict(write_llm(ours), strict=True)
    base = Qwen2Config.from_pretrained(checkpoint / BASE)
    back = read_llm(dict(theirs.state_dict()), base)
    again = back.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in ours.state_dict().items())
    prompt = ours.config.prompt([5, 6, 7, 8], [9, 10, 11])
    with upstream.quiet(), torch.no_grad():
        hidden = theirs.llm.model.model(
            inputs_embeds=upstream.prefix(theirs, [5, 6, 7, 8], [9, 10, 11])
        ).last_hidden_state
        wanted = theirs.llm_decoder(hidden)
        made = ours(torch.tensor([prompt])).logits
    difference = float((made - wanted).abs().max())
    report(f"language model, version {version}", f"[1, {len(prompt)}] -> {list(made.shape)}", difference)
    assert difference <= 1e-4


@torch.no_grad()
def original_codes(theirs: Any, text: list[int], spoken: int, speech: list[int], seed: int) -> list[int]:
    """The original's inference, with a cache that transformers 5 reads rightly, and no mask."""
    torch.manual_seed(seed)
    new, past = upstream.prefix(theirs, text, speech), list[int]()
    cache = DynamicCache(config=theirs.llm.model.config)
    for step in range(20 * spoken):
        hidden = theirs.llm.model.model(
            inputs_embeds=new, use_cache=True, **cache_inputs(theirs.llm.model, cache)
        ).last_hidden_state
        scores = theirs.llm_decoder(hidden[:, -1]).log_softmax(-1)[0]
        code = theirs.sampling_ids(scores, past, 25, ignore_eos=step < 2 * spoken)
        if code in theirs.stop_token_ids:
            break
        past.append(code)
        new = theirs.speech_embedding.weight[code].reshape(1, 1, -1)
    return past


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_decoding_draws_the_same_codes(version: int, seed: int, checkpoint: Path) -> None:
    ours, theirs = language_model(version), upstream.language_model(checkpoint / BASE, version)
    theirs.load_state_dict(write_llm(ours))
    convert(ours, window=32)
    text, speech = [5, 6, 7, 8, 9, 10, 11], list(range(20, 40))
    prompt = ours.config.prompt(text, speech)
    generator = torch.Generator().manual_seed(seed)
    utterance = Utterance(
        ours,
        torch.tensor([prompt]),
        Chooser(RepetitionAware(), LengthRule().minimum(4), ours.config.codes, generator),
        frozenset(ours.config.stop_ids),
        LengthRule().maximum(4),
        AtOnce(lambda codes: np.zeros(0, np.float32)),
    )
    made = list(codes(utterance, Trace("full", None, 0)))
    with upstream.quiet():
        assert made == original_codes(theirs, text, 4, speech, seed)
    assert len(made) >= (8 if version == 2 else 2)


def test_sampling_draws_the_same_tokens() -> None:
    with upstream.quiet():
        from cosyvoice.utils.common import ras_sampling
    ours = RepetitionAware()
    for seed in range(300):
        scores = (3 * cases.numbers(f"scores {seed}", 60)).log_softmax(-1)
        past = np.random.default_rng(seed).integers(0, 60, 12).tolist()
        torch.manual_seed(seed)
        wanted = ras_sampling(scores.clone(), past, 25)
        assert ours(scores, past, torch.Generator().manual_seed(seed)) == wanted


def draw_as_upstream(self: HiFT, frames: int, generator: torch.Generator) -> Tensor:
    """The original's draws, from the global generator: a phase that has no effect, then noise in memory order."""
    torch.rand(1, cases.WAVES)
    shape = (1, cases.WAVES, frames * self.samples)
    noise = torch.empty(shape).transpose(1, 2).normal_().transpose(1, 2)
    torch.randn(1, frames * self.samples, 1)
    return noise


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("count", [20, 120], ids=["short", "long"])
def test_codes_become_the_same_sound(stream: bool, count: int, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original's own token2wav loop, its schedule, caches and cross-fades."""
    flow, vocoder = cases.fill(cases.make_flow()), cases.audible(cases.fill(cases.vocoder()))
    spoken, old = cases.integers("speech", count), cases.integers("old", 30)
    mel, speaker = cases.numbers("mel", 1, 60, 80), cases.numbers("speaker", 1, 192)
    with upstream.quiet():
        from cosyvoice.cli.model import CosyVoice2Model

        their_flow, their_vocoder = upstream.flow().eval(), upstream.vocoder().eval()
        their_flow.load_state_dict(flow.state_dict())
        their_vocoder.load_state_dict(vocoder.state_dict())
        model = CosyVoice2Model(nn.Identity(), their_flow, their_vocoder)
        torch.manual_seed(3)
        wanted = [
            piece["tts_speech"][0]
            for piece in model.tts(
                source_speech_token=spoken.int(),
                flow_prompt_speech_token=old.int(),
                prompt_speech_feat=mel,
                flow_embedding=speaker,
                stream=stream,
            )
        ]
    monkeypatch.setattr(HiFT, "draw", draw_as_upstream)
    torch.manual_seed(3)
    reference = Reference(old[0].tolist(), mel, speaker)
    ours = AcousticStream(flow, vocoder, reference, torch.Generator(), whole=not stream)
    sounds = [*(ours.push(code) for code in spoken[0].tolist()), ours.finish()]
    made = [torch.from_numpy(sound) for sound in sounds if len(sound)]
    assert [len(piece) for piece in made] == [len(piece) for piece in wanted]
    difference = float((torch.cat(made) - torch.cat(wanted)).abs().max())
    report(f"codes to sound, {'streamed' if stream else 'whole'}", f"{count} codes, {len(made)} pieces", difference)
    assert difference <= 1e-4


def test_mel_of_the_flow(report: Report) -> None:
    with upstream.quiet():
        from librosa.filters import mel as librosa_mel

        filters = torch.from_numpy(librosa_mel(sr=24000, n_fft=1920, n_mels=80, fmin=0, fmax=8000)).float()
    samples = 0.1 * cases.numbers("samples", 24_000)
    padded = torch.nn.functional.pad(samples[None, None], (720, 720), mode="reflect")[0]
    bins = torch.stft(padded, 1920, 480, 1920, torch.hann_window(1920), center=False, return_complex=True)
    wanted = (filters @ (bins.abs().square() + 1e-9).sqrt()).clamp(min=1e-5).log()[0].T
    difference = float((flow_mel(samples) - wanted).abs().max())
    report("mel of the flow", f"[24000] -> {list(wanted.shape)}", difference)
    assert difference <= 1e-4


def test_texts_are_split_at_the_same_places() -> None:
    with upstream.quiet():
        from cosyvoice.utils import frontend_utils as theirs
    draw = random.Random(0)
    compared = 0
    for _ in range(4000):
        text = "".join(draw.choice('ab cd. ?!;:"”、，。！1²（】- ') for _ in range(draw.randint(3, 200))).strip()
        for language, marks in (("zh", CHINESE_MARKS), ("en", MARKS)):
            try:
                wanted = list(theirs.split_paragraph(text, list, language, 80, 60, 20, False))
            except IndexError:
                continue  # the original stumbles over a mark and a quotation mark at the beginning
            assert split(text, len, marks) == wanted
            compared += 1
        cleaned = theirs.replace_corner_mark(theirs.replace_blank(f"a{text}a")).replace(".", "。")
        assert chinese_marks(f"a{text}a") == theirs.remove_bracket(cleaned.replace(" - ", "，"))
    assert compared > 4000


def test_tokenizer(checkpoint: Path) -> None:
    with upstream.quiet():
        from cosyvoice.tokenizer.tokenizer import CosyVoice2Tokenizer

        theirs = CosyVoice2Tokenizer(str(checkpoint / BASE))
    text = "Then he said <strong>no</strong> [laughter], 你好<|endofprompt|>."
    assert TextTokenizer(checkpoint / BASE)(text) == theirs.encode(text)


def test_published_file_is_read_strictly(checkpoint: Path) -> None:
    theirs = upstream.language_model(checkpoint / BASE, 2)
    theirs.load_state_dict(torch.load(checkpoint / "llm.pt", weights_only=True), strict=True)
    ours = load_language_model(checkpoint)
    assert torch.equal(ours.lm_head.weight, theirs.llm_decoder.weight)
