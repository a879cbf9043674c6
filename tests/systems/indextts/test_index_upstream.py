"""IndexTTS against the published code at tag v1.5.0, on the same random weights."""

from __future__ import annotations

import random
import sys
import types
from pathlib import Path
from typing import Any

import golden
import index_parts
import pytest
import soundfile
import torch
from sinusoids import fill
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from wandlib.attention.models import cache_argument
from wandlib.systems.indextts import tiny
from wandlib.systems.indextts.codec import MelCodec
from wandlib.systems.indextts.decoding import generate, spoken_codes
from wandlib.systems.indextts.system import IndexSystem
from wandlib.systems.indextts.text import TextNormalizer, Tokenizer, reads_as_chinese, split

GOLDEN = Path(__file__).with_name("golden.safetensors")
GOLDEN_LANGUAGE = Path(__file__).with_name("golden_language.safetensors")

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.filterwarnings("ignore"),  # of the published code
    pytest.mark.parametrize("checkout", ["indextts"], indirect=True),
]


def published_vocoder(settings: dict[str, Any] = index_parts.BIGVGAN) -> Any:
    from indextts.BigVGAN.models import BigVGAN
    from omegaconf import OmegaConf

    return BigVGAN(OmegaConf.create(settings))


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


def test_codes_of_recordings(checkout: Path, compare: Any) -> None:
    """Encoder and codebook of the discrete autoencoder, which training data is made with."""
    from indextts.vqvae.xtts_dvae import DiscreteVAE

    ours = index_parts.codec()
    theirs = DiscreteVAE(**index_parts.VQVAE).eval()
    theirs.load_state_dict({**theirs.state_dict(), **ours.state_dict()}, strict=True)
    for frames in (36, 37, 38, 39):
        mel = index_parts.contrasts(frames)
        codes = theirs.get_codebook_indices(mel)
        compare("IndexTTS codes of a recording", ours.encode(mel), codes)
        assert len(codes.unique()) > 4, "equal codes would be no wonder"


