"""What an evaluation found: every utterance as it was measured, tables of them, and differences between conditions.

Intervals are bootstraps over sentences, not utterances: the same sentence by other speakers and seeds is no new
evidence of how other sentences fare. They say nothing about other speakers. Of few sentences, or where none has an
error, there is none (see :func:`wandlib.evaluation.error_rates.bootstrap`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wandlib.evaluation.error_rates import ErrorCounts, Interval, bootstrap
from wandlib.evaluation.failures import KINDS, Failure

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


Measured = dict[tuple[str, str, int], tuple[float, float]]
"""Value and weight of a metric by text, speaker and seed."""


@dataclass(frozen=True)
class Utterance:
    """One sentence of one speaker under one condition, and its measurements."""

    condition: str
    """The attention, "full" or "window W", after the name that the evaluation was given."""
    text: str
    speaker: str
    seed: int
    heard: str | None
    errors: ErrorCounts | None
    """Both None without a recognizer."""
    similarity: float | None
    """To the speaker's reference; None where it could not be measured."""
    scores: dict[str, float]
    """Of the MOS predictors."""
    failures: list[Failure]
    seconds: float
    """Of sound."""
    median_ms: float
    """Wall time of a step, in milliseconds."""
    cache_bytes: int
    """At the end."""
    real_time_factor: float


