"""IndexTTS's parts: golden values from the published code, and facts that hold without it."""

from __future__ import annotations

from pathlib import Path

import golden
import index_parts
import pytest
import torch
from naive import dense_masks
from torch import Tensor

import wandlib
from wandlib.systems.acoustics.resample import resample
from wandlib.systems.base import InputError
from wandlib.systems.indextts.decoding import generate, spoken_codes
from wandlib.systems.indextts.language_model import IndexLM
from wandlib.systems.indextts.training import training_sample

FOLDER = Path(__file__).parent
WINDOW = 6


def test_golden_values_of_the_acoustic_parts() -> None:
    _, voice = index_parts.language_model()
    golden.check(FOLDER / "golden.safetensors", index_parts.acoustic_outputs(voice, index_parts.vocoder()))


def test_golden_values_of_the_language_model() -> None:
    golden.check(FOLDER / "golden_language.safetensors", index_parts.language_outputs(*index_parts.language_model()))


def test_golden_codes_of_a_recording() -> None:
    """Made by the published class, DiscreteVAE of tag v1.5.0, with the same weights (the upstream test)."""
    codes = index_parts.codec().encode(index_parts.contrasts(37))
    assert codes.tolist() == [[62, 47, 45, 62, 62, 16, 44, 23, 11, 44]]


def test_resampling_keeps_a_tone() -> None:
    """Far from the ends, a tone below both limits comes out as that tone at the new rate."""
    time = torch.arange(4410, dtype=torch.float64) / 22_050
    resampled = resample((440 * 2 * torch.pi * time).sin()[None].float(), 22_050, 24_000)
    later = torch.arange(resampled.shape[1], dtype=torch.float64) / 24_000
    assert resampled.shape == (1, 4800)
    torch.testing.assert_close(
        resampled[0, 100:-100].double(), (440 * 2 * torch.pi * later).sin()[100:-100], rtol=0, atol=2e-3
    )


@pytest.fixture
def parts() -> tuple[IndexLM, Tensor]:
    """Converted model and latents."""
    model, voice = index_parts.language_model()
    with torch.no_grad():
        latents = voice(index_parts.MEL)
    return wandlib.convert(model, window=WINDOW), latents


def mask_of(conditioning: int, length: int, window: int) -> Tensor:
    """The window over a whole sequence."""
    kinds = torch.arange(length)[None] < conditioning
    return dense_masks(kinds, torch.zeros_like(kinds), window, [None])


def brute_force(model: IndexLM, latents: Tensor, codes: list[int], window: int) -> Tensor:
    """Scores of the next code, by one pass over everything with a mask and no cache, under full attention."""
    prompt = model.prefix(latents, index_parts.TEXT)
    with torch.no_grad(), wandlib.full_attention(model):
        embedded = prompt
        if codes:
            places = torch.arange(2, 2 + len(codes))[None]
            embedded = torch.cat((prompt, model.embed_codes(torch.tensor([codes]), places)), dim=1)
        mask = mask_of(prompt.shape[1], embedded.shape[1], window)
        return model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits[0, -1]


@torch.no_grad()
def test_greedy_codes_are_those_of_a_mask(parts: tuple[IndexLM, Tensor]) -> None:
    """With the penalty on code 1 and the start token from the first step on."""
    model, latents = parts
    cache = wandlib.WandCache(model.gpt.config, WINDOW)
    found = generate(model, latents, index_parts.TEXT, cache=cache, limit=30, beams=1, sampled=False)[0].tolist()
    codes: list[int] = []
    for _ in range(30):
        scores = brute_force(model, latents, codes, WINDOW)
        for token in {1, model.config.start_code, *codes}:
            scores[token] = scores[token] * 10 if scores[token] < 0 else scores[token] / 10
        codes.append(int(scores.argmax()))
        if codes[-1] == model.config.end_code:
            break
    assert found == codes
    assert len(codes) > WINDOW
    full = generate(model, latents, index_parts.TEXT, cache=None, limit=30, beams=1, sampled=False)
    assert full[0].tolist() == codes  # without a cache of its own, a converted model makes one with its window
    with wandlib.full_attention(model):
        other = generate(model, latents, index_parts.TEXT, cache=None, limit=30, beams=1, sampled=False)
    assert other[0].tolist() != codes


@torch.no_grad()
def test_beams_that_share_the_prompt(parts: tuple[IndexLM, Tensor]) -> None:
    """The same codes, and less than half of the bytes."""
    model, latents = parts
    results = []
    for shared in (1, 3):
        torch.manual_seed(1)
        cache = wandlib.WandCache(model.gpt.config, WINDOW, shared=shared)
        codes = generate(model, latents, index_parts.TEXT, cache=cache, limit=30, beams=3)
        results.append((codes.tolist(), cache.nbytes))
    (apart, more), (together, less) = results
    assert apart == together
    assert less < more / 2


