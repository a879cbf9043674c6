"""The tables of an evaluation, from its utterances: what README, cards and results.json hold."""

from __future__ import annotations

import math
from typing import Any

from recipes.mini.stages import SAMPLED
from wandlib.evaluation.error_rates import Interval
from wandlib.evaluation.report import Report, markdown_table

METRICS = ("WER", "CER", "DNSMOS", "similarity")


def shown(interval: Interval | None, signed: bool = False) -> str:
    """Format a value and its 95 % interval; empty where it was not measured."""
    if interval is None:
        return ""
    form = "+.3f" if signed else ".3f"
    bounds = "" if math.isnan(interval.low) else f" ({interval.low:{form}} to {interval.high:{form}})"
    return f"{interval.value:{form}}{bounds}"


def known(report: Report, metric: str, condition: str, speaker: str | None = None) -> Interval | None:
    """Return an interval, None where it was not measured."""
    if condition not in report.conditions or metric not in (*report.metrics, "margin"):
        return None
    try:
        return report.interval(metric, condition, speaker)
    except ValueError:  # of this condition or speaker nothing made a sound
        return None


def speakers_of(report: Report) -> list[str]:
    """Names, in order."""
    return list(dict.fromkeys(row.speaker for row in report.utterances))


def by_stage(report: Report) -> list[dict[str, Any]]:
    """One row for each stage."""
    rows = []
    for stage in report.conditions:
        margins = [known(report, "margin", stage, name) for name in speakers_of(report)]
        row: dict[str, Any] = {"stage": stage} | {metric: shown(known(report, metric, stage)) for metric in METRICS}
        row["margin, worst"] = min((found.value for found in margins if found is not None), default=math.nan)
        row["failures"] = sum(bool(u.failures) for u in report.utterances if u.condition == stage)
        rows.append(row)
    return rows


def by_speaker(report: Report) -> list[dict[str, Any]]:
    """One row for each speaker, greedy."""
    stages = [stage for stage in report.conditions if "sampled" not in stage and stage not in ("mel", "codec")]
    rows = []
    for name in speakers_of(report):
        row: dict[str, Any] = {"speaker": name}
        for stage in stages:
            row[f"WER {stage}"] = shown(known(report, "WER", stage, name))
        for stage in stages:
            found = known(report, "DNSMOS", stage, name)
            row[f"DNSMOS {stage}"] = math.nan if found is None else found.value
        for label, metric in (("similarity", "similarity"), ("margin", "margin")):
            found = known(report, metric, "teacher", name)
            row[f"{label} teacher"] = math.nan if found is None else found.value
        rows.append(row)
    return rows


def differences(report: Report) -> list[dict[str, Any]]:
    """How untrained and student differ from the teacher on the same sentences, greedy and sampled."""
    rows = []
    for stage in report.conditions:
        teacher = "teacher, sampled" if stage.endswith("sampled") else "teacher"
        if teacher not in report.conditions or not stage.startswith(("untrained", "student")):
            continue
        row = {"difference": f"{stage} - {teacher}"}
        for metric in METRICS:
            measured = known(report, metric, stage) is not None and known(report, metric, teacher) is not None
            row[metric] = shown(report.difference(metric, stage, teacher), signed=True) if measured else ""
        rows.append(row)
    return rows


def summarize(report: Report) -> dict[str, Any]:
    """Return all tables that come from the utterances."""
    return {
        "instruments": report.instruments,
        "unavailable": report.unavailable,
        "stages": by_stage(report),
        "differences": differences(report),
        "speakers": by_speaker(report),
    }


def people(rows: list[dict[str, Any]]) -> list[str]:
    """Say what becomes of the voices of people who are no speaker."""
    lines = []
    for name in ("teacher", "student"):
        nearer = sum(row[name] > row[f"{name}, closest speaker"] for row in rows)
        mean = sum(row[name] for row in rows) / len(rows)
        lines.append(f"{name}: {nearer} of {len(rows)} (mean similarity to the person {mean:.3f})")
    verdict = (
        "It imitates"
        if all(
            sum(row[name] > row[f"{name}, closest speaker"] for row in rows) >= 10 / 12 * len(rows)
            for name in ("teacher", "student")
        )
        else "It does not imitate"
    )
    return [
        f"{verdict} people. Speech after a recording of a person who is no built-in speaker is nearer to the person",
        f"than to every built-in speaker in: {'; '.join(lines)}.",
    ]


def document(result: dict[str, Any]) -> str:
    """Format all of it as markdown."""
    instruments = ", ".join(f"{role}: {name}" for role, name in result["instruments"].items() if name != "none")
    lines = [
        f"{result['sentences']} IEEE Harvard sentences x {len(result['speakers'])} speakers, never trained on.",
        f"Intervals of 95 %, bootstrapped over sentences. {instruments}; DNSMOS: overall. Greedy; *sampled*: at",
        f"temperature {SAMPLED}.",
        *(f"Not measured: {name} ({reason})." for name, reason in result["unavailable"].items()),
        "",
        markdown_table(result["stages"]),
        "",
        "*similarity*: to three seconds of the speaker's own reference, as codec and vocoder give them back (so the",
        "source's own speech is measured against a copy); *margin*: over that to the closest other speaker, for the",
        "worst speaker; *failures*: no end, runaway, early stop, repetition.",
        "",
        markdown_table(result["differences"]),
        "",
        "Paired on the same sentences and speakers: an interval that holds 0 shows no difference.",
        "",
        markdown_table(result["speakers"]),
        "",
    ]
    if result["odd texts"]:
        failed = result["failures"]
        counts = ", ".join(f"{m} {sum(row['model'] == m for row in failed)}" for m in ("teacher", "student"))
        which = "; ".join(f"{row['model']}: {row['kind']}, {row['text'][:50]!r}" for row in failed)
        lines += [
            f"Failures of {result['odd texts']} texts of 1 to 60 words, of all kinds that people type (figures, dates,",
            f"abbreviations, capitals, quotes): {counts}. Which: {which or 'none'}.",
            "",
        ]
    if result["people"]:
        lines += [*people(result["people"]), ""]
    if result["speed"]:
        names = next(iter(result["speed"].values()))
        rows = [{"speed": name} | {machine: of[name] for machine, of in result["speed"].items()} for name in names]
        lines.append(markdown_table(rows))
    return "\n".join(lines).rstrip("\n")
