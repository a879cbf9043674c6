"""Students with a LoRA adapter: what the trainer saves comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import index_parts
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_training import arguments, build_student, build_teacher, utterances
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from wandlib.attention.adapters import complete_adapter, holds, is_adapter
from wandlib.attention.conversion import convert, hook_of, load
from wandlib.attention.models import inner_model
from wandlib.distillation.checkpoints import last_checkpoint
from wandlib.distillation.collator import WandCollator
from wandlib.distillation.trainer import WandTrainer
from wandlib.systems.cosyvoice2.tiny import language_model as cosyvoice2_language_model

SAVING = {"max_steps": 2, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 2}
Case = pytest.mark.parametrize(
    "case", ["unnamed", "in a folder", "tied", "tied, in a folder", "head trained too", "two tokens"]
)


def lora(base: Any, **options: Any) -> Any:
    return get_peft_model(build_student(base), LoraConfig(r=4, target_modules=["q_proj", "mlp.down_proj"], **options))


def student_of(case: str, folder: Path) -> Any:
    base = build_teacher(tie_word_embeddings="tied" in case)
    if "in a folder" in case:
        base.save_pretrained(folder / "named")
        base = AutoModelForCausalLM.from_pretrained(folder / "named")
    if case == "two tokens":
        return lora(base, trainable_token_indices=[3, 5])
    return lora(base, modules_to_save=["lm_head"] if case == "head trained too" else None)


def train(student: Any, folder: Path) -> WandTrainer:
    teacher = build_teacher(tie_word_embeddings=False)
    trainer = WandTrainer(
        model=student, teacher=teacher, args=arguments(folder, **SAVING), train_dataset=utterances(16)
    )
    trainer.train()
    return trainer


def logits(model: Any) -> Tensor:
    batch = WandCollator()(utterances(3))
    del batch["labels"]
    with torch.no_grad():
        found: Tensor = model.eval()(**batch).logits
    return found


@Case
def test_a_saved_student_comes_back(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever it is moved to, and from every checkpoint."""
    monkeypatch.chdir(tmp_path)
    trainer = train(student_of(case, Path()), Path("run"))
    expected = logits(trainer.student)
    trainer.save_model("student")
    kept = last_checkpoint("run")
    assert kept is not None
    (tmp_path / "elsewhere").mkdir()
    Path("student").rename("elsewhere/moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (Path("moved"), tmp_path / kept):
        assert is_adapter(folder)
        loaded = load(folder)
        assert isinstance(loaded, PeftModel)
        assert hook_of(loaded).window == 4
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        assert torch.equal(logits(loaded), expected)
        assert (folder / "base").exists() == ("in a folder" not in case)


def test_a_loaded_student_can_be_trained_on(tmp_path: Path) -> None:
    trainer = train(student_of("unnamed", tmp_path), tmp_path / "run")
    trainer.save_model(str(tmp_path / "student"))
    student = load(tmp_path / "student", is_trainable=True, dtype=torch.float32)
    assert {name for name, value in student.named_parameters() if value.requires_grad} == {
        name for name, value in trainer.student.named_parameters() if value.requires_grad
    }
    again = train(student, tmp_path / "again")
    again.save_model(str(tmp_path / "second"))
    assert not torch.equal(logits(again.student), logits(trainer.student))
    assert torch.equal(logits(load(tmp_path / "second")), logits(again.student))


def test_a_run_is_resumed_from_an_adapter(tmp_path: Path) -> None:
    whole = train(student_of("unnamed", tmp_path), tmp_path / "run")
    teacher = build_teacher(tie_word_embeddings=False)
    resumed = WandTrainer(
        model=student_of("unnamed", tmp_path),
        teacher=teacher,
        args=arguments(tmp_path / "run", **SAVING),
        train_dataset=utterances(16),
    )
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(logits(resumed.student), logits(whole.student))


def test_a_base_model_that_changed_since_it_was_loaded_is_saved(tmp_path: Path) -> None:
    """A model remembers its folder after it was trained; the folder does not hold the new weights."""
    build_teacher(tie_word_embeddings=False).save_pretrained(tmp_path / "named")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "named")
    weights = base.state_dict()
    assert holds(str(tmp_path / "named"), weights)
    assert not holds("no/such-model", weights)
    base.model.layers[2].mlp.up_proj.weight.data[-1, -1] += 1
    assert not holds(str(tmp_path / "named"), weights)
    trainer = train(lora(base), tmp_path / "run")
    trainer.save_model(str(tmp_path / "student"))
    loaded = load(tmp_path / "student")
    assert torch.equal(logits(loaded), logits(trainer.student))
    assert torch.equal(inner_model(loaded).model.layers[2].mlp.up_proj.weight, base.model.layers[2].mlp.up_proj.weight)


