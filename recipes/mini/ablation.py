"""What each part of the method is worth: ``make ablation``, six hours on two cores for a voice not measured before.

Every trained row starts from the teacher's weights and has 60 steps of 16 rows of tokens, with three seeds
(:mod:`recipes.mini.ablation_rows`). Each is measured on held-out rows, single and streams, near the reference and far
from it; by twenty sentences x four speakers, greedy; and, where blocks or positions differ, by a stream of each speaker
in one cache. What was measured is on disk, a file for each row and seed of a voice, and a run goes on from it. That of
the shipped voice comes with this module, so that the tables are made anew within minutes (``--anew`` leaves it out).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import Qwen2ForCausalLM

import wandlib
from recipes.mini import endless, long_form, spoken, train_student
from recipes.mini.ablation_rows import ROWS, STUDENT, TEACHER, WITH_STREAM
from recipes.mini.ablation_tables import document, lines, written_for
from recipes.mini.evaluate import digest_of
from recipes.mini.files import PROVENANCE, mark_of, pack, slug_of, unpack, write_json, written_before
from recipes.mini.listening import identity, instruments, recognizer
from recipes.mini.loop import sum_of
from recipes.mini.pool import each_alone
from recipes.mini.rows import MAX_GAP, Row, collator
from recipes.mini.sentences import HARVARD
from recipes.mini.speakers import SPEAKERS
from recipes.mini.train_student import UNBOUNDED, Variant, window_of
from wandlib.evaluation.measurement import evaluate
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.report import Report, put_measured
from wandlib.profiling.measure import machine
from wandlib.systems.mini.system import ASSETS, MiniSystem

HERE = Path(__file__).parent
RESULTS, REPORT = HERE / "ablation.json", HERE / "RESULTS.md"
RUNS = HERE / "ablation_runs.zip"
"""What was measured of every run, sentence by sentence."""
SENTENCES = HARVARD[:20]
STREAMED = 15
"""Sentences of each speaker's stream."""
FOUR = [SPEAKERS[number].name for number in (0, 2, 4, 6)]
"""A woman and a man of each accent."""
Job = tuple[Path, Path, Path | None, str, str, int]
"""Folder, corpus, voice folder and its sum, row and seed."""


def variant_of(name: str, seed: int) -> Variant:
    """Return how a row sees its text and codes; an untrained one as the shipped student does."""
    row = ROWS[name]
    if row.variant is None:
        return Variant(window=row.window, full=row.window == UNBOUNDED)
    return row.variant if row.shipped else replace(row.variant, seed=seed)


def check_voice(folder: Path, corpus: Path, assets: Path | None) -> None:
    """See that a folder holds the very models of a voice, and what it learned from: rows start from these.

    Raises
    ------
    ValueError
        If it holds others.
    """
    if not (folder / "student" / "model.safetensors").exists():
        raise ValueError(f"no student in {folder}: run `python -m recipes.mini shipped` first, or the stage student")
    voice = MiniSystem.load(assets)
    theirs = [voice.models["full"], voice.models["window"]]
    ours = [train_student.load_teacher(folder), train_student.load_student(folder)]
    sums = [[sum_of(dict(model.named_parameters())) for model in models] for models in (ours, theirs)]
    if sums[0] != sums[1] or str(np.load(corpus / spoken.NAME)["codec"]) != spoken.fingerprint(voice.codec):
        raise ValueError(
            f"{folder} holds another teacher, student or codec than the voice in {assets or ASSETS}: export it, or "
            "give an empty --folder and run `python -m recipes.mini shipped` for it first"
        )


def model_of(folder: Path, corpus: Path, voice: str, name: str, seed: int) -> Qwen2ForCausalLM:
    """Return the model of a row, trained if necessary."""
    if name == STUDENT:
        return train_student.load_student(folder)
    if ROWS[name].variant is None:
        return train_student.load_teacher(folder)
    variant = variant_of(name, seed)
    output = f"ablation/{voice}/{slug_of(name)}-{seed}-{mark_of(variant)}"
    return train_student.train(folder, corpus, variant, output)