def shim(voice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the published model run on a transformers that it was not written for.

    The prefill is not cut for an empty cache, which is true today; a mask of ones is not dropped; the beams' order is
    the cache's own business.
    """
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
        return CausalLMOutputWithCrossAttentions(logits=logits, **{name: past_key_values})

    def reorder(cache: Any, order: Tensor) -> Any:
        cache.reorder_cache(order)
        return cache

    monkeypatch.setattr(inference, "_reorder_cache", reorder)
    monkeypatch.setattr(inference, "prepare_inputs_for_generation", prepare)
    monkeypatch.setattr(inference, "forward", forward)


@pytest.fixture
def published(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The published language model; one module that it imports is gone from transformers."""
    gone = types.ModuleType("transformers.utils.model_parallel_utils")
    gone.assert_device_map = gone.get_device_map = None
    monkeypatch.setitem(sys.modules, gone.__name__, gone)
    from indextts.gpt import model as upstream

    voice = upstream.UnifiedVoice(**index_parts.GPT, checkpointing=False).eval()
    language, encoder = index_parts.language_model()
    voice.load_state_dict({**language.state_dict(), **encoder.state_dict()}, strict=True)
    voice.post_init_gpt2_config(kv_cache=True)
    shim(voice, monkeypatch)
    return voice


@torch.no_grad()
def test_language_model_reads_and_writes_the_published_names(published: Any) -> None:
    language, encoder = index_parts.language_model()
    theirs = {n: t for n, t in published.state_dict().items() if not n.startswith(("inference_model.", "gpt.wte"))}
    assert theirs.keys() == language.state_dict().keys() | encoder.state_dict().keys()


@torch.no_grad()
def test_language_model(published: Any, compare: Any) -> None:
    """Hidden states and codes, greedy and searched."""
    text, codes, mel = index_parts.TEXT, index_parts.CODES, index_parts.MEL
    expected = {
        "states": published(
            mel,
            text,
            torch.tensor([text.shape[1]]),
            codes.clone(),
            torch.tensor([codes.shape[1]]) * 1024,
            cond_mel_lengths=torch.tensor([mel.shape[-1]]),
            return_latent=True,
        )
    }
    for beams in (1, 3):
        expected[f"codes of {beams} beams"] = published.inference_speech(
            mel,
            text,
            do_sample=False,
            num_beams=beams,
            repetition_penalty=10.0,
            length_penalty=0.0,
            max_generate_length=index_parts.LIMIT,
        )
    for name, value in index_parts.language_outputs(*index_parts.language_model()).items():
        compare(f"IndexTTS {name}", value, expected[name])
    golden.write(GOLDEN_LANGUAGE, expected)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_sampled_codes(beams: int, published: Any, compare: Any) -> None:
    """The same draws from the same seed."""
    language, encoder = index_parts.language_model()
    for seed in range(3):
        torch.manual_seed(seed)
        expected = published.inference_speech(
            index_parts.MEL,
            index_parts.TEXT,
            do_sample=True,
            top_p=0.8,
            top_k=30,
            temperature=1.0,
            num_beams=beams,
            repetition_penalty=10.0,
            length_penalty=0.0,
            max_generate_length=index_parts.LIMIT,
        )
        torch.manual_seed(seed)
        latents = encoder(index_parts.MEL)
        found = generate(language, latents, index_parts.TEXT, limit=index_parts.LIMIT, beams=beams, cache=None)
        compare(f"IndexTTS sampled codes of {beams} beams, seed {seed}", found, expected)


def same_text(text: str) -> str:
    return text


TEXTS = (
    "What's this? It's a test; he said: “no” (twice)...",
    "John's dog isn't here -- really!!",
    "这酒...里...有毒...",
    "最zhong4要的是：不要chong2蹈覆辙",
    "约瑟夫·高登-莱维特（Joseph Gordon-Levitt is an American actor）",
    "晕XUAN4是一种GAN3觉, 于jue2对qu4xun2",
    "have you ever been to beta2? voice2, hunger2",
    "今天是个好日子 it's a good day $",
    "someone@example.com",
    "!",
    "A",
)


def test_text(checkout: Path, tmp_path: Path) -> None:
    """The same pieces and the same parts, with nothing between the rules: what a normalizer would read stays."""
    from indextts.utils import front

    tiny._write_pieces(tmp_path / "bpe.model", 72)
    normalizer = front.TextNormalizer()
    normalizer.zh_normalizer = normalizer.en_normalizer = types.SimpleNamespace(normalize=same_text)
    theirs = front.TextTokenizer(str(tmp_path / "bpe.model"), normalizer)
    ours = Tokenizer(tmp_path / "bpe.model", TextNormalizer((same_text, same_text)))
    for text in TEXTS:
        assert ours.pieces(text) == theirs.tokenize(text), text
        assert reads_as_chinese(text) == normalizer.use_chinese(text), text


@pytest.mark.parametrize("most", [4, 7, 20, 120])
def test_parts_of_a_text(most: int, checkout: Path) -> None:
    """Any row of pieces is cut in the same places."""
    from indextts.utils.front import TextTokenizer

    chance = random.Random(most)
    compared = 0
    for _ in range(300):
        pieces = chance.choices("A B C ▁D . ▁. ! , ▁, - ' ▁... ▁?".split(), k=chance.randrange(1, 60))
        found = split(pieces, most)
        assert all(len(part) <= most + 1 for part in found)
        try:
            expected = TextTokenizer.split_sentences_by_token(
                pieces, TextTokenizer.punctuation_marks_tokens, max_tokens_per_sentence=most
            )
        except RecursionError:  # commas and dashes in turn, for ever
            continue
        compared += 1
        assert found == expected, pieces
    assert compared > 200


def test_long_silence(checkout: Path, published: Any) -> None:
    from indextts import infer

    system = types.SimpleNamespace(stop_mel_token=65)
    for codes in ([3, *[52] * 31, 4, 65], [52] * 40, [1, *[52] * 20, 2, *[52] * 11, 65, 52], [7, 65, 65], [5, 6]):
        row = torch.tensor([codes])
        expected, _ = infer.IndexTTS.remove_long_silence(system, row.clone())
        assert spoken_codes(row, 65).tolist() == expected.tolist()


def test_whole_path(
    checkout: Path, published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compare: Any
) -> None:
    """A file and a text to sound, on a checkpoint with the widths that the published classes fix."""
    from indextts.gpt import model as upstream

    folder = tiny.write_checkpoint(tmp_path / "index", speaker={})
    sound = 0.3 * index_parts.sinusoid("voice", (33_075, 2)).numpy()
    soundfile.write(tmp_path / "voice.wav", sound, 22_050)
    ours = IndexSystem.load(folder)
    vocoder = published_vocoder(tiny.SETTINGS["bigvgan"]).eval()
    vocoder.load_state_dict(torch.load(folder / "bigvgan_generator.pth", weights_only=True)["generator"], strict=True)
    voice = upstream.UnifiedVoice(**tiny.SETTINGS["gpt"], checkpointing=False).eval()
    voice.load_state_dict(torch.load(folder / "gpt.pth", weights_only=True)["model"], strict=True)
    voice.post_init_gpt2_config(kv_cache=True)
    shim(voice, monkeypatch)
    import torchaudio
    from indextts.utils.feature_extractors import MelSpectrogramFeatures

    waveform = torch.from_numpy(soundfile.read(tmp_path / "voice.wav", dtype="float32")[0]).mean(1)[None]
    mel = MelSpectrogramFeatures()(torchaudio.transforms.Resample(22_050, 24_000)(waveform))
    (part,) = ours.tokenizer.parts("HELLO.")
    text = torch.tensor([part])
    torch.manual_seed(4)
    with torch.no_grad():
        codes = voice.inference_speech(
            mel,
            text,
            do_sample=True,
            top_p=0.8,
            top_k=30,
            temperature=1.0,
            num_beams=3,
            repetition_penalty=10.0,
            length_penalty=0.0,
            max_generate_length=40,
        )
        spoken = spoken_codes(codes, 65)
        states = voice(
            mel,
            text,
            torch.tensor([text.shape[1]]),
            spoken.clone(),
            torch.tensor([spoken.shape[1]]) * 1024,
            cond_mel_lengths=torch.tensor([mel.shape[-1]]),
            return_latent=True,
        )
        expected = vocoder(states, mel.transpose(1, 2))[0][0, 0]
    speech = ours.synthesize("HELLO.", tmp_path / "voice.wav", seed=4, maximum_codes=40)
    assert len(speech.codes) > 5
    compare("IndexTTS whole path, codes", torch.from_numpy(speech.codes), spoken[0])
    compare("IndexTTS whole path, sound", torch.from_numpy(speech.waveform), expected)


@torch.no_grad()
def test_codes_for_training(checkout: Path, tmp_path: Path, compare: Any) -> None:
    from indextts.vqvae.xtts_dvae import DiscreteVAE

    settings = {
        "channels": 100,
        "num_tokens": 64,
        "hidden_dim": 16,
        "num_resnet_blocks": 3,
        "codebook_dim": 12,
        "num_layers": 2,
        "positional_dims": 1,
        "kernel_size": 3,
        "smooth_l1_loss": True,
        "use_transposed_convs": False,
    }
    theirs = fill(DiscreteVAE(**settings))
    torch.save(theirs.state_dict(), tmp_path / "dvae.pth")
    ours = MelCodec.load(tmp_path / "dvae.pth", settings)
    mel = torch.cat((index_parts.MEL, index_parts.MEL.flip(-1)))
    compare("IndexTTS codes for training", ours.encode(mel), theirs.get_codebook_indices(mel))
    compare("IndexTTS encoder for training", ours.encoder(mel), theirs.encoder(mel))
