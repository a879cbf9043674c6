"""Train the teacher: a stock Qwen2 with full attention that speaks after [reference codes | text].

Cross-entropy on the codes, and a pull on two heads towards the phone being spoken (the alignment of
:mod:`recipes.mini.align`), which makes the text take hold within minutes instead of hours. Matrices are trained
with Muon, the rest with AdamW.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from recipes.mini import align, analysis
from recipes.mini.align import Plan
from recipes.mini.loop import join, train
from wandlib.systems.mini.prompt import BEGIN, END, FIRST_CODE, VOCABULARY, prompt

REFERENCE = 75
"""Codes of the reference: 3 s."""
BATCH_TOKENS = 6_000
HELD_OUT_UTTERANCES = 200
SUPERVISED = {2: 0, 3: 0}
"""Layer -> head that is pulled towards the spoken phone."""
ALIGNMENT_WEIGHT = 0.2


def build_model() -> Qwen2ForCausalLM:
    """Make the untrained teacher."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=BEGIN,
        attn_implementation="sdpa",
    )
    return Qwen2ForCausalLM(config)


@dataclass
class Example:
    """One utterance as the teacher learns it."""

    symbols: list[int]
    codes: NDArray[np.int64]
    positions: NDArray[np.int16]
    """For each code, which symbol is spoken; empty where unknown."""
    speaker: str


@dataclass
class Batch:
    """Padded to the right: with a causal mask no real position sees the padding."""

    input_ids: Tensor
    labels: Tensor
    """-100 outside the generated part; labels[t] is what position t predicts."""
    attended: Tensor
    """For each position the key that a supervised head should look at, -1 for none."""


class Examples:
    """Utterances by number, each with a random reference of its speaker."""

    def __init__(self, examples: list[Example]) -> None:
        known = {example.speaker for example in examples if len(example.codes) >= REFERENCE}
        self.examples = [example for example in examples if example.speaker in known]
        if not self.examples:
            raise ValueError(f"no utterance of {REFERENCE} codes or more: there is nothing to take a reference from")
        self.by_speaker: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(self.examples):
            if len(example.codes) >= REFERENCE:
                self.by_speaker[example.speaker].append(index)
        self.lengths = [REFERENCE + len(e.symbols) + len(e.codes) + 4 for e in self.examples]

    def batch(self, indices: list[int], seed: int) -> Batch:
        rng = random.Random(seed)
        longest = round_up(max(self.lengths[i] for i in indices), 32)
        input_ids = torch.full((len(indices), longest), END)
        labels = torch.full((len(indices), longest), -100)
        attended = torch.full((len(indices), longest), -1)
        for row, index in enumerate(indices):
            example = self.examples[index]
            other = self.examples[rng.choice(self.by_speaker[example.speaker])].codes
            start = rng.randrange(len(other) - REFERENCE + 1)
            head = prompt(other[start : start + REFERENCE].tolist(), example.symbols)
            codes = torch.from_numpy(example.codes) + FIRST_CODE
            count, first = len(codes), len(head) - 1
            input_ids[row, : len(head)] = torch.tensor(head)
            input_ids[row, len(head) : len(head) + count] = codes
            labels[row, first : first + count] = codes
            labels[row, first + count] = END
            if len(example.positions):
                text = REFERENCE + 2
                attended[row, first : first + count] = torch.from_numpy(example.positions.astype(np.int64)) + text
                attended[row, first + count] = text + len(example.symbols) - 1
        return Batch(input_ids, labels, attended)


