"""Train the teacher: a stock Qwen2 with full attention that speaks after [reference codes | text].

Two of five of its rows, and more than half of its tokens, are streams of several texts (:mod:`recipes.mini.rows`), so
that it can teach a student whose text expires. Cross-entropy on the codes, and a pull on two heads towards the phone
being spoken (the alignment of :mod:`recipes.mini.align`), which makes the text take hold within minutes instead of
hours. A tenth of the codes that it reads, not of those it is to write, are hidden from it: what comes next is then to
be found in the text, and a code of its own that is a little wrong does not lead it astray. A tenth of the rows have
no words, so that what the words change can be told and strengthened (:mod:`recipes.mini.guidance`). Codes that sound
alike share a part of their embeddings (:mod:`recipes.mini.digits`). Matrices are trained with Muon, the rest with
AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from recipes.mini.align import Plan
from recipes.mini.digits import add_digits, embeddings
from recipes.mini.loop import autocast, join, train
from recipes.mini.muon import Muon
from recipes.mini.rows import MAX_GAP, PINNED, ROW_TOKENS, Passes, Row, Speech, collator, row_length, wordless
from recipes.mini.spoken import read
from wandlib.systems.mini.prompt import BEGIN, END, VOCABULARY

BATCH_TOKENS = 2_000
"""Tokens of each process in a step."""
SUPERVISED = {2: 0, 3: 0}
"""Layer -> head that is pulled towards the spoken phone."""
ALIGNMENT_WEIGHT = 0.2
HIDDEN = 0.1
"""Share of the generated codes that training hides in the input, as speech systems with a decoder of frames drop them
(Liu et al., arXiv 1909.01145)."""
WORDLESS = 0.1
"""Share of the rows without words."""
HIDDEN_CODE = VOCABULARY - 1
"""What stands in their place: the token that nothing else uses."""


def build_config() -> Qwen2Config:
    """Return the teacher's architecture: 5.9 million parameters, 12 MB in 16 bits.

    The time that training takes sets the size: a teacher twice as large, which could read half as many tokens
    (Hoffmann et al., arXiv 2203.15556), had the same loss held out as in training: it lacked tokens. This one reads
    all four times.
    """
    return Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=PINNED + MAX_GAP + ROW_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=BEGIN,
        attn_implementation="sdpa",
    )


def build_model(folder: Path | None = None) -> Qwen2ForCausalLM:
    """Make an untrained teacher, as large as the one in ``folder`` where that holds one."""
    if folder is not None and (folder / "teacher" / "config.json").is_file():
        config = Qwen2Config.from_pretrained(folder / "teacher", attn_implementation="sdpa")
        return Qwen2ForCausalLM(config)
    return Qwen2ForCausalLM(build_config())


@dataclass
class Batch:
    """Padded to the right: with a causal mask no real position sees the padding."""

    input_ids: Tensor
    labels: Tensor
    """-100 outside the generated part; labels[t] is what position t predicts."""
    position_ids: Tensor
    attended: Tensor
    """For each position the key that a supervised head should look at, -1 for none."""


def batch_of(
    speech: Speech,
    rows: Sequence[Row],
    max_gap: int = MAX_GAP,
    hidden: float = 0.0,
    without_words: float = 0.0,
    seed: int = 0,
) -> Batch:
    """Collate rows for the teacher: of the generated codes a share is hidden in the input, some rows have no words."""
    generator = torch.Generator().manual_seed(seed)
    bare = torch.rand(len(rows), generator=generator) < without_words
    rows = [wordless(row) if without else row for row, without in zip(rows, bare.tolist(), strict=True)]
    made = collator(max_gap)(rows)
    labels = nn.functional.pad(made["labels"][:, 1:], (0, 1), value=-100)
    generated = (made["labels"] == made["input_ids"]) & (made["labels"] != END)
    drawn = torch.rand(labels.shape, generator=generator)
    input_ids = made["input_ids"].masked_fill(generated & (drawn < hidden), HIDDEN_CODE)
    return Batch(input_ids, labels, made["position_ids"], speech.attended(rows, labels.shape[1]))


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
            with autocast(hidden.device.type):
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


def generated_scores(model: Qwen2ForCausalLM, batch: Batch) -> Tensor:
    """Logits of the generated positions, row by row; those behind them, up to a round number, mean nothing."""
    table = embeddings(model)
    with autocast():
        hidden = model.model(
            inputs_embeds=nn.functional.embedding(batch.input_ids, table),
            position_ids=batch.position_ids,
            # Nothing sees padding on the right. Without a mask, transformers would take a gap for two packed rows.
            attention_mask=torch.ones_like(batch.input_ids),
            use_cache=False,
        ).last_hidden_state
        places = (batch.labels.flatten() >= 0).nonzero().squeeze(-1)
        # Padded with uncounted places: see round_up.
        places = nn.functional.pad(places, (0, round_up(len(places), 512) - len(places)))
        return nn.functional.linear(hidden.flatten(0, 1)[places], table).float()


def cross_entropy(model: Qwen2ForCausalLM, batch: Batch) -> Tensor:
    """Mean over the generated positions; logits exist for those alone."""
    scores, labels = generated_scores(model, batch), batch.labels[batch.labels >= 0]
    labels = nn.functional.pad(labels, (0, len(scores) - len(labels)), value=-100)
    return nn.functional.cross_entropy(scores, labels)


def optimizers_for(model: nn.Module, muon: float = 3e-3, adamw: float = 2e-3) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, norms and biases."""
    matrices = [v for n, v in model.named_parameters() if v.ndim == 2 and "embed" not in n and "lm_head" not in n]
    chosen = {id(value) for value in matrices}
    others = [value for value in model.parameters() if id(value) not in chosen]
    return [
        Muon(matrices, lr=muon, weight_decay=0.3),
        torch.optim.AdamW(others, lr=adamw, betas=(0.9, 0.95), weight_decay=0.1),
    ]


