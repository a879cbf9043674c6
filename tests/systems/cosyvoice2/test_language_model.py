"""The language model: one causal model over one table, and the way from and to llm.pt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LogitsProcessorList, Qwen2Config

import wandlib
from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2 import (
    CosyVoice2Config,
    CosyVoice2LM,
    MinimumLength,
    RepetitionAwareSampling,
    export_llm,
)
from wandlib.systems.cosyvoice2.folder import BASE, load_language_model, read_tensors
from wandlib.systems.cosyvoice2.llm_weights import SPEECH, TASKS, TEXT, TIED, read_llm, write_llm
from wandlib.systems.cosyvoice2.tiny import language_model

TEXT_TOKENS, SPEECH_CODES = [5, 6, 7, 8], [9, 10, 11]


def test_published_layouts() -> None:
    two, three = CosyVoice2Config(), CosyVoice2Config(version=3)
    assert (two.sos, two.task, two.end, two.first_text, two.vocab_size) == (6564, 6565, 6561, 6566, 158_502)
    assert two.stop_ids == [6561, 6562, 6563]
    assert (three.sos, three.end, three.task, three.first_text, three.head_size) == (6561, 6562, 6563, 6761, 6761)
    assert (two.num_hidden_layers, two.hidden_size, two.rope_parameters["rope_theta"]) == (24, 896, 1e6)
    with pytest.raises(ValueError, match="no layout for version 1"):
        CosyVoice2Config(version=1)


def test_prompt_refuses_what_is_outside_the_table() -> None:
    config = language_model().config
    assert config.prompt([0], [0]) == [config.sos, config.first_text, config.task, 0]
    with pytest.raises(ValueError, match="code 243 is outside the table"):
        config.prompt([0], [243])
    with pytest.raises(ValueError, match="text token 320 is outside"):
        config.prompt([320])


@pytest.mark.parametrize("version", [2, 3])
def test_weights_go_there_and_back_bit_for_bit(version: int, checkpoint: Path, tmp_path: Path) -> None:
    model = language_model(version)
    export_llm(model, tmp_path / "llm.pt")
    weights = read_tensors(tmp_path / "llm.pt")
    assert (TASKS in weights) == (version == 2)
    assert weights[TIED].data_ptr() == weights[TEXT].data_ptr(), "tied tensors are stored once"
    base = Qwen2Config.from_pretrained(checkpoint / BASE)
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    again = read_llm(weights, base)
    assert not weights, "what was read is not held twice"
    assert again.config.version == version
    assert again.config.vocab_size == model.config.vocab_size
    written = write_llm(again)
    assert set(written) == set(kept)
    assert all(torch.equal(written[name], tensor) for name, tensor in kept.items())
    prompt = torch.tensor([model.config.prompt(TEXT_TOKENS, SPEECH_CODES)])
    assert torch.equal(again(prompt).logits, model(prompt).logits)


def test_published_bytes_survive_the_way_through_a_student(checkpoint: Path, tmp_path: Path) -> None:
    published = read_tensors(checkpoint / "llm.pt")
    student = wandlib.convert(load_language_model(checkpoint), window=8)
    student.save_pretrained(tmp_path / "student")
    again = CosyVoice2LM.from_pretrained(tmp_path / "student")
    assert again.config.wand["window"] == 8
    export_llm(again, tmp_path / "llm.pt")
    written = read_tensors(tmp_path / "llm.pt")
    assert all(torch.equal(written[name], tensor) for name, tensor in published.items())
    assert set(written) == set(published)


def test_another_type_changes_nothing_but_the_precision(checkpoint: Path) -> None:
    model = load_language_model(checkpoint, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    prompt = torch.tensor([model.config.prompt(TEXT_TOKENS)])
    full = load_language_model(checkpoint)(prompt).logits
    assert (model(prompt).logits.float() - full).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(SPEECH), "has no speech_embedding.weight"),
        (lambda w: w.update({TIED: w[TEXT] + 1}), "differ in this llm.pt"),
        (lambda w: w.update({"more": torch.zeros(1)}), "more in this llm.pt is unknown"),
        (lambda w: w.pop("llm.model.model.norm.weight"), "nothing for model.norm.weight"),
        (lambda w: w.update({"llm.model.model.norm.weight": torch.zeros(7)}), r"has the shape \[7\]"),
        (lambda w: (w.pop(SPEECH), w.update({"text_encoder.x": torch.zeros(1)})), "CosyVoice 1"),
    ],
)
def test_other_files_are_refused(change: object, message: str, checkpoint: Path) -> None:
    weights = write_llm(language_model())
    change(weights)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        read_llm(weights, Qwen2Config.from_pretrained(checkpoint / BASE))


def test_stock_generate_obeys_the_window() -> None:
    """Greedy decoding under the window finds what one pass over everything under the mask finds."""
    model = wandlib.convert(language_model(), window=4)
    model.lm_head.bias.data.zero_()  # or it ends at once
    prompt = torch.tensor([model.config.prompt(TEXT_TOKENS, SPEECH_CODES)])
    length = prompt.shape[1]
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40, eos_token_id=None
    )
    conditioning = (torch.arange(made.shape[1]) < length)[None]
    logits = model(made, conditioning=conditioning, use_cache=False).logits
    assert torch.equal(logits[0, length - 1 : -1].argmax(-1), made[0, length:])
    with wandlib.full_attention(model):
        full = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40, eos_token_id=None
        )
    assert not torch.equal(full, made), "a window that changes nothing proves nothing"


def test_stock_generate_samples_with_repetition_awareness() -> None:
    model = language_model()
    prompt = torch.tensor([model.config.prompt(TEXT_TOKENS)] * 2)
    length = prompt.shape[1]
    made = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        logits_processor=LogitsProcessorList(
            [MinimumLength(length, 12, model.config.end), RepetitionAwareSampling(length)]
        ),
        max_new_tokens=60,
    )[:, length:]
    for row in made.tolist():
        codes = row[: row.index(model.config.end)]
        assert len(codes) >= 12
        assert all(code < model.config.codes for code in codes)
        for index, code in enumerate(codes):
            assert code not in codes[max(0, index - 10) : index], "any repetition in the last 10 is ruled out once"


def test_loss_is_the_cross_entropy_over_the_head() -> None:
    model = language_model()
    ids = torch.tensor([[*model.config.prompt(TEXT_TOKENS), *SPEECH_CODES, model.config.end]])
    labels = ids.clone()
    labels[:, :6] = -100
    output = model(ids, labels=labels)
    wanted = torch.nn.functional.cross_entropy(output.logits[0, 5:-1], labels[0, 6:])
    assert output.logits.shape == (1, ids.shape[1], model.config.head_size)
    torch.testing.assert_close(output.loss, wanted)
    pair = model(ids, labels=labels, return_dict=False)
    torch.testing.assert_close(pair[0], wanted)


def test_profile_and_attention_mass_take_it_as_it_is() -> None:
    model = wandlib.convert(language_model(), window=4)
    measured = wandlib.profile(model, conditioning=10, steps=8, warmup=1)
    assert measured.cache_bytes[-1] == wandlib.cache_bytes(model.config, conditioning=10, generated=8, window=4)
    eager = CosyVoice2LM(model.config)
    eager.set_attn_implementation("eager")
    ids = torch.randint(243, (1, 30))
    mass = wandlib.attention_mass(eager, {"input_ids": ids, "conditioning": (torch.arange(30) < 10)[None]})
    torch.testing.assert_close(mass.prefix + mass.generated, torch.ones(2, 4))


def test_papers_cache_reduction() -> None:
    config = CosyVoice2Config()
    full, window = (wandlib.cache_bytes(config, conditioning=187, generated=250, window=w) for w in (None, 32))
    assert round(100 * (1 - window / full), 1) == 49.9


def test_adapters_attach(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(language_model(), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    wandlib.convert(model, window=4)
    ids = torch.tensor([model.get_base_model().config.prompt(TEXT_TOKENS, SPEECH_CODES)])
    conditioning = (torch.arange(ids.shape[1]) < 6)[None]
    labels = ids.masked_fill(conditioning, -100)
    model(ids, conditioning=conditioning, labels=labels).loss.backward()
    trained = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert trained
    assert all("lora" in name for name in trained)


def test_auto_class_loads_it(tmp_path: Path) -> None:
    model = language_model()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, CosyVoice2LM)
    assert again.generation_config.eos_token_id == model.config.stop_ids


def test_export_needs_a_pt_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name a \.pt file"):
        export_llm(language_model(), tmp_path / "llm.safetensors")
