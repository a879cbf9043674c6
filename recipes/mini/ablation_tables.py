"""From the measurements of the ablation to RESULTS.md: a row is several training runs on the same sentences.

Intervals draw both, sentences and seeds, with replacement: how other sentences and other training runs would fare.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from recipes.mini.ablation_rows import ROWS, TABLES, TEACHER
from wandlib.evaluation.error_rates import Interval, between_draws
from wandlib.evaluation.report import Report, markdown_table

OVER = """sentences and the training seeds of a row (of one, they do not know how another run would end;
three are few: where *WER by seed* differs much, they are too narrow)"""
Measured = Mapping[tuple[str, int], tuple[float, float]]
"""(value, weight) of a sentence, all speakers together, of a training seed."""


def crossed(measured: Measured, baseline: Measured | None = None, draws: int = 4000) -> Interval:
    """Return the sum of the values over that of the weights, and its 95 % interval over sentences and seeds.

    Parameters
    ----------
    baseline
        What has no seeds, on the same sentences: the interval is that of the difference.

    Raises
    ------
    ValueError
        Where a sentence is missing.
    """
    sentences, seeds = list(dict.fromkeys(text for text, _ in measured)), seeds_of(measured)
    try:
        table = np.array([[measured[sentence, seed] for seed in seeds] for sentence in sentences], float)
        if baseline is not None:
            (only,) = {seed for _, seed in baseline}
            means = [baseline[sentence, only][0] / baseline[sentence, only][1] for sentence in sentences]
            table[..., 0] -= np.array(means)[:, None] * table[..., 1]
    except KeyError as error:
        raise ValueError(f"sentence and seed {error} were not measured: these do not compare") from error
    values, weights = table[..., 0], table[..., 1]
    value = float(values.sum() / weights.sum())
    rng = np.random.default_rng(0)
    one = rng.multinomial(len(sentences), [1 / len(sentences)] * len(sentences), size=draws)
    two = rng.multinomial(len(seeds), [1 / len(seeds)] * len(seeds), size=draws)
    drawn = np.einsum("di,ij,dj->d", one, values, two) / np.einsum("di,ij,dj->d", one, weights, two)
    return between_draws(value, drawn, len(sentences))


def of_reports(reports: list[Report], metric: str) -> Measured:
    """Take a metric out of the reports of a row's runs."""
    found: dict[tuple[str, int], tuple[float, float]] = {}
    for number, report in enumerate(reports):
        for row in report.utterances:
            if metric in ("WER", "CER"):
                if row.errors is None:
                    continue
                pair: tuple[float, float] = (row.errors.word_errors, row.errors.words)
                if metric == "CER":
                    pair = (row.errors.character_errors, row.errors.characters)
            else:
                value = row.similarity
                if value is None:
                    continue
                pair = (value, 1)
            before = found.get((row.text, number), (0.0, 0.0))
            found[row.text, number] = (before[0] + pair[0], before[1] + pair[1])
    return found


def seeds_of(measured: Measured) -> list[int]:
    """List the training seeds, in the order in which they came."""
    return list(dict.fromkeys(seed for _, seed in measured))