@torch.no_grad()
def test_states_under_the_window(parts: tuple[IndexLM, Tensor]) -> None:
    """The second pass shows a code what it saw while it was decoded, for any window."""
    model, latents = parts
    prompt = model.prefix(latents, index_parts.TEXT)
    codes = index_parts.CODES
    after = model.embed_codes(torch.nn.functional.pad(codes, (0, 1), value=65), torch.arange(1, 11)[None])
    embedded = torch.cat((prompt, after), dim=1)
    for window in (1, 3, WINDOW):
        mask = mask_of(prompt.shape[1], embedded.shape[1], window)
        with wandlib.full_attention(model):
            hidden = model.gpt(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state
        expected = model.final_norm(hidden)[:, prompt.shape[1] - 1 : -2]
        torch.testing.assert_close(model.states(latents, index_parts.TEXT, codes, window=window), expected)
    with wandlib.full_attention(model):
        full = model.states(latents, index_parts.TEXT, codes)
    assert (full - model.states(latents, index_parts.TEXT, codes, window=3)).abs().max() > 1e-2


@torch.no_grad()
def test_a_training_sequence_is_the_second_pass(parts: tuple[IndexLM, Tensor]) -> None:
    """One vocabulary and latents beside it: the same hidden states, with padding on the right too."""
    model, latents = parts
    config = model.config
    text = [config.vocab_size + token for token in (config.start_text, *index_parts.TEXT[0].tolist(), config.end_text)]
    codes = [config.start_code, *index_parts.CODES[0].tolist(), config.end_code]
    ids = torch.tensor([[model.config.latent_token] * latents.shape[1] + text + codes])
    with wandlib.full_attention(model):
        expected = model.mel_head(model.states(latents, index_parts.TEXT, index_parts.CODES))
        found = model(input_ids=ids, latents=latents, use_cache=False).logits
        padded = model(
            input_ids=torch.nn.functional.pad(ids, (0, 4)),
            latents=latents,
            attention_mask=torch.nn.functional.pad(torch.ones_like(ids), (0, 4)),
            use_cache=False,
        ).logits
    start = ids.shape[1] - len(codes)
    torch.testing.assert_close(found[:, start:-2], expected)
    torch.testing.assert_close(padded[:, : ids.shape[1]], found)


def test_a_loss_and_gradients(parts: tuple[IndexLM, Tensor]) -> None:
    model, latents = parts
    ids = torch.tensor([[model.config.latent_token] * 32 + [66, 70, 67] + [64, 5, 6, 65]])
    conditioning = torch.arange(ids.shape[1])[None] < 36
    labels = ids.masked_fill(conditioning, -100)
    model.train()
    loss = model(input_ids=ids, latents=latents, labels=labels, conditioning=conditioning).loss
    loss.backward()
    logits = model.eval()(input_ids=ids, latents=latents, conditioning=conditioning, use_cache=False).logits
    assert loss.isfinite()
    assert logits.shape == (1, 39, 66)
    assert all(model.get_parameter(name).grad is not None for name in ("mel_head.weight", "gpt.h.0.attn.c_attn.weight"))


def test_more_codes_than_positions(parts: tuple[IndexLM, Tensor]) -> None:
    model, latents = parts
    assert model.config.most_codes == 61
    with pytest.raises(InputError, match="positions for 61 codes an utterance, 62 were asked for, and no window lifts"):
        generate(model, latents, index_parts.TEXT, cache=None, limit=62)
    with pytest.raises(InputError, match="positions for 61 codes an utterance, and no window lifts"):
        model(input_ids=torch.full((1, 64), 3))
    with pytest.raises(InputError, match="31 tokens, the model has positions for 30"):
        model.prefix(latents, torch.ones(1, 31, dtype=torch.long))


@torch.no_grad()
def test_the_last_position_can_be_used(parts: tuple[IndexLM, Tensor]) -> None:
    model, latents = parts
    model.mel_head.bias[model.config.end_code] = -1e4
    codes = generate(model, latents, index_parts.TEXT, cache=None, limit=61, beams=1)
    assert codes.shape == (1, 61)
    assert model.states(latents, index_parts.TEXT, codes.clamp(max=63), window=4).shape == (1, 61, 32)


def test_long_silence_is_shortened() -> None:
    silent, end = 52, 65
    assert spoken_codes(torch.tensor([[1, *[silent] * 31, 2, end, 3]]), end).tolist() == [[1, *[silent] * 10, 2]]
    assert spoken_codes(torch.tensor([[1, *[silent] * 30, 2]]), end).tolist() == [[1, *[silent] * 30, 2]]
    assert spoken_codes(torch.tensor([[end]]), end).tolist() == [[]]


def test_a_training_sample(parts: tuple[IndexLM, Tensor]) -> None:
    """What it holds is what the second pass reads, and it has a loss."""
    model, latents = parts
    text, codes = index_parts.TEXT[0].tolist(), index_parts.CODES[0].tolist()
    sample = training_sample(model.config, text, codes, latents[0])
    batch = {name: value[None] for name, value in sample.items()}
    with torch.no_grad():
        expected = model.mel_head(model.states(latents, index_parts.TEXT, index_parts.CODES, window=WINDOW))
        found = model(**batch, use_cache=False)
    start = int(sample["conditioning"].sum()) - 1
    torch.testing.assert_close(found.logits[:, start : start + len(codes)], expected)
    assert found.loss.isfinite()
    with pytest.raises(InputError, match="62 codes; IndexTTS has positions for 30 and 61"):
        training_sample(model.config, text, [1] * 62, latents[0])
