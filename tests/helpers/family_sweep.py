"""What becomes of a window in each family of decoders: equal to the dense rule, or refused, and why.

The second path is the unconverted model with the rule put into every softmax of its attention: by scores, so that it
needs neither masks nor caches nor positions of ours, and stock ``generate`` without a cache where there is padding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from families import SLIDING, VOCABULARY, Family, families
from naive import naive_visible
from torch import Tensor
from transformers import DynamicCache

from wandlib import WandCache, convert
from wandlib.attention.models import cache_inputs

WINDOW, PROMPT, STEPS, SAMPLED = 5, 9, 18, 14  # the ring wraps
TOLERANCE = 1e-3
LIMITS = {"moshi": SLIDING}
"""Sliding windows that a model's cache keeps to, and its own pass without a cache does not."""
GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "max_new_tokens": SAMPLED,
    "min_new_tokens": SAMPLED,
    "return_dict_in_generate": True,
    "output_logits": True,
}


@dataclass(frozen=True)
class Verdict:
    """A row of docs/families.md."""

    outcome: str
    """``equal``, ``refused`` (by `convert`), ``not built``, or ``defect``: of the unconverted model itself."""
    reason: str


class Imposed:
    """Puts the rule into every softmax over attention scores while the block runs."""

    NAMES = ("softmax", "logsumexp")

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.layers = limit, 0

    def __enter__(self) -> Imposed:
        self.stock = {(place, name): getattr(place, name) for place in (torch, Tensor) for name in self.NAMES}
        for (place, name), stock in self.stock.items():
            setattr(place, name, self._imposing(stock, name))
        return self

    def __exit__(self, *_: Any) -> None:
        for (place, name), stock in self.stock.items():
            setattr(place, name, stock)

    def _imposing(self, stock: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
        def imposing(scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            time = scores.shape[-2] if scores.ndim >= 3 else 0
            if time >= PROMPT and scores.shape[-1] in (time, time + 1):  # one more: a learned sink
                self.layers += name == "softmax"
                hidden = ~visible(time, self.limit)
                hidden = torch.nn.functional.pad(hidden, (0, scores.shape[-1] - time))
                scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
            return stock(scores, *args, **kwargs)

        return imposing


@cache
def visible(time: int, limit: int | None) -> Tensor:
    """Return the rule over ``PROMPT`` tokens of conditioning and generated ones, [time, time]."""
    conditioning = (torch.arange(time) < PROMPT)[None]
    return naive_visible(conditioning, torch.zeros_like(conditioning), WINDOW, limit)[0]


def distance(got: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, relative to the scale of what is wanted."""
    return float((got - wanted).abs().max() / wanted.abs().max())


def padded(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens with left padding in the second row, and their mask."""
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    padding = getattr(model.config.get_text_config(decoder=True), "pad_token_id", None) or 0
    return ids.masked_fill(mask == 0, padding), mask


class Reference:
    """An unconverted model under the imposed rule, and the facts that make it a fair second path."""

    def __init__(self, model: Any, limit: int | None) -> None:
        self.model, self.limit = model, limit
        torch.manual_seed(5)
        self.ids = torch.randint(2, VOCABULARY, (2, PROMPT + STEPS))
        self.padded_ids, self.mask = padded(model, self.ids)

    def logits(self, ids: Tensor, **inputs: Any) -> Tensor:
        with Imposed(self.limit) as imposed:
            found: Tensor = self.model(ids, use_cache=False, **inputs).logits
        assert imposed.layers >= self.model.config.get_text_config(decoder=True).num_hidden_layers, (
            "a layer got no rule"
        )
        return found

    def greedy(self, ids: Tensor, mask: Tensor) -> Any:
        with Imposed(self.limit):
            return self.model.generate(ids, attention_mask=mask, use_cache=False, **GREEDY)

    def defect(self, usual: Any) -> str | None:
        """Say what is wrong with the unconverted model; None: it is causal, and its cache decodes what one pass says.

        Parameters
        ----------
        usual
            The same model with the attention that is tried, also unconverted.
        """
        full, other = self.model(self.ids, use_cache=False).logits, self.ids.clone()
        other[:, -1] = (other[:, -1] + 1) % 90 + 2
        if distance(self.model(other, use_cache=False).logits[:, :-1], full[:, :-1]) > TOLERANCE:
            return "unconverted, it is not causal"
        held = DynamicCache()  # of growing layers alone, whatever the config says
        parts = self.ids.split([PROMPT] + [1] * STEPS, 1)
        steps = [usual(part, use_cache=True, **cache_inputs(usual, held)).logits for part in parts]
        if distance(torch.cat(steps, 1), full) > TOLERANCE:
            return "unconverted, it decodes other than it scores"
        return None

    def check(self) -> None:
        """See that the window changes something."""
        full = self.model(self.ids, use_cache=False).logits
        assert distance(full, self.logits(self.ids)) > 1e-2, "the window changes nothing here"


def passes(model: Any, reference: Reference) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield ways to run a converted model, each with a function that says how far it is from the dense rule."""
    ids, flags = reference.ids, (torch.arange(PROMPT + STEPS) < PROMPT).expand(2, -1)

    def decode(parts: list[int], **options: Any) -> float:
        held = WandCache(model.config, WINDOW, **options)
        got = [model(part, use_cache=True, **cache_inputs(model, held)).logits for part in ids.split(parts, 1)]
        return distance(torch.cat(got, 1), reference.logits(ids))

    def score() -> float:
        return distance(model(ids, conditioning=flags, use_cache=False).logits, reference.logits(ids))

    def score_padded() -> float:
        inputs, real = {"attention_mask": reference.mask}, reference.mask.bool()
        got = model(reference.padded_ids, conditioning=flags, use_cache=False, **inputs).logits
        return distance(got[real], reference.logits(reference.padded_ids, **inputs)[real])

    def generate(padding: bool, **options: Any) -> float:
        prompt = (reference.padded_ids if padding else ids)[:, :PROMPT]
        mask = (reference.mask if padding else torch.ones_like(ids))[:, :PROMPT]
        wanted, got = reference.greedy(prompt, mask), model.generate(prompt, attention_mask=mask, **GREEDY | options)
        assert torch.equal(got.sequences, wanted.sequences)
        return distance(torch.stack(got.logits, 1), torch.stack(wanted.logits, 1))

    yield "prefill and steps", lambda: decode([PROMPT] + [1] * STEPS)
    yield "chunks", lambda: decode([4, 4, 1, 1, 3] + [1] * (STEPS - 4), conditioning=PROMPT)
    yield "scoring", score
    yield "scoring with padding", score_padded
    yield "generate with padding", lambda: generate(True)
    yield "generate without a cache", lambda: generate(True, use_cache=False)
    yield "generate, prompt in chunks", lambda: generate(False, prefill_chunk_size=4)


def snapshot(model: Any) -> Any:
    """Return everything of a model that a refusal must leave as it was; the weights last."""
    hooks = {name: (len(m._forward_pre_hooks), len(m._forward_hooks)) for name, m in model.named_modules()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    generation = model.generation_config.to_dict() if model.generation_config else None
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return attributes, model.config.to_dict(), generation, hooks, weights


@torch.no_grad()
def judge(family: Family) -> Verdict:
    """Try a window on a family; AssertionError if it is neither equal nor refused."""
    try:
        model = family.build()
    except Exception as error:
        return Verdict("not built", " ".join(f"{type(error).__name__}: {error}".split())[:160])
    if model.generation_config is not None:
        model.generation_config.eos_token_id = None
    reference = Reference(copy.deepcopy(model), LIMITS.get(family.type))
    if model._supports_sdpa:
        model.set_attn_implementation("sdpa")
    usual = copy.deepcopy(model)
    before = snapshot(model)
    try:
        convert(model, WINDOW)
    except ValueError as error:
        after = snapshot(model)
        assert before[:-1] == after[:-1], "a refusal left something behind"
        assert all(torch.equal(value, after[-1][name]) for name, value in before[-1].items())
        return Verdict("refused", str(error))
    full = reference.model(reference.ids, use_cache=False).logits
    if distance(usual(reference.ids, use_cache=False).logits, full) > TOLERANCE:
        for each in (model, usual):
            each.set_attn_implementation("eager")  # Gemma 2's sdpa left out a cap once
    if defect := reference.defect(usual):
        return Verdict("defect", defect)
    reference.check()
    for name, run in passes(model, reference):
        far = run()
        assert far < TOLERANCE, f"{name}: {far:.2g} from the dense rule"
    return Verdict("equal", "")


# ---------------------------------------------------------------------------------------------------------- the table


PAGE = Path(__file__).parents[2] / "docs" / "families.md"
HEAD = f"""# Families of decoders

Every class that transformers registers for causal language modeling, and what `wandlib.convert` makes of it. A tiny
random model of each is decoded and scored under a window of {WINDOW} with `WandCache`, with `generate` (left padding,
no cache, a prompt in chunks) and in one pass with `conditioning=`. *equal*: logits within {TOLERANCE:g} of their scale
of the unconverted model with the rule put into every softmax. *refused*: `convert` raises the error given as the reason
and leaves the model as it was. Where a setting decides, each of its values has a row of its own. No class runs full
attention in silence: what none of this foresees is stopped at the first pass, when a layer has not read its window.

Written by `make families`, checked by `make test-families`; tried with transformers {{version}}.

| model type | class | variant | outcome | reason |
|---|---|---|---|---|
"""
NOTES = """
Moshi's config has a sliding window. Its cache keeps to it, and so does a converted model; the unconverted model does
not in a pass without a cache.
"""


def row(family: Family, verdict: Verdict) -> str:
    """Return the line of the table for a family."""
    reason = verdict.reason.replace("|", "\\|")
    return f"| {family.type} | {family.name} | {family.variant} | {verdict.outcome} | {reason} |"


def documented() -> tuple[str, list[str]]:
    """Return the release of transformers that the page was written with, and its rows."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    version = next(line.split()[-1].rstrip(".") for line in lines if "tried with transformers" in line)
    start = lines.index("|---|---|---|---|---|") + 1
    return version, [line for line in lines[start:] if line.startswith("|")]


CURRENT = transformers.__version__ == documented()[0]
"""Whether the page is of this release; others may come to other verdicts."""


def write() -> None:
    """Write docs/families.md."""
    rows = []
    for family in families():
        rows.append(row(family, judge(family)))
        print(rows[-1], flush=True)  # noqa: T201
    PAGE.write_text(HEAD.format(version=transformers.__version__) + "\n".join(rows) + "\n" + NOTES, encoding="utf-8")


if __name__ == "__main__":
    write()
