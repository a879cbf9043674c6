"""Attention mass: where the unmodified model looks while it decodes, and which window covers it.

For every layer and head, the attention of the generated queries is summed by what they look at: conditioning, or a
generated key at some distance in generated tokens. These sums give, for any W, the columns of the paper's table (arXiv
2604.08558):

    covered(W) = prefix + generated x share(W),    share(W) = mass on the last W generated keys / mass on generated keys

Where conditioning comes in text blocks, its mass is also told apart by block: what is pinned, and the text that began
so many blocks ago; from that follows how many blocks to keep.

Only one T x T map exists at a time: each layer's is reduced as soon as the layer has run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wandlib.attention.checks import check_blocks, check_conditioning
from wandlib.attention.conversion import full_attention
from wandlib.attention.hook import WindowHook
from wandlib.attention.models import attention_modules, base_decoder
from wandlib.attention.window import check_window, packed_utterances, text_blocks, tokens

INPUTS = ("input_ids", "inputs_embeds", "position_ids")
"""What of a batch the model is given as it is."""
USED = (*INPUTS, "conditioning", "attention_mask", "block")
"""What of a batch is looked at."""


@dataclass(frozen=True)
class AttentionMass:
    """Mean attention of the generated queries; for each layer and head it sums to 1 over prefix and distance."""

    prefix: Float[Tensor, "layers heads"]
    """Mass on conditioning."""
    by_distance: Float[Tensor, "layers heads distance"]
    """Mass on the generated key at each distance in generated tokens; 0 is the query's own."""
    windows: tuple[int, ...]
    """Windows of :meth:`table`."""
    by_block: Float[Tensor, "layers heads ages"] | None = None
    """Part of ``prefix`` on the text block that began so many blocks ago, 0: the current one. None: not told apart."""

    @property
    def pinned(self) -> Float[Tensor, "layers heads"]:
        """Mass on conditioning that belongs to no text block; all of it where blocks were not told apart."""
        return self.prefix if self.by_block is None else self.prefix - self.by_block.sum(-1)

    @property
    def generated(self) -> Float[Tensor, "layers heads"]:
        """Mass on generated keys."""
        return self.by_distance.sum(-1)

    def share(self, window: int) -> Float[Tensor, "layers heads"]:
        """Return the share of the mass on generated keys that is on the last ``window``; 1 where there is none."""
        check_window(window)
        inside, generated = self.by_distance[..., :window].sum(-1), self.generated
        return torch.where(generated > 0, inside / generated, 1.0)

    def covered(self, window: int) -> Float[Tensor, "layers heads"]:
        """Return the share of all attention that a window keeps."""
        return self.prefix + self.generated * self.share(window)

    def table(self) -> list[dict[str, float]]:
        """Return the paper's table, a row for each window; masses are averaged over layers and heads, then divided."""
        prefix, generated = float(self.prefix.mean()), float(self.generated.mean())
        rows = []
        for window in self.windows:
            covered = float(self.covered(window).mean())
            share = (covered - prefix) / generated if generated else 1.0
            rows.append(
                {"window": window, "prefix": prefix, "generated": generated, "share": share, "covered": covered}
            )
        return rows


def suggest_window(mass: AttentionMass, coverage: float = 0.9) -> int:
    """Choose the smallest window that keeps ``coverage`` of the attention, on average over layers and heads.

    Raises
    ------
    ValueError
        If ``coverage`` is not between 0 and 1.
    """
    covered = mass.prefix[..., None] + mass.by_distance.cumsum(-1)
    return _smallest(covered.mean((0, 1)), coverage)


def suggest_blocks(mass: AttentionMass, coverage: float = 0.9) -> int:
    """Choose the smallest number of text blocks, the current one included, that keeps ``coverage`` of the attention.

    Chosen with the window unlimited, as the window is with the blocks: together they keep at least ``2 coverage - 1``.

    Raises
    ------
    ValueError
        If ``coverage`` is not between 0 and 1, or ``mass`` does not tell text blocks apart.
    """
    if mass.by_block is None or not mass.by_block.shape[-1]:
        raise ValueError("this attention mass does not tell text blocks apart: measure it with pinned=<tokens>")
    kept = (mass.pinned + mass.generated)[..., None] + mass.by_block.cumsum(-1)
    return _smallest(kept.mean((0, 1)), coverage)


def _smallest(curve: Float[Tensor, " limits"], coverage: float) -> int:
    """Return the first limit, from 1, at which the curve reaches ``coverage``."""
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage is a part of the attention, above 0 and at most 1; got {coverage}")
    reached = curve >= min(coverage, float(curve[-1]))  # rounding may leave the whole a hair short of 1
    return int(reached.int().argmax()) + 1