def round_up(length: int, multiple: int) -> int:
    """Round up to a multiple: matrix kernels are built and kept for each shape, so there should be few shapes.

    Without it, memory grew by 200 MB a minute.
    """
    return -(-length // multiple) * multiple


class HeadPull:
    """Cross-entropy of a head's attention against the key it should look at, summed over the supervised layers.

    It recomputes queries and keys of one head from the layer's input, so the model's own attention stays the fused one.
    """

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        self.inputs: dict[int, tuple[Tensor, tuple[Tensor, Tensor]]] = {}
        self.model = model
        for layer in SUPERVISED:
            model.model.layers[layer].self_attn.register_forward_pre_hook(self._keep(layer), with_kwargs=True)

    def _keep(self, layer: int):  # type: ignore[no-untyped-def]  # the signature is torch's
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self.inputs[layer] = (kwargs["hidden_states"], kwargs["position_embeddings"])

        return hook

    def loss(self, attended: Tensor) -> Tensor:
        rows, places = (attended >= 0).nonzero(as_tuple=True)
        total = torch.zeros(())
        if not len(rows):  # nothing in the batch could be aligned
            return total
        for layer, head in SUPERVISED.items():
            hidden, (cosine, sine) = self.inputs[layer]
            attention = self.model.model.layers[layer].self_attn
            size, group = attention.head_dim, head // attention.num_key_value_groups
            with torch.autocast(hidden.device.type, torch.bfloat16):
                query = nn.functional.linear(hidden, *_head(attention.q_proj, head, size))
                key = nn.functional.linear(hidden, *_head(attention.k_proj, group, size))
            query, key = apply_rotary_pos_emb(query.unsqueeze(1), key.unsqueeze(1), cosine, sine)
            scores = (query @ key.transpose(-1, -2)).squeeze(1).float() * attention.scaling
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(ahead, -torch.inf)
            total = total + nn.functional.cross_entropy(scores[rows, places], attended[rows, places])
        return total / len(SUPERVISED)


def _head(linear: nn.Linear, head: int, size: int) -> tuple[Tensor, Tensor | None]:
    part = slice(head * size, (head + 1) * size)
    return linear.weight[part], None if linear.bias is None else linear.bias[part]


def cross_entropy(model: Qwen2ForCausalLM, batch: Batch) -> Tensor:
    """Mean over the generated positions; logits exist for those alone."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        places = (batch.labels.flatten() >= 0).nonzero().squeeze(-1)
        # Padded with uncounted places: see round_up.
        places = nn.functional.pad(places, (0, round_up(len(places), 512) - len(places)), value=-1)
        logits = model.lm_head(hidden.flatten(0, 1)[places])
    labels = torch.where(places >= 0, batch.labels.flatten()[places], -100)
    return nn.functional.cross_entropy(logits.float(), labels)


def optimizers_for(model: nn.Module, muon: float = 3e-3, adamw: float = 2e-3) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, norms and biases."""
    matrices = [v for n, v in model.named_parameters() if v.ndim == 2 and "embed" not in n and "lm_head" not in n]
    chosen = {id(value) for value in matrices}
    others = [value for value in model.parameters() if id(value) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=muon, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=adamw, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def read_examples(folder: Path, corpus: Path) -> list[Example]:
    """Every utterance with codes, symbols and alignment."""
    items, symbols = analysis.read(corpus), align.phones(corpus)
    positions = align.align_corpus(folder, corpus)
    stored = np.load(corpus / "codes.npz")
    codes = np.split(stored["codes"].astype(np.int64), stored["ends"][:-1])
    return [Example(s, c, p, i.utterance.speaker) for i, s, c, p in zip(items, symbols, codes, positions, strict=True)]


def run(folder: Path, corpus: Path, total_steps: int = 4_000, seconds: float | None = None) -> Qwen2ForCausalLM:
    """Train the teacher, or go on where ``folder/teacher.pt`` stands; torchrun's processes share the work."""
    world, rank = join()
    torch.manual_seed(0)
    everything = read_examples(folder, corpus)
    training, validation = Examples(everything[HELD_OUT_UTTERANCES:]), Examples(everything[:HELD_OUT_UTTERANCES])
    model = build_model()
    pull = HeadPull(model)
    plan = Plan(training.lengths, BATCH_TOKENS)

    def step(number: int) -> dict[str, Tensor]:
        place = number * world + rank
        batch = training.batch(plan[place], place)
        ce = cross_entropy(model, batch)
        pulled = pull.loss(batch.attended)
        return {"loss": ce + ALIGNMENT_WEIGHT * pulled, "ce": ce, "pull": pulled}

    held_out = [validation.batch(indices, 10_000_000) for indices in Plan(validation.lengths, BATCH_TOKENS).batches]

    def validate() -> dict[str, float]:
        weights = [int((batch.labels >= 0).sum()) for batch in held_out]
        rows = [(float(cross_entropy(model, batch)), float(pull.loss(batch.attended))) for batch in held_out]
        total = sum(weights)
        return {
            "ce": sum(w * row[0] for w, row in zip(weights, rows, strict=True)) / total,
            "pull": sum(w * row[1] for w, row in zip(weights, rows, strict=True)) / total,
        }

    train(
        "teacher", folder, model, optimizers_for(model), step, total_steps, validate,
        warm_up=50, hold=0.3, every=100, decay=0.998, seconds=seconds,
    )  # fmt: skip
    return model.eval()
