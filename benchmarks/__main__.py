"""``python -m benchmarks``: measure, print, and with ``--write`` keep."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated, Any

import torch
import transformers
import typer

from benchmarks.cuda import cuda
from benchmarks.distillation import distillation
from benchmarks.endless import endless
from benchmarks.figure import save, step_times
from benchmarks.report import README, RESULTS, Result, file_name, machine, report, stored_reports
from benchmarks.suite import BENCHMARKS, Settings
from benchmarks.texts import texts
from wandlib.evaluation.report import put_measured

CPU = BENCHMARKS | {"distillation": distillation}
APART = {"endless": endless, "texts": texts}
"""Not part of a whole run, and kept by themselves."""
ALL = CPU | {"cuda": cuda} | APART


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(ALL)}; may be given more than once.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Tiny models, short decodes: does it run? The numbers mean nothing.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads of torch; default: its own choice.")] = None,
    write: Annotated[bool, typer.Option(help="Keep the numbers: results/, README.md.")] = False,
) -> None:
    """Measure what a decoding step costs with full attention and with the window."""
    apart = only[0] if only and len(only) == 1 and only[0] in APART else ""
    if write and (quick or (only and not apart)):
        raise typer.BadParameter(
            f"--write keeps whole runs, or {' or '.join(APART)} alone: leave out --quick and other --only"
        )
    names = only or (["cuda"] if device.startswith("cuda") else list(CPU))
    for name in names:
        if name not in ALL:
            raise typer.BadParameter(f"no benchmark {name!r}; there are {', '.join(ALL)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter(f"--device {device}: torch {torch.__version__} finds no GPU here")
    if write:
        put_measured(README.read_text(encoding="utf-8"), "")  # better before than after ten minutes
    if threads is not None:
        torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    result = run(names, Settings(device, quick)) | ({"part": apart} if apart else {})
    print(report(result))
    if write:
        keep(result)


def run(names: list[str], settings: Settings) -> dict[str, Any]:
    """Run benchmarks one after the other and return everything measured."""
    start, whole = time.perf_counter(), Result()
    for name in names:
        begun = time.perf_counter()
        result = ALL[name](settings)
        whole.rows += result.rows
        whole.sweeps += result.sweeps
        typer.echo(f"{name}: {time.perf_counter() - begun:.0f} s", err=True)
    return {
        "machine": machine(settings.device),
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "minutes": (time.perf_counter() - start) / 60,
        "rows": [asdict(row) for row in whole.rows],
        "sweeps": [sweep.to_json() for sweep in whole.sweeps],
    }


def keep(result: dict[str, Any]) -> None:
    """Write a result, its figure, and the README's tables."""
    RESULTS.mkdir(exist_ok=True)
    name = file_name(f"{result['machine']} {result.get('part', '')}")
    if "part" not in result:
        result["figure"] = f"{name}.svg"
        (sweep,) = [sweep for sweep in result["sweeps"] if sweep["title"].endswith("bf16, batch 16")]
        save(step_times(sweep), RESULTS / result["figure"])
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    README.write_text(put_measured(README.read_text(encoding="utf-8"), stored_reports()), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