@torch.no_grad()
def attention_mass(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    windows: Sequence[int] = (8, 16, 32, 64),
    *,
    pinned: int | None = None,
) -> AttentionMass:
    """Measure where a model looks under full attention; a converted model is measured as its own teacher.

    Parameters
    ----------
    model
        A transformers causal decoder with an eager attention.
    batch
        Whole utterances: ``input_ids`` or ``inputs_embeds``, ``conditioning`` (bool [batch, time]), and, where there is
        padding, ``attention_mask``; ``position_ids`` if the model wants them, or where rows hold several utterances,
        with each of which they start again; ``block`` as :class:`~wandlib.distillation.streams.StreamCollator` numbers
        text blocks. Anything else is left aside.
    windows
        The windows of the table.
    pinned
        Without ``block``: how many conditioning tokens at the start belong to no text block; the others' blocks are
        counted as :class:`~wandlib.WandCache` counts them. None: blocks are not told apart.

    Raises
    ------
    ValueError
        If tokens or ``conditioning`` are missing or no tensors, or do not fit, if there is no generated token, if
        ``pinned`` is negative, if the attention of a layer cannot be found by its name, or if the model does not keep
        the utterances of a row apart.
    """
    for window in windows:
        check_window(window)
    batch = {name: value for name, value in batch.items() if name in USED and value is not None}
    for name, value in batch.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"batch[{name!r}] is a {type(value).__name__}: give a tensor [batch, time, ...]")
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    if not {"input_ids", "inputs_embeds"} & set(inputs):
        raise ValueError("attention_mass needs batch['input_ids'] or batch['inputs_embeds']")
    new = batch["input_ids"] if "input_ids" in batch else batch["inputs_embeds"]
    if "conditioning" not in batch:
        raise ValueError("attention_mass needs batch['conditioning'], a bool for each token: True is conditioning")
    conditioning = check_conditioning(batch["conditioning"], *new.shape[:2])
    real = batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(conditioning)
    utterance = packed(inputs.get("position_ids"), real)
    block = batch.get("block")
    if block is None and pinned is not None:
        if utterance is not None:
            raise ValueError("pinned counts from the start of a row, and rows hold several utterances: give block")
        block = text_blocks(conditioning, ~real, check_blocks(1, pinned)[1])
    sequence = tokens(conditioning, ~real, block=block, utterance=utterance)
    text = sequence.conditioning & (sequence.block > 0)
    queries = real & ~sequence.conditioning
    if not queries.any():
        raise ValueError("every token is conditioning: there is no generated query to measure")
    apart = [(row, numbers == one) for row, numbers in enumerate(sequence.utterance) for one in numbers.unique()]
    longest = max(int((queries[row] & own).sum()) for row, own in apart)
    prefix: list[Tensor] = []
    by_distance: list[Tensor] = []
    by_block: list[Tensor] = []

    def reduce(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        weights = output[1].float()  # [batch, heads, query, key]
        heads = weights.shape[1]
        on_prefix, on_generated = weights.new_zeros(heads), weights.new_zeros(heads, longest)
        on_text = weights.new_zeros(heads, int(sequence.block.max()))
        for sample, own in apart:
            mine = queries[sample] & own
            looked = weights[sample][:, mine]
            if looked[..., ~own].any():
                raise ValueError(
                    f"{type(decoder).__name__} does not keep the utterances of a row (position_ids that start again) "
                    "apart: give it one utterance in each row"
                )
            on_prefix += looked[..., sequence.conditioning[sample] & own].sum((1, 2))
            count = sequence.generated[sample, mine]
            ago = (count[:, None] - count[None, :]).clamp(min=0)  # keys yet to come have no weight
            on_generated.index_add_(1, ago.flatten(), looked[..., mine].flatten(1))
            key = text[sample] & own
            age = (sequence.block[sample, mine][:, None] - sequence.block[sample, key][None, :]).clamp(min=0)
            on_text.index_add_(1, age.flatten(), looked[..., key].flatten(1))
        prefix.append(on_prefix / queries.sum())
        by_distance.append(on_generated / queries.sum())
        by_block.append(on_text / queries.sum())
        return output[0], None

    decoder = base_decoder(model)
    if not (modules := attention_modules(decoder)):
        raise ValueError(f"found no self-attention of a known name in the layers of {type(decoder).__name__}")
    before = decoder.config._attn_implementation
    with ExitStack() as stack:
        if isinstance(getattr(decoder, "wand", None), WindowHook):
            stack.enter_context(full_attention(model))
        for module in modules:
            stack.callback(module.register_forward_hook(reduce).remove)
        for part in decoder.modules():  # dropout has no place in a map
            stack.callback(setattr, part, "training", part.training)
        decoder.eval()
        stack.callback(decoder.set_attn_implementation, before)
        decoder.set_attn_implementation("eager")
        # Where utterances are packed, transformers tells them apart if it makes the mask.
        decoder(**inputs, attention_mask=real.long() if utterance is None else None, use_cache=False)
    ages = None if block is None else torch.stack(by_block).cpu()
    return AttentionMass(torch.stack(prefix).cpu(), torch.stack(by_distance).cpu(), tuple(windows), ages)


def packed(position_ids: Tensor | None, real: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"] | None:
    """Tell the utterances of each row apart by a number; None: one a row.

    Raises
    ------
    ValueError
        If there are several in a row that is padded on the left: without a mask they would see the padding.
    """
    if position_ids is None or position_ids.ndim != 2:
        return None
    utterance = packed_utterances(position_ids.expand(len(real), -1), ~real)
    if utterance is not None and (real[:, 1:] > real[:, :-1]).any():
        raise ValueError(
            "rows with several utterances (position_ids that start again) are to be padded on the right only: use "
            "WandCollator(padding_side='right')"
        )
    return utterance