@dataclass
class Report:
    """All utterances of one or more evaluations.

    Attributes
    ----------
    instruments
        What listened: names by role.
    utterances
        In the order in which they were spoken.
    unavailable
        What could not be measured, and why.
    """

    instruments: dict[str, str]
    utterances: list[Utterance] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def conditions(self) -> list[str]:
        """Their names, in the order in which they came."""
        return list(dict.fromkeys(utterance.condition for utterance in self.utterances))

    @property
    def metrics(self) -> list[str]:
        """Names of what every condition was measured by."""
        rates = ["WER", "CER"] if any(utterance.errors is not None for utterance in self.utterances) else []
        similar = ["similarity"] if any(utterance.similarity is not None for utterance in self.utterances) else []
        scores = dict.fromkeys(name for utterance in self.utterances for name in utterance.scores)
        return [*rates, *similar, *scores]

    def interval(self, metric: str, condition: str, speaker: str | None = None) -> Interval:
        """Return a metric of one condition, of all speakers or one, with its 95 % interval over sentences.

        Raises
        ------
        ValueError
            For a metric, condition or speaker that was not measured.
        """
        return _bootstrap(self._known(metric, condition, speaker))

    def difference(self, metric: str, condition: str, baseline: str) -> Interval:
        """How much more a metric is under ``condition`` than under ``baseline``, on the same utterances.

        An interval that holds 0 shows no difference. Paired: what is hard for both cancels, so that this sees smaller
        differences than two intervals side by side. NaN where no utterance has a value under both: what made no sound
        has no score.

        Raises
        ------
        ValueError
            For what was not measured, or where the two did not speak the same.
        """
        for name in (condition, baseline):
            self._known(metric, name)
        return _bootstrap(self._apart(metric, condition, baseline))

    def _apart(self, metric: str, condition: str, baseline: str) -> Measured:
        """Return the differences of the utterances that have a value under both."""
        if self._spoken(condition) != self._spoken(baseline):
            raise ValueError(f"{condition!r} and {baseline!r} are not of the same sentences, speakers and seeds")
        one, other = self._measured(metric, condition), self._measured(metric, baseline)
        return {key: (one[key][0] - other[key][0], one[key][1]) for key in one if key in other}

    def _spoken(self, condition: str) -> set[tuple[str, str, int]]:
        return {(row.text, row.speaker, row.seed) for row in self.utterances if row.condition == condition}

    def _measured(self, metric: str, condition: str, speaker: str | None = None) -> Measured:
        """Value and weight of every utterance, by text, speaker and seed."""
        found = {}
        for row in self.utterances:
            if row.condition == condition and speaker in (None, row.speaker):
                errors = row.errors
                value: float | None = None
                weight = 1
                if metric in ("WER", "CER"):
                    if errors is not None and metric == "WER":
                        value, weight = errors.word_errors, errors.words
                    elif errors is not None:
                        value, weight = errors.character_errors, errors.characters
                else:
                    value = row.similarity if metric == "similarity" else row.scores.get(metric)
                if value is not None:
                    found[row.text, row.speaker, row.seed] = (float(value), float(weight))
        return found

    def _known(self, metric: str, condition: str, speaker: str | None = None) -> Measured:
        """Return the same, refusing what was not measured."""
        found = self._measured(metric, condition, speaker)
        if not found:
            of = "" if speaker is None else f" of speaker {speaker!r}"
            raise ValueError(
                f"no {metric!r}{of} under {condition!r}: measured are {', '.join(self.metrics)} under "
                f"{', '.join(self.conditions)}"
            )
        return found

    def differences(self, baseline: str) -> pd.DataFrame:
        """How every other condition differs from ``baseline``, a row for each: see :meth:`difference`.

        Raises
        ------
        ValueError
            Where one of them did not speak the same.
        """
        import pandas as pd

        def apart(metric: str, condition: str) -> str:
            found, spoken = self._apart(metric, condition, baseline), len(self._spoken(condition))
            return f"{_bootstrap(found)}" + (f" (of {len(found)} alone)" if 0 < len(found) < spoken else "")

        return pd.DataFrame(
            {"condition": f"{condition} - {baseline}"} | {metric: apart(metric, condition) for metric in self.metrics}
            for condition in self.conditions
            if condition != baseline
        )

    def table(self, *, by_speaker: bool = False) -> pd.DataFrame:
        """Return a row for each condition (and speaker): metrics with 95 % intervals, failures and costs.

        Failures are numbers of utterances. Costs are medians over utterances: wall time of a step in ms, the cache at
        the end in kB (1000 bytes), time to compute over length of the sound.
        """
        import pandas as pd

        speakers: list[str | None] = [None]
        if by_speaker:
            speakers = list(dict.fromkeys(utterance.speaker for utterance in self.utterances))
        lines = []
        for condition in self.conditions:
            for speaker in speakers:
                rows = [u for u in self.utterances if u.condition == condition and speaker in (None, u.speaker)]
                if not rows:
                    continue
                line: dict[str, Any] = {"condition": condition} | ({"speaker": speaker} if by_speaker else {})
                line["utterances"] = len(rows)
                for metric in self.metrics:
                    found = self._measured(metric, condition, speaker)
                    measured = _bootstrap(found)
                    line[metric] = measured.value
                    line[f"{metric}, 95 %"] = (
                        "" if math.isnan(measured.low) else f"{measured.low:.3f} to {measured.high:.3f}"
                    )
                    if len(found) < len(rows):  # what made no sound has no score
                        line[f"{metric}, 95 %"] += f" (of {len(found)} alone)"
                line |= {kind: sum(kind in row.failures for row in rows) for kind in KINDS}
                line["ms a step"] = float(np.median([row.median_ms for row in rows]))
                line["cache, kB"] = float(np.median([row.cache_bytes for row in rows])) / 1e3
                line["real-time factor"] = float(np.median([row.real_time_factor for row in rows]))
                lines.append(line)
        return pd.DataFrame(lines)

    def markdown(self, *, by_speaker: bool = False) -> str:
        """Return the table as markdown, and below it the instruments and what could not be measured."""
        lines = [markdown_table(self.table(by_speaker=by_speaker)), ""]
        lines.append(", ".join(f"{role}: {name}" for role, name in self.instruments.items()) + ".")
        lines += [f"Not measured: {name} ({reason})." for name, reason in self.unavailable.items()]
        return "\n".join(lines)

    def to_json(self, path: str | Path | None = None) -> str:
        """Every utterance as JSON; also written to ``path`` if given. :meth:`from_json` reads it."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | Path) -> Report:
        """Return the report that :meth:`to_json` wrote to ``path``."""
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [
            Utterance(**row | {"errors": row["errors"] and ErrorCounts(**row["errors"])})
            for row in stored.pop("utterances")
        ]
        return cls(utterances=rows, **stored)

    def __add__(self, other: Report) -> Report:
        """Both, so that their conditions can be compared.

        Raises
        ------
        ValueError
            Where other instruments listened, or both have a condition of the same name.
        """
        ours, theirs = (
            {role: name for role, name in one.instruments.items() if role != "system"} for one in (self, other)
        )
        if ours != theirs:
            raise ValueError(f"measured by {ours} and by {theirs}: these do not compare")
        systems = [one.instruments["system"] for one in (self, other) if "system" in one.instruments]
        spoke = {"system": ", ".join(dict.fromkeys(systems))} if systems else {}
        twice = set(self.conditions) & set(other.conditions)
        if twice:
            raise ValueError(f"both have {sorted(twice)}: give evaluate() a name for each")
        return Report(spoke | ours, self.utterances + other.utterances, self.unavailable | other.unavailable)


def _bootstrap(measured: Measured) -> Interval:
    """Return the interval over sentences; NaN where none of these made a sound."""
    if not measured:
        return Interval(math.nan, math.nan, math.nan)
    values, weights = zip(*measured.values(), strict=True)
    return bootstrap(values, weights, [text for text, _, _ in measured])


def markdown_table(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> str:
    """Rows, all with the same columns, as a markdown table: numbers with a fraction to three places, NaN empty."""
    records = rows if isinstance(rows, Sequence) else rows.to_dict("records")

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.3f}"
        return str(value)

    columns = list(records[0])
    lines = [columns, ["---"] * len(columns), *([cell(row[column]) for column in columns] for row in records)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def put_measured(text: str, block: str) -> str:
    """``text`` with what stands between ``<!-- measured -->`` and ``<!-- end of measured -->`` replaced.

    Raises
    ------
    ValueError
        If the marks are not there.
    """
    pattern = re.compile(r"(<!-- measured -->\n).*?(\n<!-- end of measured -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError("no <!-- measured --> ... <!-- end of measured --> in the text")
    return pattern.sub(lambda match: match.group(1) + block + match.group(2), text)
