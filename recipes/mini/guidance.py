"""Strengthen what the words say: the teacher guided by its text, taught to speak so in one pass.

A teacher of this size trusts its own codes more than the text. What the text changes is the difference to what it would
say without words, and going further in that direction makes it clearer (classifier-free guidance, Ho and Salimans,
arXiv 2207.12598), at the cost of two passes a step. So the guided distribution is taught to the teacher itself (Meng et
al., arXiv 2210.03142).
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import Tensor

from recipes.mini.loop import join, train
from recipes.mini.rows import PASSES, PINNED, Passes, Row, Speech, wordless
from recipes.mini.train_student import load_teacher, read_speech
from recipes.mini.train_teacher import BATCH_TOKENS, Batch, Qwen2ForCausalLM, batch_of, generated_scores, optimizers_for
from wandlib.systems.mini.codec import CODES
from wandlib.systems.mini.prompt import FIRST_CODE

WEIGHT = 2.0
"""How far to go on in the direction of the text."""
PLAUSIBLE = 0.1
"""Codes less probable than this times the best one are not said, guided or not."""
STEPS = 300
CODE_TOKENS = slice(FIRST_CODE, FIRST_CODE + CODES)


def guided(scores: Tensor, wordless_scores: Tensor) -> Tensor:
    """Return the log-probabilities to learn, [places, vocabulary], from logits with the text and without.

    Only codes are guided: when to end is as the teacher has it.
    """
    known, blind = scores.log_softmax(-1), wordless_scores.log_softmax(-1)
    codes = known[:, CODE_TOKENS]
    further = codes + WEIGHT * (codes - blind[:, CODE_TOKENS])
    implausible = codes < codes.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
    found = known.clone()
    chosen = further.masked_fill(implausible, -torch.inf).log_softmax(-1)
    found[:, CODE_TOKENS] = chosen + codes.logsumexp(-1, keepdim=True)
    return found


def without_words(speech: Speech, rows: list[Row], full: Batch) -> Batch:
    """Collate the rows without their words, as far from their references as ``full`` has them: words alone differ."""
    bare = batch_of(speech, [wordless(row) for row in rows])
    length = bare.input_ids.shape[1]
    bare.position_ids = torch.arange(length).repeat(len(rows), 1)
    bare.position_ids[:, PINNED:] += full.position_ids[:, PINNED : PINNED + 1] - PINNED
    return bare


def divergence(model: Qwen2ForCausalLM, teacher: Qwen2ForCausalLM, speech: Speech, batch: list[Row]) -> Tensor:
    """Mean KL divergence of the model from the guided teacher, nats a code."""
    full = batch_of(speech, batch)
    count = int((full.labels >= 0).sum())
    with torch.no_grad():
        bare = generated_scores(teacher, without_words(speech, batch, full))[:count]
        wanted = guided(generated_scores(teacher, full)[:count], bare)
    made = generated_scores(model, full)[:count].log_softmax(-1)
    return (wanted.exp() * (wanted.clamp_min(-100) - made)).sum(-1).mean()  # of what is not to be said, nothing


def run(folder: Path, corpus: Path, speed: float = 1.0) -> Qwen2ForCausalLM:
    """Teach the teacher its guided self, or go on where ``folder/guidance.pt`` stands."""
    world, rank = join()
    torch.manual_seed(0)
    speech, unheard = read_speech(corpus)
    teacher = load_teacher(folder, guided=False).requires_grad_(False)
    model = copy.deepcopy(teacher).requires_grad_(True).train()
    passes = Passes(speech, BATCH_TOKENS, first=PASSES)

    def step(number: int) -> dict[str, Tensor]:
        return {"loss": divergence(model, teacher, speech, passes[number * world + rank])}

    held_out = Passes(unheard, BATCH_TOKENS, passes=1)

    def validate() -> dict[str, float]:
        found = [float(divergence(model, teacher, unheard, held_out[place])) for place in range(min(8, len(held_out)))]
        return {"loss": sum(found) / len(found)}

    train(
        "guidance", folder, model, optimizers_for(model, muon=1e-3, adamw=5e-4), step,
        max(2, min(round(STEPS / speed), len(passes) // world)), validate, warm_up=20, every=50, decay=0.99,
    )  # fmt: skip
    return model.eval()
