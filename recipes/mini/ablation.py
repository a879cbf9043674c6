"""What each part of the method is worth, on the embedded voice: ``make ablation`` writes RESULTS.md.

Every trained row starts from the teacher and runs equally long; one thing differs. A row is measured on the held-out
utterances (teacher-forced cross-entropy, skew divergence from the teacher, agreement with its most likely code) and on
Harvard sentences spoken aloud: word and character errors by Whisper tiny.en, similarity to the reference by
resemblyzer, failures. Rows are kept under ``runs/mini/ablation`` as they finish: stop at any time, and run it again.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tqdm import tqdm
from transformers import Qwen2ForCausalLM

import wandlib
from recipes.mini import train_student
from recipes.mini.sentences import HARVARD
from recipes.mini.train_student import UNBOUNDED, WINDOW, Variant
from wandlib.evaluation.measurement import evaluate
from wandlib.evaluation.report import Report, markdown_table, put_measured
from wandlib.systems.mini.prompt import END
from wandlib.systems.mini.system import MiniSystem

HERE = Path(__file__).parent
RESULTS, REPORT = HERE / "ablation.json", HERE / "RESULTS.md"
SPEAKERS = ("clara", "henry", "victor")
SENTENCES = HARVARD[:20]
SEEDS, TEMPERATURE = (0, 1, 2), 0.35
"""Of the sampled comparison; the other rows are greedy, which needs no seed."""
SHORT = Variant(steps=60)


@dataclass(frozen=True)
class Row:
    """A line of the tables: what is trained, or which window the teacher's own weights are put under."""

    variant: Variant | None = None
    window: int = UNBOUNDED
    sampled: bool = False
    spoken: bool = True
    """Whether it also speaks the sentences; else it is measured on held-out utterances alone."""


TEACHER, UNTRAINED, STUDENT = "teacher", f"untrained, W = {WINDOW}", f"shipped student, W = {WINDOW}"
DIRECT = replace(SHORT, schedule="direct")
ROWS = {
    TEACHER: Row(),
    UNTRAINED: Row(window=WINDOW),
    STUDENT: Row(Variant()),
    "CE": Row(replace(DIRECT, kl_weight=0.0)),
    "KL": Row(replace(DIRECT, ce_weight=0.0)),
    "CE + KL": Row(DIRECT),
    "CE + KL, curriculum": Row(SHORT),
    "CE + KL, LoRA": Row(replace(DIRECT, lora=True, learning_rate=4 * DIRECT.learning_rate)),
    "CE, no window": Row(replace(DIRECT, full=True)),
    "untrained, W = 8": Row(window=8),
    "untrained, W = 32": Row(window=32),
    **{f"{name}, sampled": Row(sampled=True) for name in (TEACHER, UNTRAINED, STUDENT)},
    "CE + reverse KL": Row(replace(DIRECT, divergence="reverse"), spoken=False),
    "CE + Jensen-Shannon": Row(replace(DIRECT, divergence="jensen-shannon"), spoken=False),
    "CE + KL, on-policy": Row(replace(DIRECT, on_policy=0.25), spoken=False),
    "CE + KL + hidden states": Row(replace(DIRECT, hidden_weight=1.0), spoken=False),
}
"""The paper's table, LoRA, other windows, and what the paper does not have; sampled rows have several seeds."""


def model_of(folder: Path, corpus: Path, name: str) -> tuple[Qwen2ForCausalLM, int]:
    """Return the model of a row, trained if necessary, and its window."""
    name = name.removesuffix(", sampled")
    row = ROWS[name]
    if row.variant is None:
        return train_student.load_teacher(folder), row.window
    slug = "student" if name == STUDENT else f"ablation/{slug_of(name)}"
    model = train_student.train(folder, corpus, row.variant, slug)
    return model, UNBOUNDED if row.variant.full else row.variant.window


def slug_of(name: str) -> str:
    """Make a name for files."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def held_out(folder: Path, corpus: Path, model: Qwen2ForCausalLM, window: int) -> dict[str, float]:
    """Cross-entropy and divergence in nats a code, and agreement with the teacher, at the hard window."""
    _, utterances = train_student.read_utterances(corpus)
    trainer = wandlib.WandTrainer(
        model=wandlib.convert(model, window=window),
        teacher=train_student.load_teacher(folder),
        args=train_student.arguments(Variant(window=window), folder / "ablation" / "scores"),
        eval_dataset=utterances,
        data_collator=wandlib.WandCollator(pad_token_id=END, pad_to_multiple_of=32),
    )
    found = trainer.evaluate()
    wandlib.restore(model)
    return {name: found[f"eval_{name}"] for name in ("ce", "kl", "agreement")}


def measure(job: tuple[Path, Path, str]) -> dict[str, Any]:
    """One row, from disk where it was measured before."""
    folder, corpus, name = job
    path = folder / "ablation" / f"{slug_of(name)}.json"
    report = path.with_suffix(".report.json")
    if not path.exists():
        torch.set_num_threads(1)
        started = time.monotonic()
        model, window = model_of(folder, corpus, name)
        result: dict[str, Any] = {"window": window, "training minutes": (time.monotonic() - started) / 60}
        if not ROWS[name].sampled:
            result |= held_out(folder, corpus, model, window)
        if ROWS[name].spoken:
            speak(name, model, window).to_json(report)
        path.write_text(json.dumps(result), encoding="utf-8")
    measured = json.loads(path.read_text(encoding="utf-8"))
    return measured | {"report": Report.from_json(report)} if ROWS[name].spoken else measured


def speak(name: str, model: Qwen2ForCausalLM, window: int) -> Report:
    """Transcribe the sentences that a row's model speaks."""
    shipped = MiniSystem.load()
    system = MiniSystem(shipped.codec, shipped.vocoder, shipped.language_model, shipped.voices, model, window)
    return evaluate(
        system,
        SENTENCES,
        speakers=SPEAKERS,
        attentions=("window",),
        seeds=SEEDS if ROWS[name].sampled else SEEDS[:1],
        temperature=TEMPERATURE if ROWS[name].sampled else None,
        name=name,
    )