def of_streams(runs: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Take the word errors and the words out of a row's runs, by speaker: a stream that loses its place stays lost."""
    found: dict[str, tuple[float, float]] = {}
    for sentence in (sentence for run in runs for sentence in run.get("sentences", []) if "words" in sentence):
        speaker = sentence["sentence"].split()[0]
        errors, words = found.get(speaker, (0.0, 0.0))
        found[speaker] = (errors + sentence["word errors"], words + sentence["words"])
    return found


def untrained_row(name: str) -> str | None:
    """Return the row whose window a row was trained for, and whose weights it started from; None: there is none."""
    variant = ROWS[name].variant if name in ROWS else None
    return None if variant is None or variant.full else f"window only, W = {variant.window}"


def written_for(result: dict[str, Any]) -> str:
    """Sum of what the tables say, by which findings tell whether they were written for it."""
    tables = json.dumps([result["rows"], result["beyond the paper"]], sort_keys=True)
    return hashlib.sha256(tables.encode()).hexdigest()[:8]


def bounds(interval: Interval, signed: bool = True) -> str:
    """Format the interval alone."""
    form = "+.3f" if signed else ".3f"
    return "" if math.isnan(interval.low) else f"{interval.low:{form}} to {interval.high:{form}}"


def line(
    name: str, runs: list[dict[str, Any]], teacher: dict[str, Any], untrained: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Make the row of the tables; differences are to the teacher, or to the untrained window, on the same sentences."""
    found: dict[str, Any] = {"row": name, "seeds": len(runs)}
    if "utterances" in runs[0]:
        found["utterances read"] = round(float(np.mean([run["utterances"] for run in runs])))
    for key, label in (("ce", "CE"), ("kl", "KL"), ("agreement", "agreement")):
        for ending in ("", ", streams", ", far"):
            values = [run[key + ending] for run in runs if key + ending in run]
            if values:
                found[label + ending] = float(np.mean(values))
                if len(values) > 1:
                    found[f"{label}{ending}, range"] = f"{min(values):.3f} to {max(values):.3f}"
    if "report" not in runs[0]:
        return found
    reports = [run["report"] for run in runs]
    for metric in ("WER", "CER", "similarity"):
        mine, base = of_reports(reports, metric), of_reports([teacher["report"]], metric)
        if mine:
            whole = crossed(mine)
            found |= {metric: whole.value, f"{metric}, 95 %": bounds(whole, signed=False)}
            if metric == "WER" and len(runs) > 1:
                found["WER by seed"] = " / ".join(f"{crossed(of_reports([one], metric)).value:.3f}" for one in reports)
            found[f"{metric} - teacher's, 95 %"] = "" if name == TEACHER else bounds(crossed(mine, base))
            if metric == "WER" and untrained is not None:
                found["WER - untrained's, 95 %"] = bounds(crossed(mine, of_reports([untrained["report"]], metric)))
    spoken = of_streams(runs)
    if spoken:
        errors, words = map(sum, zip(*spoken.values(), strict=True))
        found["WER, streams"] = errors / words
        found["WER of each"] = " / ".join(f"{errors / words:.3f}" for errors, words in spoken.values())
    utterances = [utterance for report in reports for utterance in report.utterances]
    failed = sum(bool(utterance.failures) for utterance in utterances)
    return found | {"failures": f"{failed} of {len(utterances)}"}


def lines(measured: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Make all rows."""
    none: list[None] = [None]
    return [
        line(name, runs, measured[TEACHER][0], measured.get(untrained_row(name) or "", none)[0])
        for name, runs in measured.items()
    ]


def document(result: dict[str, Any]) -> str:
    """Write the measured part of RESULTS.md."""
    rows = {row["row"]: row for row in (*result["rows"], *result["beyond the paper"])}
    parts = [
        f"{result['sentences']}, greedy, heard by {result['recognizer']}. CE and KL, nats a code, on held-out rows,",
        f"means over seeds. Intervals of 95 % over {OVER};",
        "differences are paired on the same sentences, with the teacher or with the untrained window of the same W:",
        "an interval that holds 0 shows none. Four streams are too few for one; *WER of each* is that of each speaker.",
        "Failures: no end, runaway, early stop, repetition.",
    ]
    if result.get("findings"):
        if result.get("findings of") != written_for(result):
            parts += ["", "*The findings were written for an earlier measurement and not read anew yet:*"]
        parts += ["", *result["findings"]]
    tables = [
        table for table in TABLES if sum(name in rows for name in table[1]) > 2
    ]  # of fewer there is no comparison
    placed = {name for _, names, _ in tables for name in names}
    others = [name for name in rows if name not in placed]
    anything = tuple(dict.fromkeys(key for name in others for key in rows[name] if key not in ("row", "seeds")))
    for title, names, columns in (*tables, ("Other rows", others, anything)):
        there = [rows[name] for name in names if name in rows]
        filled = [column for column in columns if any(column in row for row in there)]
        if there and filled:
            table = [
                {"row": row["row"], "seeds": row.get("seeds", 1)} | {column: row.get(column, "") for column in filled}
                for row in there
            ]
            parts += ["", f"**{title}.**", "", markdown_table(table)]
    if result["attention mass"]:
        parts += [
            "",
            "Where the teacher looks while it decodes (five long held-out utterances, mean over layers and heads):",
            "",
            markdown_table(result["attention mass"]),
        ]
    return "\n".join([*parts, "", f"Measured on {result['machine']}, {result['date']}."])
