"""The hook that puts the window under a decoder: what :func:`wandlib.attention.conversion.convert` registers.

One forward pre-hook on the base decoder (the module that owns the layers) does all of it; nothing of the model, of
``generate``, of Trainer or of PEFT is replaced. Before each forward pass the hook

- gives the decoder a :class:`~wandlib.attention.cache.cache.WandCache` where it was to fill an ordinary cache, and has the pass
  planned; where sequences share a prompt, it folds them together, and a hook after the pass unfolds the output;
- without a cache (training, scoring), puts in the 4-D mask of :mod:`wandlib.attention.window`, hard or soft.
"""

from __future__ import annotations

import inspect
import threading
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from wandlib.attention.cache.cache import ASSISTED, WandCache
from wandlib.attention.cache.shared_prompt import apart, once, side_by_side
from wandlib.attention.models import CACHE_ARGUMENTS, cache_argument
from wandlib.attention.window import additive_mask, block_mask, fitting, own_limits, tokens

NEW_TOKENS = ("input_ids", "inputs_embeds", "audio_input_ids")
"""The arguments that can bring the new tokens, [batch, time, ...]; the last one: Higgs Audio's codes."""
FLASH = (
    "flash attention takes no mask, which padding, ragged batches, shared prompts, conditioning in mid-stream and "
    "sliding layers need: load the model with attn_implementation='sdpa' (or 'eager'), or give a batch without padding"
)


