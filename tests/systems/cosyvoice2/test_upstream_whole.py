"""The original's front end, inference and vocoding against ours: the same prompt, the same codes, the same sound.

Its decode loop is replaced by one that reads transformers' cache rightly, and its resampling by ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wandlib.systems.cosyvoice2 import CosyVoice2System
from wandlib.systems.cosyvoice2.features import flow_mel, whisper_mel
from wandlib.systems.cosyvoice2.folder import BASE, load_language_model
from wandlib.systems.cosyvoice2.hift import HiFT
from wandlib.systems.cosyvoice2.reference import at, read_audio

from . import cases, upstream
from .test_upstream import draw_as_upstream, original_codes

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        upstream.FOLDER is None, reason="WANDLIB_UPSTREAM names no folder with the original's checkouts"
    ),
]
TEXT = "It costs $3.50 at 5 pm. Is that too much?"


def original_frontend(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The original's front end on the tiny checkpoint's tokenizer and networks."""
    import whisper
    from cosyvoice.cli import frontend
    from cosyvoice.tokenizer.tokenizer import CosyVoice2Tokenizer

    def load_wav(path: str, rate: int) -> Tensor:
        samples, given = read_audio(path)
        return torch.from_numpy(at(samples, given, rate))[None]

    def log_mel(samples: Tensor, n_mels: int) -> Tensor:
        return torch.from_numpy(whisper_mel(samples[0].numpy(), n_mels))[None]

    monkeypatch.setattr(frontend, "load_wav", load_wav)
    monkeypatch.setattr(whisper, "log_mel_spectrogram", log_mel, raising=False)
    return frontend.CosyVoiceFrontEnd(
        partial(CosyVoice2Tokenizer, str(checkpoint / BASE)),
        lambda samples: flow_mel(samples[0]).T[None],
        str(checkpoint / "campplus.onnx"),
        str(checkpoint / "speech_tokenizer_v2.onnx"),
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("mode", ["continued", "cross-lingual", "instructed"])
def test_whole_path(
    mode: str,
    stream: bool,
    checkpoint: Path,
    tts: CosyVoice2System,
    recording: Path,
    report: Callable[[str, str, float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow, vocoder = cases.fill(cases.make_flow()), cases.audible(cases.fill(cases.vocoder()))
    ours = CosyVoice2System(
        load_language_model(checkpoint),
        flow,  # type: ignore[arg-type]
        cases.vocoder(),
        tts.tokenizer,
        tts.voices.speech_tokenizer,
        tts.voices.speaker_encoder,
    )
    ours.vocoder = vocoder  # type: ignore[assignment]  # its norms unfolded, for the original to load
    theirs = upstream.language_model(checkpoint / BASE, 2)
    theirs.load_state_dict(torch.load(checkpoint / "llm.pt", weights_only=True), strict=True)
    given: dict[str, dict[str, Any]] = {
        "continued": {"transcript": "I have 3 of them."},
        "cross-lingual": {},
        "instructed": {"instruct": "Be glad.<|endofprompt|>"},
    }
    with upstream.quiet():
        from cosyvoice.cli.model import CosyVoice2Model

        frontend = original_frontend(checkpoint, monkeypatch)
        their_flow, their_vocoder = upstream.flow().eval(), upstream.vocoder().eval()
        their_flow.load_state_dict(flow.state_dict())
        their_vocoder.load_state_dict(vocoder.state_dict())
        [text] = frontend.text_normalize(TEXT)
        prompt_text = frontend.text_normalize("I have 3 of them.", split=False)
        arguments = {
            "continued": lambda: frontend.frontend_zero_shot(text, prompt_text, str(recording), 24_000, ""),
            "cross-lingual": lambda: frontend.frontend_cross_lingual(text, str(recording), 24_000, ""),
            "instructed": lambda: frontend.frontend_instruct2(
                text, "Be glad.<|endofprompt|>", str(recording), 24_000, ""
            ),
        }[mode]()
        spoken = arguments["text"][0].tolist()
        prompt = arguments.get("prompt_text", torch.zeros(1, 0))[0].long().tolist()
        speech = arguments.get("llm_prompt_speech_token", torch.zeros(1, 0))[0].long().tolist()
        wanted = original_codes(theirs, prompt + spoken, len(spoken), speech, seed=5)

        def inference(**_: Any) -> Iterator[int]:
            yield from wanted

        theirs.inference = inference
        model = CosyVoice2Model(theirs, their_flow, their_vocoder)
        torch.manual_seed(3)
        sound = torch.cat([piece["tts_speech"][0] for piece in model.tts(**arguments, stream=stream)])
    monkeypatch.setattr(HiFT, "draw", draw_as_upstream)
    torch.manual_seed(3)
    if stream:
        made = torch.from_numpy(np.concatenate(list(ours.stream(TEXT, recording, seed=5, **given[mode]))))
    else:
        result = ours.synthesize(TEXT, recording, seed=5, **given[mode])
        assert result.codes.tolist() == wanted
        made = torch.from_numpy(result.waveform)
    assert made.shape == sound.shape
    difference = float((made - sound).abs().max())
    report(f"text to sound, {mode}, {'streamed' if stream else 'whole'}", f"{len(wanted)} codes", difference)
    assert sound.std() > 1e-3
    assert difference <= 1e-4