@pytest.mark.parametrize("tied", [False, True], ids=["untied when loaded", "replaced"])
def test_a_head_that_the_base_model_s_folder_lacks_is_saved(tied: bool, tmp_path: Path) -> None:
    """The folder's model had tied weights, and so no head of its own; the student's base has one, for codes."""
    build_teacher(tie_word_embeddings=True).save_pretrained(tmp_path / "named")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "named", tie_word_embeddings=tied)
    head = base.lm_head.weight
    base.lm_head.weight = nn.Parameter(torch.randn_like(head))
    trainer = train(lora(base), tmp_path / "run")
    trainer.save_model(str(tmp_path / "student"))
    assert torch.equal(logits(load(tmp_path / "student")), logits(trainer.student))


def test_a_whole_model_is_no_adapter(tmp_path: Path) -> None:
    build_teacher().save_pretrained(tmp_path)
    assert not is_adapter(tmp_path)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    trainer = train(student_of("unnamed", tmp_path), tmp_path / "run")
    trainer.save_model(str(tmp_path / "student"))
    path = tmp_path / "student" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"architectures": ["NobodysForCausalLM"]}
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"names no architecture of transformers: \['NobodysForCausalLM'"):
        load(tmp_path / "student")


@pytest.mark.parametrize(
    "kind", ["bias of all", "bias of what it adapts", "an unfrozen norm", "an unfrozen layer under an adapter"]
)
def test_a_teacher_that_would_drift_is_refused(kind: str, tmp_path: Path) -> None:
    """What is trained of the base model itself stays changed where the adapter is off, and so teaches."""
    options = {"bias of all": {"bias": "all"}, "bias of what it adapts": {"bias": "lora_only"}}
    student = lora(build_teacher(tie_word_embeddings=False), **options.get(kind, {}))
    inner = inner_model(student).model
    if "norm" in kind:
        inner.norm.weight.requires_grad_(True)
    elif "layer" in kind:
        inner.layers[0].self_attn.q_proj.base_layer.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"must keep the base model's weights, and \d+ of them are trained"):
        WandTrainer(model=student, args=arguments(tmp_path), train_dataset=utterances(4))
    train(student, tmp_path)  # with a teacher of its own it may


def test_a_base_model_that_gave_a_part_to_its_adapter_is_no_teacher(tmp_path: Path) -> None:
    student = lora(build_teacher(tie_word_embeddings=False), init_lora_weights="pissa")
    with pytest.raises(ValueError, match="init_lora_weights='pissa' takes a part of the base model's weights"):
        WandTrainer(model=student, args=arguments(tmp_path), train_dataset=utterances(4))


@pytest.mark.parametrize(
    ("build", "adapted"),
    [(cosyvoice2_language_model, "q_proj"), (lambda: index_parts.language_model()[0], "c_attn")],
    ids=["cosyvoice2", "indextts"],
)
def test_students_of_the_systems_come_back(build: Any, adapted: str, tmp_path: Path) -> None:
    """Their classes are wandlib's own, not transformers'."""
    base = build()
    config = LoraConfig(r=2, target_modules=[adapted], init_lora_weights=False, fan_in_fan_out=adapted == "c_attn")
    student = get_peft_model(convert(base, 5), config)
    student.save_pretrained(tmp_path)
    complete_adapter(student, tmp_path)
    loaded = load(tmp_path)
    assert type(inner_model(loaded)) is type(base)
    assert hook_of(loaded).window == 5
    kept = student.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in loaded.state_dict().items())