def held_out(folder: Path, corpus: Path, model: Qwen2ForCausalLM, variant: Variant) -> dict[str, float]:
    """Cross-entropy and divergence in nats a code, and agreement with the teacher, at the hard window.

    On single utterances; on ``streams``; and on streams that are ``far`` from the reference.
    """
    _, speech = train_student.read_speech(corpus)
    rows = speech.rows(0)
    single, streams = ([row for row in rows if (len(row["blocks"]) > 1) == several] for several in (False, True))
    # Both terms are to be measured, whatever was trained with.
    args = train_student.arguments(Variant(window=window_of(variant)["window"]), folder / "ablation" / "scores")
    trainer = wandlib.WandTrainer(
        model=wandlib.convert(model, **window_of(variant)),
        teacher=train_student.load_teacher(folder),
        args=args,
        eval_dataset=single,
        data_collator=collator(0),
    )

    def losses(chosen: list[Row], ending: str) -> dict[str, float]:
        if not chosen:
            return {}
        found = trainer.evaluate(chosen)
        return {name + ending: found[f"eval_{name}"] for name in ("ce", "kl", "agreement")}

    measured = losses(single, "") | losses(streams, ", streams")
    trainer.data_collator = collator(MAX_GAP, no_gap=0.0)
    measured |= losses(streams, ", far")
    # Else the model would speak in the trainer's mixed precision: other codes, and in a CPU four times as slow.
    wandlib.restore(trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False))
    return measured


def system_of(folder: Path, assets: Path | None, model: Qwen2ForCausalLM, variant: Variant) -> MiniSystem:
    """Put a row's model into the voice."""
    voice, rule = MiniSystem.load(assets), window_of(variant)
    teacher = train_student.load_teacher(folder)
    return MiniSystem(voice.codec, voice.vocoder, teacher, voice.voices, model, rule["window"], rule["blocks"])


def speak(system: MiniSystem, name: str, seed: int) -> Report:
    """Transcribe the sentences that a row's model speaks; the condition is the row, the seed that of its training."""
    made = evaluate(
        system,
        SENTENCES,
        speakers=[speaker for speaker in FOUR if speaker in system.speakers],
        attentions=("window",),
        seeds=(0,),
        temperature=0.0,
        recognizer=recognizer(),
        encoder=identity(),
        name=name,
    )
    made.utterances = [replace(row, condition=name, seed=seed) for row in made.utterances]
    return made


def stream(system: MiniSystem, assets: Path | None) -> list[dict[str, Any]]:
    """Every sentence of a stream of each speaker, measured by itself; each speaker reads on where the last stopped."""
    found, texts = [], long_form.text_to_read()
    for number, speaker in enumerate(name for name in FOUR if name in system.speakers):
        judge = long_form.Judge(assets, speaker, longest=0.0)
        part = texts[number * STREAMED : (number + 1) * STREAMED]
        for sentence, sound in endless.speak(system, "window", speaker, part):
            judge.add(sentence, sound)
        judge.finish()
        found += [group | {"sentence": f"{speaker} {place}"} for place, group in enumerate(judge.groups)]
    return found


def paths_of(job: Job) -> list[Path]:
    """Return where the measurements of a row with one seed are, and what was heard of it, where it speaks."""
    folder, _, _, voice, name, seed = job
    streamed = STREAMED if name in WITH_STREAM else 0
    mark = mark_of(variant_of(name, seed), ROWS[name].spoken, SENTENCES, FOUR, streamed)
    path = folder / "ablation" / voice / f"{slug_of(name)}-{seed}-{mark}-{instruments()}.json"
    return [path, path.with_suffix(".report.json")] if ROWS[name].spoken else [path]


def measure(job: Job) -> dict[str, Any]:
    """One row with one seed, from disk where it was measured before."""
    folder, corpus, assets, voice, name, seed = job
    path, *heard = paths_of(job)
    if not path.exists():
        torch.set_num_threads(1)
        started, variant = time.monotonic(), variant_of(name, seed)
        model = model_of(folder, corpus, voice, name, seed)
        result: dict[str, Any] = {"training minutes": (time.monotonic() - started) / 60}
        if ROWS[name].variant is not None and not ROWS[name].shipped:
            result["utterances"] = train_student.utterances_read(corpus, variant)
        result |= held_out(folder, corpus, model, variant)
        if heard:
            system = system_of(folder, assets, model, variant)
            speak(system, name, seed).to_json(heard[0])
            if name in WITH_STREAM:
                result["sentences"] = stream(system, assets)
        write_json(path, result)
    measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return measured | ({"report": Report.from_json(heard[0])} if heard else {})


