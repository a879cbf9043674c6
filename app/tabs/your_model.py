"""Your model: what is loaded, what its cache takes as speech gets longer, and how to load another."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
import torch

from app.results import percent, size
from app.stage import Stage
from wandlib.attention.models import inner_model
from wandlib.profiling.estimate import cache_bytes
from wandlib.systems.registry import SYSTEMS, TRAINING, training_of

MINUTES = (1 / 6, 1, 10, 60)
PROMPT = 200
"""Tokens of text and reference, for the table."""
COMMAND = """```sh
python -m app --system sparktts --checkpoint path/to/its/folder --device cuda
python -m app --checkpoint runs/mine          # the embedded voice's system, with weights of your own
```"""


def build(stage: Stage) -> None:
    """Build the tab for any speech system."""
    gr.HTML(describe(stage), elem_id="model")
    gr.Markdown(
        f"Show another one: {', '.join(f'`{name}`' for name in SYSTEMS)} load their published checkpoints, `mini` and "
        "`cosyvoice2` with the student that lies in `student/` beside the teacher, if there is one. Every tab then "
        "speaks with it; the blind test needs a voice that is built in.\n"
        f"{COMMAND}\nA system that is none of these is a class with one method: `docs/extending.md`."
    )


def describe(stage: Stage) -> str:
    """Return what is known of the loaded system, as HTML."""
    system = stage.system
    student = "a student's own weights" if stage.untrained is not None else "the same weights as full attention"
    facts = [
        ("system", system.name),
        ("checkpoint", stage.checkpoint or "shipped with the code"),
        ("window", f"W = {system.window} codes, {system.window / system.codes_per_second:.2f} s; {student}"),
        ("codes", f"{system.codes_per_second:g} a second; sound at {system.sample_rate:,} Hz"),
        ("speakers", ", ".join(system.speakers) or "none built in: give a recording"),
    ]
    if system.name in TRAINING:
        facts.append(("license of the weights", " ".join(training_of(system.name).base.terms.split())))
    model: Any = getattr(system, "models", {}).get("full")
    table = ""
    if model is not None:
        count = sum(parameter.numel() for parameter in model.parameters())
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        facts.append(
            (
                "decoder",
                f"{type(model).__name__}, {count / 1e6:,.1f} million parameters, {size(weights)}, on {model.device}",
            )
        )
        table = growth(inner_model(model).config, system.codes_per_second, system.window, model.dtype)
    rows = "".join(f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    return f"<div class='scroll'><table><tbody>{rows}</tbody></table></div>{table}"


def growth(config: Any, codes_per_second: float, window: int, dtype: torch.dtype) -> str:
    """Return a table of both caches after a while, computed from the configuration."""
    rows = []
    for minutes in MINUTES:
        steps = round(60 * minutes * codes_per_second)
        full = cache_bytes(config, conditioning=PROMPT, generated=steps, dtype=dtype)
        kept = cache_bytes(config, conditioning=PROMPT, generated=steps, window=window, dtype=dtype)
        name = f"{60 * minutes:.0f} s" if minutes < 1 else f"{minutes:.0f} min"
        rows.append(
            f"<tr><th scope='row'>{name}</th><td>{size(full)}</td><td>{size(kept)}</td>"
            f"<td>{percent(full, kept)}</td></tr>"
        )
    return (
        f"<p class='memory'>Cache after so much speech in one piece, with {PROMPT} tokens of text and reference. "
        "Computed from the configuration, not measured.</p><div class='scroll'><table><thead><tr>"
        "<th scope='col'>speech</th><th scope='col'>full attention</th><th scope='col'>window</th>"
        "<th scope='col'>difference</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
