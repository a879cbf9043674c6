"""Memory of a distillation step, computed without any: the student runs on tensors that have shapes and no numbers.

::

    peak = weights + teacher + optimizer + max(activations + logits, gradients)

Gradients come into being while activations go, so that at no time all of both exist; where those of several batches are
accumulated, all of them exist beside the activations of the next, and the two are added. What autograd keeps for the
backward pass is counted storage by storage (copies of weights in 16 bits under autocast included), in a forward pass
under ``FakeTensorMode`` of the very model: whatever its layers are, no formula for them is assumed. Logits exist for
``chunk`` positions at once, in float32. The CUDA context and what the allocator keeps in reserve are not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from wandlib.attention.checks import check_number
from wandlib.attention.models import inner_model

LOGITS = 8
"""Float32 tensors of logits that exist at once, where the skew loss is computed again in the backward pass: logits and
log-probabilities of both models, what mixture and divergence are made of. Fitted to runs: a test states how well.
"""
STATES = 2
"""AdamW's float32 states for each weight that is trained."""


@dataclass(frozen=True)
class TrainingMemory:
    """What a step takes, in bytes."""

    weights: int
    """The student's."""
    teacher: int
    """The second model's; 0 where the student is its own teacher (LoRA)."""
    gradients: int
    """Gradients of the weights that are trained."""
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """What the backward pass of the student reads, the weights themselves apart."""
    logits: int
    """Logits of a chunk of positions."""
    accumulates: bool = False
    """Whether gradients are there already when the next batch is computed."""

    @property
    def peak(self) -> int:
        """The most that exists at once."""
        passing = self.activations + self.logits
        changing = passing + self.gradients if self.accumulates else max(passing, self.gradients)
        return self.weights + self.teacher + self.optimizer + changing


def training_memory(
    build: Callable[[], nn.Module],
    *,
    batch: SupportsIndex | float,
    length: SupportsIndex | float,
    adapt: Callable[[nn.Module], nn.Module] | None = None,
    bf16: bool = False,
    chunk: SupportsIndex | float = 512,
    accumulate: SupportsIndex | float = 1,
) -> TrainingMemory:
    """Compute the memory of a distillation step with AdamW, weights in float32.

    Parameters
    ----------
    build
        Makes the student. It is called where tensors have no numbers.
    batch, length
        Utterances in a batch, and the tokens of the longest one, prompt and speech.
    adapt
        Puts adapters around a model, which are then trained alone, and the model is its own teacher. Activations are
        counted without them: they keep what the layers would keep that they are around, and little more.
    bf16
        Whether the passes run under autocast in bfloat16.
    chunk
        Positions whose logits exist at once, as in :class:`~wandlib.WandTrainingArguments`.
    accumulate
        Batches whose gradients make one step (``gradient_accumulation_steps``).

    Raises
    ------
    ValueError
        If batch, length, chunk or accumulate is not a whole number, or below 1.
    """
    batch, length = check_number("batch", batch, 1), check_number("length, in tokens,", length, 1)
    chunk, accumulate = check_number("chunk, in positions,", chunk, 1), check_number("accumulate", accumulate, 1)
    trained = added = 0
    if adapt is not None:
        with torch.device("meta"):
            trained = added = sum(weight.numel() for weight in adapt(build()).parameters() if weight.requires_grad)
    with FakeTensorMode(allow_non_fake_inputs=True):
        student = build().train()
        weights = list(student.parameters())
        count = sum(weight.numel() for weight in weights)
        if adapt is None:
            trained = sum(weight.numel() for weight in weights if weight.requires_grad)
        base: Any = inner_model(student)
        vocabulary = base.get_output_embeddings().weight.shape[0]
        activations = kept_bytes(student, batch, length, bf16)
    return TrainingMemory(
        weights=4 * (count + added),
        teacher=4 * count if adapt is None else 0,
        gradients=4 * trained,
        optimizer=4 * STATES * trained,
        activations=activations,
        logits=LOGITS * 4 * min(chunk, batch * length) * vocabulary,
        accumulates=accumulate > 1,
    )


def kept_bytes(student: nn.Module, batch: int, length: int, bf16: bool) -> int:
    """Return the bytes that autograd keeps of one forward pass up to the head, under a mask as training has it."""
    own = {tensor.untyped_storage()._cdata for tensor in [*student.parameters(), *student.buffers()]}
    kept = dict[int, int]()
    alive = list[Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in kept:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # an address that is free again could be another tensor's
        return tensor

    for module in student.modules():  # kernels of GPUs draw it again in the backward pass, and keep no probabilities
        if isinstance(getattr(module, "attn_dropout", None), nn.Dropout):
            module.attn_dropout.p = 0.0  # type: ignore[union-attr]
    base: Any = inner_model(student)
    embedded = torch.zeros(batch, length, base.config.get_text_config(decoder=True).hidden_size)
    embedded.requires_grad_(any(weight.requires_grad for weight in base.get_input_embeddings().parameters()))
    mask = torch.zeros(batch, 1, length, length)
    autocast: Any = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        output = base.get_decoder()(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
    kept[-1] = output.last_hidden_state.untyped_storage().nbytes()
    return sum(kept.values())