def line(name: str, row: dict[str, Any], teacher: Report) -> dict[str, Any]:
    """Format a row for the table; differences are to the teacher on the same sentences."""
    found: dict[str, Any] = {"row": name}
    for key, label in (("ce", "CE"), ("kl", "KL"), ("agreement", "agreement")):
        if key in row:
            found[label] = float(row[key])
    if "report" not in row:
        return found
    report = row["report"]
    (condition,), (baseline,) = report.conditions, teacher.conditions
    for metric in ("WER", "CER", "similarity"):
        found[metric] = report.interval(metric, condition).value
        if condition != baseline:
            apart = (report + teacher).difference(metric, condition, baseline)
            found[f"{metric} - teacher's, 95 %"] = f"{apart.low:+.3f} to {apart.high:+.3f}"
        else:
            found[f"{metric} - teacher's, 95 %"] = ""
    return found | {"failures": sum(bool(utterance.failures) for utterance in report.utterances)}


def attention_masses(folder: Path, corpus: Path, utterances: int = 5) -> list[dict[str, float]]:
    """Where the teacher looks, on held-out utterances: the paper's table."""
    _, held = train_student.read_utterances(corpus)
    longest = sorted(range(len(held)), key=lambda i: -len(held[i]["input_ids"]))[:utterances]
    batch = wandlib.WandCollator(pad_token_id=END)([held[i] for i in longest])
    mass = wandlib.attention_mass(train_student.load_teacher(folder), batch, windows=(4, 8, 16, 32, 64))
    return mass.table()


def document(result: dict[str, Any]) -> str:
    """Write the measured part of RESULTS.md."""
    rows = result["rows"]
    sampled = [row for row in rows if "CE" not in row]
    greedy = [row for row in rows if "CE" in row]
    count = len(SENTENCES) * len(SPEAKERS)
    return "\n".join(
        [
            f"{len(SENTENCES)} sentences x {len(SPEAKERS)} speakers, greedy. CE and KL, nats a code, on held-out",
            "utterances. Differences are paired with the teacher's on the same sentences, bootstrapped over sentences:",
            f"an interval that holds 0 shows none. Failures: no end, runaway, early stop or repetition, of {count}.",
            "",
            markdown_table(greedy),
            "",
            f"Sampled at temperature {TEMPERATURE}, {len(SEEDS)} seeds, {len(SEEDS) * count} utterances a row:",
            "",
            markdown_table(sampled),
            "",
            f"Beyond the paper, {SHORT.steps} direct steps each, on held-out utterances alone; compare with CE + KL:",
            "",
            markdown_table(result["beyond the paper"]),
            "",
            "Where the teacher looks while it decodes (five long held-out utterances, mean over layers and heads):",
            "",
            markdown_table(result["attention mass"]),
            "",
            f"Measured on {result['machine']}, {result['date']}.",
        ]
    )


def main(
    folder: Annotated[Path, typer.Option(help="The recipe's folder, with corpus and codes.")] = Path("runs/mini"),
    rows: Annotated[list[str] | None, typer.Option("--row", help="Some rows only; nothing is written.")] = None,
    workers: Annotated[int, typer.Option(help="Rows at a time, one thread each.")] = 2,
) -> None:
    """Train and measure every row, and write RESULTS.md: about an hour on two cores."""
    chosen = rows or list(ROWS)
    unknown = sorted(set(chosen) - set(ROWS))
    if unknown:
        raise typer.BadParameter(f"no row {', '.join(unknown)}; there are {'; '.join(ROWS)}")
    corpus = folder / "corpus"
    if not (corpus / "codes.npz").exists():
        raise typer.BadParameter(
            f"no codes in {corpus}: run `python -m recipes.mini speech hearing corpus analysis shipped codes` first; "
            "speech takes hours"
        )
    (folder / "ablation").mkdir(parents=True, exist_ok=True)
    jobs = [(folder, corpus, name) for name in chosen]
    os.environ["OMP_NUM_THREADS"] = "1"
    with get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        measured = dict(zip(chosen, tqdm(pool.imap(measure, jobs), total=len(jobs), desc="rows"), strict=True))
    if rows:
        for name, row in measured.items():
            print(name, {key: value for key, value in row.items() if key != "report"})
            if "report" in row:
                print(row["report"].markdown())
        return
    teachers = {sampled: measured[TEACHER + ", sampled" * sampled]["report"] for sampled in (False, True)}
    lines = [line(name, row, teachers[ROWS[name].sampled]) for name, row in measured.items()]
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        "date": time.strftime("%Y-%m-%d"),
        "rows": [row for row in lines if "WER" in row],
        "beyond the paper": [row for row in lines if "WER" not in row],
        "attention mass": attention_masses(folder, corpus),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    REPORT.write_text(put_measured(REPORT.read_text(encoding="utf-8"), document(result)), encoding="utf-8")
    print(document(result))


if __name__ == "__main__":
    typer.run(main)