def attention_masses(folder: Path, corpus: Path, utterances: int = 5) -> list[dict[str, float]]:
    """Where the teacher looks, on held-out utterances: the paper's table."""
    _, held = train_student.read_speech(corpus)
    single = [row for row in held.rows(0) if len(row["blocks"]) == 1]
    longest = sorted(single, key=lambda row: -len(row["blocks"][0][1]))[:utterances]
    batch = collator(0)(longest)
    batch = {name: batch[name] for name in ("input_ids", "labels", "conditioning", "attention_mask")}
    mass = wandlib.attention_mass(train_student.load_teacher(folder), batch, windows=(4, 8, 16, 32, 64))
    return mass.table()


def jobs_of(folder: Path, corpus: Path, assets: Path | None, voice: str, names: list[str]) -> Iterator[Job]:
    """Yield every seed of every row; first the first seed of all, so that a run that is stopped has all rows."""
    for seed in range(max(len(ROWS[name].seeds) for name in names)):
        for name in names:
            if seed < len(ROWS[name].seeds):
                yield folder, corpus, assets, voice, name, ROWS[name].seeds[seed]


def by_row(jobs: list[Job], answers: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Put together what was measured of a row, one after the other seed."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for (*_, name, _), answer in zip(jobs, answers, strict=True):
        measured.setdefault(name, []).append(answer)
    return measured


def main(
    folder: Annotated[Path, typer.Option(help="The recipe's folder, with corpus and codes.")] = Path("runs/mini"),
    assets: Annotated[Path | None, typer.Option(help="The voice made from it; default: the shipped one.")] = None,
    rows: Annotated[list[str] | None, typer.Option("--row", help="Some rows only; nothing is written.")] = None,
    workers: Annotated[int, typer.Option(help="Rows at a time, one thread each.")] = 2,
    so_far: Annotated[bool, typer.Option("--so-far", help="Measure nothing more: write what was measured.")] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Take nothing of what ships: hours; --folder has none of it yet.")
    ] = False,
) -> None:
    """Train and measure every row with every seed, and write RESULTS.md: minutes where all is kept, else six hours."""
    chosen = rows or list(ROWS)
    unknown = sorted(set(chosen) - set(ROWS))
    if unknown:
        raise typer.BadParameter(f"no row {', '.join(unknown)}; there are {'; '.join(ROWS)}")
    corpus = folder / "corpus"
    if not (corpus / spoken.NAME).exists():
        raise typer.BadParameter(f"nothing to learn from in {corpus}: run `python -m recipes.mini shipped` first")
    check_voice(folder, corpus, assets)
    voice = digest_of(assets)
    kept = folder / "ablation"
    (kept / voice).mkdir(parents=True, exist_ok=True)
    jobs = list(jobs_of(folder, corpus, assets, voice, [*dict.fromkeys((TEACHER, *chosen))]))
    if not anew:
        unpack(RUNS, kept, (path for job in jobs for path in paths_of(job)))
    if so_far:
        jobs = [job for job in jobs if paths_of(job)[0].exists()]
        if not any(job[4] == TEACHER for job in jobs):
            raise typer.BadParameter(f"the teacher was not measured yet in {kept / voice}")
    known = all(paths_of(job)[0].exists() for job in jobs)
    os.environ["OMP_NUM_THREADS"] = "1"
    answers = list(each_alone(measure, jobs, workers, "rows"))
    listen, table = recognizer(), lines(by_row(jobs, answers))
    result = {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "voice": voice,
        "recognizer": "none" if isinstance(listen, Unavailable) else f"Whisper {listen.name}",
        "sentences": f"{len(SENTENCES)} sentences x {len(FOUR)} speakers",
        "rows": [row for row in table if "WER" in row],
        "beyond the paper": [row for row in table if "WER" not in row],
        "attention mass": attention_masses(folder, corpus),
    }
    result |= written_before(RESULTS, voice, "findings", "findings of", *(PROVENANCE if known else ()))
    print(document(result))
    if result.get("findings of") != written_for(result):
        print(f'Read the findings in {RESULTS.name} anew, then say there: "findings of": "{written_for(result)}"')
    if not rows:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        REPORT.write_text(put_measured(REPORT.read_text(encoding="utf-8"), document(result)), encoding="utf-8")
        pack(RUNS, kept, (path for job in jobs for path in paths_of(job)))


if __name__ == "__main__":
    typer.run(main)