def run(folder: Path, corpus: Path, speed: float = 1.0) -> Qwen2ForCausalLM:
    """Train the teacher, or go on where ``folder/teacher.pt`` stands; torchrun's processes share the work.

    It ends when everything has been read :data:`~recipes.mini.rows.PASSES` times.
    """
    world, rank = join()
    torch.manual_seed(0)
    speech, unheard = map(Speech, read(corpus))
    model = build_model(folder)
    add_digits(model)
    if world > 1:
        torch.distributed.barrier()  # nobody reads the file while it is being written
    if rank == 0:
        model.config.save_pretrained(folder / "teacher")
    pull = HeadPull(model)
    passes = Passes(speech, BATCH_TOKENS)

    def step(number: int) -> dict[str, Tensor]:
        place = number * world + rank
        batch = batch_of(speech, passes[place], hidden=HIDDEN, without_words=WORDLESS, seed=place)
        ce = cross_entropy(model, batch)
        pulled = pull.loss(batch.attended)
        return {"loss": ce + ALIGNMENT_WEIGHT * pulled, "ce": ce, "pull": pulled}

    rows = unheard.rows(0)
    kinds = {
        "ce": [row for row in rows if len(row["blocks"]) == 1],
        "stream_ce": [row for row in rows if len(row["blocks"]) > 1],
    }

    def validate() -> dict[str, float]:
        return {name: held_out_loss(model, unheard, chosen) for name, chosen in kinds.items() if chosen}

    train(
        "teacher", folder, model, optimizers_for(model), step, max(2, round(len(passes) // world / speed)), validate,
        warm_up=50, hold=0.3, every=100, decay=0.998,
    )  # fmt: skip
    return model.eval()


def held_out_loss(model: Qwen2ForCausalLM, speech: Speech, rows: Sequence[Row], max_gap: int = 0) -> float:
    """Cross-entropy in nats a code over all rows."""
    total, count = 0.0, 0
    for numbers in Plan([row_length(row) for row in rows], BATCH_TOKENS).batches:
        batch = batch_of(speech, [rows[number] for number in numbers], max_gap)
        weight = int((batch.labels >= 0).sum())
        total, count = total + weight * float(cross_entropy(model, batch)), count + weight
    return total / count
