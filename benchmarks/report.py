"""Results: rows with their targets, as JSON, and as the tables of ``README.md``."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.sweep import FLOOR, Sweep
from wandlib.evaluation.report import markdown_table
from wandlib.profiling.measure import processor

HERE = Path(__file__).parent
README = HERE / "README.md"
RESULTS = HERE / "results"
COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Row:
    """One number and its target."""

    where: str
    what: str
    value: float
    target: str = ""
    """Target like ">= 1.5"; empty: none."""

    @property
    def verdict(self) -> str:
        """Whether the target is met; empty where there is none."""
        if not self.target:
            return ""
        sign, bound = self.target.split()
        return "met" if COMPARE[sign](self.value, float(bound)) else "**missed**"


@dataclass
class Result:
    """Rows and sweeps of a benchmark."""

    rows: list[Row] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)


def machine(device: str) -> str:
    """Return the name of the GPU, or of the processor with its number of threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


def file_name(machine: str) -> str:
    """Return the machine's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def sweep_table(sweep: dict[str, Any]) -> str:
    """Format the milliseconds of a step by baseline and place."""
    rows: list[dict[str, Any]] = [
        {"ms a step after": name}
        | {f"{place:g} s": f"{taken:.2f}" for place, taken in zip(sweep["seconds"], row, strict=True)}
        for name, row in sweep["milliseconds"].items()
    ]
    rows.append({"ms a step after": FLOOR} | {f"{place:g} s": f"{sweep[FLOOR]:.2f}" for place in sweep["seconds"]})
    return f"{sweep['title']}:\n\n{markdown_table(rows)}"


def report(result: dict[str, Any]) -> str:
    """Format one machine's result as markdown."""
    rows = [Row(**row) for row in result["rows"]]
    part = f": {result['part']}" if "part" in result else ""
    head = f"### {result['machine']}{part}\n\ntorch {result['torch']}, transformers {result['transformers']}, "
    targets = [
        {"where": row.where, "what": row.what, "measured": row.value, "target": row.target, "": row.verdict}
        for row in rows
    ]
    head += f"{result['date']}, {result['minutes']:.0f} minutes. {result.get('note', '')}"
    parts = [head.rstrip(), markdown_table(targets), *map(sweep_table, result["sweeps"])]
    if "figure" in result:
        parts.insert(1, f"![Milliseconds of a step over seconds of speech, batch 16.](results/{result['figure']})")
    return "\n\n".join(parts)


def stored_reports() -> str:
    """Format the results of all machines, as the README has them."""
    files = sorted(RESULTS.glob("*.json"))
    reports = [report(json.loads(file.read_text(encoding="utf-8"))) for file in files]
    return "\n\n".join(reports) or "Nothing yet."