class Window:
    """The hook and the window's settings; ``base_decoder(model).wand`` of a converted model.

    Parameters
    ----------
    decoder
        The module that owns the layers.
    window
        Generated keys that a query sees, its own included.
    conditioning_until
        Token id that ends conditioning which the model generates itself, or None.
    """

    def __init__(self, decoder: PreTrainedModel, window: int, conditioning_until: int | None) -> None:
        self.window = window
        self.tau = float("inf")
        """Strength of the soft mask in passes without a cache; ``inf``: the hard window."""
        self.conditioning_until = conditioning_until
        limits = own_limits(decoder.config)
        self.cache_name = cache_argument(decoder)
        self.limits = set(limits)
        kinds = getattr(decoder.config.get_text_config(decoder=True), "layer_types", None)
        self.kinds = dict(zip(kinds or (), limits, strict=False))
        """The own limit of each kind of layer, where the decoder takes a mask for each kind."""
        self.parameters = tuple(inspect.signature(decoder.forward).parameters)
        self.suspended: dict[int, int] = {}
        """How deep each thread is inside :func:`wandlib.attention.conversion.full_attention`."""
        self.handles: list[Any] = []

    @property
    def asleep(self) -> bool:
        """Whether this thread runs under full attention."""
        return bool(self.suspended) and threading.get_ident() in self.suspended

    def before(self, decoder: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Plan the forward pass that is about to start."""
        if args:
            kwargs = dict(zip(self.parameters, args, strict=False)) | kwargs
        self.rename(decoder, (), kwargs)
        if self.asleep:
            kwargs.pop("conditioning", None)
            return (), kwargs
        cache, new = self.cache(decoder, kwargs), new_tokens(kwargs)
        if cache is None:
            self.without_cache(decoder, kwargs, new, kwargs.pop("conditioning", None))
            return (), kwargs
        slots = cache.slots
        step = is_step(cache, new, kwargs)
        if slots.shared > 1:
            rows, sequences = new.shape[0], slots.shared
            kwargs = side_by_side(kwargs, rows, sequences, slots.length) if step else once(kwargs, rows, sequences)
            new = new_tokens(kwargs)
        conditioning = kwargs.pop("conditioning", None)
        if not step:
            self.with_cache(decoder, cache, kwargs, new, conditioning)
            return (), kwargs
        kwargs["attention_mask"] = self.delivered(decoder, cache.plan_step(new.shape[0]))
        return (), kwargs

    def rename(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Take the cache by any name that transformers has had for it."""
        for name in CACHE_ARGUMENTS:
            if name != self.cache_name and name in kwargs:
                given = kwargs.pop(name)
                kwargs.setdefault(self.cache_name, given)
        return args, kwargs

    def unfold(self, decoder: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Give every sequence its own row of the output again, where prompts are shared."""
        cache = kwargs.get(self.cache_name)
        if not isinstance(cache, WandCache) or cache.shared == 1:
            return output
        return apart(output, cache.shared, step=cache.slots.plan.step)

    def cache(self, decoder: PreTrainedModel, kwargs: dict[str, Any]) -> WandCache | None:
        """The cache of this pass: the caller's, or ours in place of an ordinary one that is still empty."""
        past = kwargs.get(self.cache_name)
        if isinstance(past, WandCache):
            return past
        if past is None:
            if kwargs.get("use_cache") is None:  # a pass that says what is conditioning is there to train or to score
                default = getattr(decoder.config, "use_cache", False)
                kwargs["use_cache"] = default and not decoder.training and kwargs.get("conditioning") is None
            if not kwargs["use_cache"]:
                return None
            own = WandCache(decoder.config, self.window, conditioning_until=self.conditioning_until)
            kwargs[self.cache_name] = own
            return own
        if type(past) is DynamicCache and past.get_seq_length() == 0 and not past.offloading:
            # `generate` made it, or a caller who will pass the same object again: it has to become ours itself.
            became: Any = past
            became.__class__ = WandCache
            became.__init__(decoder.config, self.window, conditioning_until=self.conditioning_until)
            return became
        raise ValueError(
            f"a converted model decodes with a WandCache, not with this {type(past).__name__} that holds "
            f"{int(past.get_seq_length())} tokens: pass past_key_values=WandCache(model.config, window=...) "
            "(static=True in place of a StaticCache) or nothing, or run under wandlib.full_attention(model)"
        )

    def without_cache(
        self, decoder: PreTrainedModel, kwargs: dict[str, Any], new: Tensor, conditioning: Tensor | None
    ) -> None:
        """Training and scoring: the rule as a mask over the whole sequence."""
        if conditioning is None:
            if decoder.training:
                raise ValueError(
                    "a converted model in training must be told which tokens are conditioning: pass "
                    "conditioning=<bool tensor [batch, time]> to its forward, or train under "
                    "wandlib.full_attention(model)"
                )
            return  # a prompt and nothing else: all of it conditioning, the causal mask is right
        mask = kwargs.get("attention_mask")
        if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
            raise ValueError("give conditioning together with a 2-D attention_mask (1 = token, 0 = padding) or none")
        sequence = tokens(fitting(conditioning, *new.shape[:2]), None if mask is None else mask == 0)
        masks: dict[int | None, Any]
        if self.attention(decoder) == "flex_attention" and self.tau == float("inf"):
            masks = {limit: block_mask(sequence, self.window, limit) for limit in self.limits}
        else:
            dtype = next(decoder.parameters()).dtype
            masks = {
                limit: additive_mask(sequence, sequence, self.window, dtype, self.tau, limit) for limit in self.limits
            }
        kwargs["attention_mask"] = self.delivered(decoder, masks)

    def with_cache(
        self,
        decoder: PreTrainedModel,
        cache: WandCache,
        kwargs: dict[str, Any],
        new: Tensor,
        conditioning: Tensor | None,
    ) -> None:
        """Prefill, chunks, conditioning in mid-stream, and steps whose kind is still open."""
        batch, length = new.shape[:2]
        mask = kwargs.get("attention_mask")
        refuse_other_prompt(cache, length, mask, kwargs.get("position_ids"))
        padding = padding_of(mask, length)
        if padding is not None and "flash" in self.attention(decoder):
            raise ValueError(FLASH)
        masks = cache.plan_rewrite(
            batch,
            length,
            dtype=next(decoder.parameters()).dtype,
            device=new.device,
            conditioning=conditioning,
            padding=padding,
            input_ids=kwargs.get("input_ids"),
        )
        if masks is not None:
            kwargs["attention_mask"] = self.delivered(decoder, masks)

    def delivered(self, decoder: PreTrainedModel, masks: dict[int | None, Any]) -> Any:
        """The masks as the decoder takes them; where it takes one for each kind of layer, it need not look for any."""
        if masks and "flash" in self.attention(decoder):
            raise ValueError(FLASH)
        if self.kinds:
            return {kind: masks.get(limit) for kind, limit in self.kinds.items()}
        return next(iter(masks.values()), None)

    def attention(self, decoder: PreTrainedModel) -> str:
        """The name of the attention implementation."""
        return decoder.config._attn_implementation or ""

    def after(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Stop a generation whose logits are NaN or infinite."""
        cache, logits = getattr(output, self.cache_name, None), getattr(output, "logits", None)
        if not isinstance(cache, WandCache) or logits is None or torch.compiler.is_compiling():
            return
        if logits.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        # The maximum: NaN comes through it, while a token that a model rules out with -inf does not disturb it.
        last = logits if logits.shape[1] == 1 else logits[:, -1]
        highest = last.amax().item()
        if highest != highest or highest == float("inf"):
            step = int(torch.as_tensor(cache.generated).max())
            raise FloatingPointError(f"the logits of generation step {step} are not finite; {culprit(cache)}")


class AssistedDecoding:
    """Stands in for ``model._is_stateful``, whose truth only assisted decoding asks: says no, and why."""

    def __init__(self, window: Window) -> None:
        self.window = window

    def __bool__(self) -> bool:
        if self.window.asleep:
            return False
        raise ValueError(ASSISTED)


def new_tokens(kwargs: dict[str, Any]) -> Tensor:
    """The argument that brings the new tokens, [batch, time, ...]."""
    for name in NEW_TOKENS:
        new: Tensor | None = kwargs.get(name)
        if new is not None:
            return new
    raise ValueError(f"the decoder was given no new tokens: pass one of {', '.join(NEW_TOKENS)}")


def is_step(cache: WandCache, new: Tensor, inputs: dict[str, Any]) -> bool:
    """Whether a pass is a usual decoding step: one generated token of each sequence."""
    return cache.slots.settled and new.shape[1] == 1 and inputs.get("conditioning") is None


def culprit(cache: WandCache) -> str:
    """Say where numbers first went wrong, from the keys and values that each layer left behind."""
    last = len(cache.layers) - 1
    for index in range(len(cache.layers)):
        keys_fine, values_fine = (bool(held.isfinite().all()) for held in cache[index])
        if keys_fine and values_fine:
            continue
        if keys_fine or values_fine or index == 0:
            return f"they first went wrong in layer {index}, in its {'values' if keys_fine else 'keys'}"
        return f"they first went wrong in layer {index - 1}, in its output"
    return f"all keys and values are finite: look at the output of layer {last}, the last norm and the head"


def padding_of(mask: Any, length: int) -> Bool[Tensor, "batch time"] | None:
    """Which of the last ``length`` tokens are padding, from a mask as ``generate`` gives it; None: none of them."""
    if isinstance(mask, dict):  # prepared by `generate` for a static cache, one for each kind of layer
        mask = next(iter(mask.values()))
    if not isinstance(mask, Tensor):
        return None
    if mask.ndim == 4:
        mask = mask[:, 0, -1] if mask.dtype == torch.bool else mask[:, 0, -1] >= 0
    padding = mask[:, -length:] == 0
    return padding if bool(padding.any()) else None


def refuse_other_prompt(cache: WandCache, length: int, mask: Any, position_ids: Any) -> None:
    """Raise ValueError where the new tokens plainly do not go on from what the cache holds."""
    held = int(cache.slots.length)
    if held == 0:
        return
    restarts = length == 0 or (isinstance(mask, Tensor) and mask.ndim == 2 and 1 < length == mask.shape[1])
    if not restarts and length > 1 and isinstance(position_ids, Tensor) and position_ids.ndim == 2:
        first = int(position_ids[:, 0].max())
        restarts = first == 0 if cache.slots.padded else first != held
    if restarts:
        raise ValueError(
            f"this cache already holds {held} tokens and the input does not go on from there: to use it for another "
            "prompt, call cache.reset() first"
        )
