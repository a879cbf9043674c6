"""IndexTTS against the published code at tag v1.5.0, on the same random weights."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import golden
import index_parts
import pytest
import torch
from torch import Tensor

from wandlib.attention.models import cache_argument
from wandlib.systems.indextts.decoding import generate

GOLDEN = Path(__file__).with_name("golden.safetensors")

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.filterwarnings("ignore"),  # of the published code
    pytest.mark.parametrize("checkout", ["indextts"], indirect=True),
]


def published_vocoder() -> Any:
    from indextts.BigVGAN.models import BigVGAN
    from omegaconf import OmegaConf

    return BigVGAN(OmegaConf.create(index_parts.BIGVGAN))


@torch.no_grad()
def test_acoustic_parts(checkout: Path, compare: Any) -> None:
    import torchaudio
    from indextts.gpt.conformer_encoder import ConformerEncoder
    from indextts.gpt.perceiver import PerceiverResampler
    from indextts.utils.feature_extractors import MelSpectrogramFeatures

    settings = index_parts.GPT["condition_module"]
    conformer = ConformerEncoder(
        input_size=100, **{name: value for name, value in settings.items() if name != "perceiver_mult"}
    )
    perceiver = PerceiverResampler(32, dim_context=16, ff_mult=2, heads=2, num_latents=32)
    theirs = torch.nn.ModuleDict({"conditioning_encoder": conformer, "perceiver_encoder": perceiver}).eval()
    voice = index_parts.language_model()[1]
    theirs.load_state_dict(voice.state_dict(), strict=True)
    decoder = published_vocoder().eval()
    decoder.load_state_dict(index_parts.published_vocoder_weights(), strict=True)
    mel = index_parts.MEL
    frames, mask = conformer(mel.transpose(1, 2), torch.tensor([mel.shape[-1]]))
    padded = torch.nn.functional.pad(mask[:, 0], (32, 0), value=True)
    expected = {
        "resampled": torchaudio.transforms.Resample(22_050, 24_000)(index_parts.SOUND),
        "log mel": MelSpectrogramFeatures()(index_parts.SOUND),
        "conformer": frames,
        "latents": perceiver(frames, padded),
        "speaker vector": decoder.speaker_encoder(mel.transpose(1, 2))[:, 0],
        "sound": decoder(index_parts.STATES, mel.transpose(1, 2))[0][:, 0],
    }
    for name, value in index_parts.acoustic_outputs(voice, index_parts.vocoder()).items():
        compare(f"IndexTTS {name}", value, expected[name])
    assert 0.05 < float(expected["sound"].std()) < 0.7, "a saturated sound would hide differences"
    golden.write(GOLDEN, expected)


@pytest.fixture
def published(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The published language model, on a transformers that it was not written for.

    Four shims: a module that is gone; the prefill is not cut for an empty cache, which is true today; a mask of ones is
    kept by building its positions from the ids; the beams' order is the cache's own business.
    """
    gone = types.ModuleType("transformers.utils.model_parallel_utils")
    gone.assert_device_map = gone.get_device_map = None
    monkeypatch.setitem(sys.modules, gone.__name__, gone)
    from indextts.gpt import model as upstream

    voice = upstream.UnifiedVoice(**index_parts.GPT, checkpointing=False).eval()
    language, encoder = index_parts.language_model()
    voice.load_state_dict({**language.state_dict(), **encoder.state_dict()}, strict=True)
    voice.post_init_gpt2_config(kv_cache=True)
    inference = voice.inference_model

    def prepare(input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        held = int(cache.get_seq_length())
        return {
            "input_ids": input_ids[:, -1:] if held else input_ids,
            "past_key_values": cache,
            "attention_mask": torch.ones_like(input_ids),
            "use_cache": True,
        }

    def forward(input_ids: Tensor, past_key_values: Any, attention_mask: Tensor, **kwargs: Any) -> Any:
        prefix = inference.cached_mel_emb.shape[1]
        if input_ids.shape[1] > 1:
            start = inference.embeddings(input_ids[:, prefix:])
            start = start + inference.text_pos_embedding(start)
            beams = len(input_ids) // len(inference.cached_mel_emb)
            embedded = torch.cat((inference.cached_mel_emb.repeat_interleave(beams, 0), start), dim=1)
        else:
            place = inference.text_pos_embedding.get_fixed_embedding(attention_mask.shape[1] - prefix, "cpu")
            embedded = inference.embeddings(input_ids) + place
        name = cache_argument(inference.transformer)
        output = inference.transformer(
            inputs_embeds=embedded, attention_mask=attention_mask, use_cache=True, **{name: past_key_values}
        )
        logits = inference.lm_head(output.last_hidden_state)
        return upstream.CausalLMOutputWithCrossAttentions(logits=logits, **{name: past_key_values})

    def reorder(cache: Any, order: Tensor) -> Any:
        cache.reorder_cache(order)
        return cache

    monkeypatch.setattr(inference, "_reorder_cache", reorder)
    monkeypatch.setattr(inference, "prepare_inputs_for_generation", prepare)
    monkeypatch.setattr(inference, "forward", forward)
    return voice


@torch.no_grad()
def test_language_model_reads_and_writes_the_published_names(published: Any) -> None:
    language, encoder = index_parts.language_model()
    theirs = {n: t for n, t in published.state_dict().items() if not n.startswith(("inference_model.", "gpt.wte"))}
    assert theirs.keys() == language.state_dict().keys() | encoder.state_dict().keys()


@torch.no_grad()
def test_hidden_states_for_the_vocoder(published: Any, compare: Any) -> None:
    language, encoder = index_parts.language_model()
    text, codes, mel = index_parts.TEXT, index_parts.CODES, index_parts.MEL
    expected = published(
        mel,
        text,
        torch.tensor([text.shape[1]]),
        codes.clone(),
        torch.tensor([codes.shape[1]]) * 1024,
        cond_mel_lengths=torch.tensor([mel.shape[-1]]),
        return_latent=True,
    )
    compare("IndexTTS states for the vocoder", language.states(encoder(mel), text, codes, windowed=False), expected)


@torch.no_grad()
@pytest.mark.parametrize(("beams", "sampled"), [(1, False), (1, True), (3, False), (3, True)])
def test_generated_codes(beams: int, sampled: bool, published: Any, compare: Any) -> None:
    language, encoder = index_parts.language_model()
    kwargs = {"top_p": 0.8, "top_k": 30, "temperature": 1.0} if sampled else {}
    torch.manual_seed(3)
    expected = published.inference_speech(
        index_parts.MEL,
        index_parts.TEXT,
        do_sample=sampled,
        num_beams=beams,
        repetition_penalty=10.0,
        length_penalty=0.0,
        max_generate_length=40,
        **kwargs,
    )
    torch.manual_seed(3)
    found = generate(
        language, encoder(index_parts.MEL), index_parts.TEXT, limit=40, beams=beams, sampled=sampled, cache=None
    )
    compare(f"IndexTTS codes, {beams} beams, {'sampled' if sampled else 'greedy'}", found, expected)
